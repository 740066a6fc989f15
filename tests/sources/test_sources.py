"""sources/idx.py: one's own IDX files are taken as they come, and what cannot be used is named with the way out."""

import gzip

import numpy as np
import pytest

from ae_pipeline.data.idx import copy_uncompressed, open_idx, write_idx
from ae_pipeline.errors import DataError
from ae_pipeline.files import finished_folder
from ae_pipeline.sources.idx import FILES, IdxSource

FLOAT32, FLOAT64 = 0x0D, 0x0E


def idx_bytes(values, code=0x08):
    """IDX as LeCun's page describes it, written without the package's own writer."""
    lengths = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return bytes([0, 0, code, values.ndim]) + lengths + values.tobytes()


@pytest.fixture(scope="module")
def contents():
    """The four IDX files of a small data set, by name."""
    random = np.random.default_rng(5)
    arrays = [random.integers(0, 256, shape, np.uint8) for shape in ((20, 5, 4), (20,), (8, 5, 4), (8,))]
    return {name: idx_bytes(array) for name, array in zip(FILES, arrays, strict=True)}


@pytest.fixture
def folder(tmp_path, contents):
    """The user's folder of IDX files: gzipped images, plain labels."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, content in contents.items():
        if "images" in name:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def test_idx_files_are_read_gzipped_or_not_with_and_without_labels(folder, raw, contents):
    (folder / FILES[3]).unlink()
    source = IdxSource(folder=str(folder))
    source.fetch(raw)
    assert {file.name: file.read_bytes() for file in raw.iterdir()} == {n: contents[n] for n in FILES[:3]}
    splits = source.read(raw)
    assert splits["train"].pixels.shape == (20, 5, 4)
    assert splits["train"].attributes["label"].tolist() == list(contents[FILES[1]][8:])
    assert splits["test"].attributes == {}
    assert (splits["train"].first_id, splits["test"].first_id) == (0, 20)


def test_idx_files_may_be_named_test_and_hold_any_supported_type(tmp_path, raw):
    values = np.linspace(-1, 1, 24, dtype=">f4").reshape(2, 3, 4)
    for name in ("train-images.idx", "test-images.idx"):
        (tmp_path / name).write_bytes(idx_bytes(values, code=FLOAT32))
    source = IdxSource(folder=str(tmp_path))
    source.fetch(raw)
    np.testing.assert_array_equal(source.read(raw)["test"].pixels, values)


IMAGES, LABELS, TEST_IMAGES = f"{FILES[0]}.gz", FILES[1], f"{FILES[2]}.gz"


# What is put in place of which file, and what the error must say.
UNUSABLE = {
    "truncated gzip": (IMAGES, lambda now: gzip.compress(now)[:-30], ["truncated or damaged", "fetch it again"]),
    "truncated": (IMAGES, lambda now: now[:-1], ["415 bytes, expected 416 for shape [20, 5, 4]", "fetch it again"]),
    "web page": (IMAGES, lambda now: b"<!DOCTYPE html>", ["is not an IDX file", "expected two zero bytes"]),
    "empty file": (IMAGES, lambda now: b"", ["is not an IDX file", "expected two zero bytes"]),
    "cut in the header": (LABELS, lambda now: now[:6], ["truncated in its header", "fetch it again"]),
    "no rows": (IMAGES, lambda now: idx_bytes(np.zeros((0, 5, 4), np.uint8)), ["no rows", "expected at least one"]),
    "too many dimensions": (IMAGES, lambda now: b"\0\0\x08\x46" + b"\0\0\0\x01" * 70 + b"1", ["expected 1 to 9"]),
    "one dimension": (IMAGES, lambda now: idx_bytes(np.zeros(20, np.uint8)), ["expected at least two dimensions"]),
    "label count": (LABELS, lambda now: idx_bytes(np.zeros(19, np.uint8)), ["one label for each of 20 images"]),
    "unsupported type": (IMAGES, lambda now: idx_bytes(np.zeros((20, 5, 4), ">f8"), FLOAT64), ["holds float64"]),
    "not a number": (IMAGES, lambda now: idx_bytes(np.full((20, 5, 4), np.nan, ">f4"), FLOAT32), ["NaN", "repair"]),
}


@pytest.mark.parametrize("how", UNUSABLE)
def test_an_unusable_idx_file_is_named_with_the_way_out(folder, tmp_path, how):
    name, replacement, wanted = UNUSABLE[how]
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(replacement(gzip.decompress(content) if name.endswith(".gz") else content))
    with pytest.raises(DataError) as caught, finished_folder(tmp_path / "raw") as raw:
        IdxSource(folder=str(folder)).fetch(raw)
    message = str(caught.value)
    assert [part for part in [str(folder / name), *wanted] if part not in message] == []
    assert str(raw) not in message, "a folder that exists no more is of no use to anyone"
    assert not (tmp_path / "raw").exists()


def test_train_and_test_images_must_have_one_shape(folder, raw):
    (folder / TEST_IMAGES).write_bytes(idx_bytes(np.zeros((8, 4, 5), np.uint8)))
    with pytest.raises(
        DataError,
        match=r"mine has train and test images that differ in shape: .*\[5, 4\].*\[4, 5\].*; expected one shape",
    ):
        IdxSource(folder=str(folder)).fetch(raw)


def test_two_files_for_the_same_images_are_not_chosen_between(folder, raw):
    (folder / FILES[0]).write_bytes(b"")
    with pytest.raises(DataError, match=rf"mine holds several files .*{FILES[0]}, {FILES[0]}\.gz; keep one of them"):
        IdxSource(folder=str(folder)).fetch(raw)
    assert list(raw.iterdir()) == []


def test_missing_test_images_are_asked_for_by_name(folder, raw):
    (folder / TEST_IMAGES).unlink()
    with pytest.raises(DataError, match=r"no test images in .*mine; expected .* t10k-images\* or test-images\*"):
        IdxSource(folder=str(folder)).fetch(raw)


def test_a_gzipped_file_is_not_unpacked_without_end(tmp_path):
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(1 << 22)))
    with pytest.raises(DataError, match=r"bomb\.gz unpacks to more than 1000000 bytes"):
        copy_uncompressed(tmp_path / "bomb.gz", tmp_path / "plain", limit=1_000_000)


def test_a_folder_that_is_named_like_a_file_is_not_taken_for_it(folder, raw):
    # Some programs unpack train-images-idx3-ubyte.gz into a folder of that name.
    (folder / FILES[0]).mkdir()
    IdxSource(folder=str(folder)).fetch(raw)
    assert open_idx(raw / FILES[0]).shape == (20, 5, 4)


def test_a_missing_folder_says_which_knob_names_it(tmp_path, raw):
    with pytest.raises(DataError, match=r"no folder .*nowhere; set source\.idx\.folder"):
        IdxSource(folder=str(tmp_path / "nowhere")).fetch(raw)


def test_the_idx_writer_writes_what_the_reader_reads(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    write_idx(tmp_path / "file", values)
    assert (tmp_path / "file").read_bytes() == idx_bytes(values)
    np.testing.assert_array_equal(open_idx(tmp_path / "file"), values)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.arange(6), "uint8"),
        (np.array([300, -5]), "int16"),
        (np.array([65_535], np.uint16), "int32"),
        (np.array([2**40]), "float32"),
        (np.array([2**40 + 1]), "float64"),
        (np.array([0.1], np.float32), "float32"),
        (np.array([0.1]), "float64"),
    ],
)
def test_the_idx_writer_changes_no_value(values, dtype, tmp_path):
    write_idx(tmp_path / "new" / "file", values)
    found = open_idx(tmp_path / "new" / "file")
    assert found.dtype.newbyteorder("=").name == dtype
    assert found.tolist() == values.tolist()


def test_the_idx_writer_refuses_values_that_no_type_of_the_format_holds(tmp_path):
    with pytest.raises(DataError, match=r"no IDX type holds these values of type int64; convert them to one of uint8"):
        write_idx(tmp_path / "file", np.array([2**62 + 1]))
