"""Decoded rows as files: images that any program opens, names that harm nobody, whole or not at all."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import bytes_of, random_pixels
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import Block, SampleSet
from ae_pipeline.errors import ConfigError, TargetError
from ae_pipeline.store.reading.export import export_images, export_parquet, file_stem, write_png

HOSTILE = [
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "",
    ".hidden",
    "a/b",
    "a\\b",
    "a\nb",
    "a\0b",
    "CON",
    "-rf",
    "~",
]
HOSTILE += [
    "a.png",
    "A.png",
    "ä",
    "日本語",
    "🙂",
    "x" * 5000,
    "x" * 4999 + "y",
    "a:b",
    'a"b',
    "%2E",
    "a b",
    "index.parquet",
]


def blocks_of(ids, pixels, **columns):
    """The rows as two blocks."""
    attributes = pa.table({"id": pa.array(ids), **columns})
    half = len(ids) // 2
    blocks = [Block(attributes[:half], pixels[:half]), Block(attributes[half:], pixels[half:])]
    return blocks, attributes.schema, SampleSpec(pixels.shape[1:], pixels.dtype.name)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        *(((1, 1), "uint8"), ((5, 4), "uint8"), ((4, 5, 1), "uint8"), ((6, 7, 3), "uint8"), ((3, 2, 4), "uint8")),
        *(((1, 1), "uint16"), ((5, 4), "uint16"), ((4, 5, 1), "uint16")),
    ],
)
def test_images_hold_the_very_pixels(shape, dtype, tmp_path):
    pixels = random_pixels((6, *shape), dtype)
    assert export_images(*blocks_of(range(6), pixels), tmp_path / "out") == 6
    for row in range(6):
        path = tmp_path / "out" / f"{row}.png"
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            found = np.asarray(image)
        assert found.dtype == dtype
        assert np.array_equal(found.reshape(shape), pixels[row])


def test_the_same_rows_give_the_same_bytes(tmp_path):
    pixels = random_pixels((5, 6, 7), "uint8")
    for name in ("a", "b"):
        export_images(*blocks_of(["x", "y", "z", "x", "w"], pixels), tmp_path / name)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_the_index_says_which_file_is_which_row(tmp_path):
    pixels = random_pixels((4, 3, 2), "uint8")
    ids = ["a/b", "a/b", "c", "A/B"]
    export_images(*blocks_of(ids, pixels, label=[1, 2, None, 4]), tmp_path / "out")
    index = pq.read_table(tmp_path / "out" / "index.parquet")
    assert index.column_names == ["id", "file", "label"]
    assert index["id"].to_pylist() == ids
    assert index["label"].to_pylist() == [1, 2, None, 4]
    assert index["file"].to_pylist() == ["a%2Fb.png", "a%2Fb~2.png", "c.png", "A%2FB.png"]
    for row, file in enumerate(index["file"].to_pylist()):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / file)), pixels[row])


def test_no_id_writes_outside_or_over_another(tmp_path):
    ids = HOSTILE * 2
    pixels = random_pixels((len(ids), 2, 3), "uint8")
    export_images(*blocks_of(ids, pixels), tmp_path / "out")
    index = pq.read_table(tmp_path / "out" / "index.parquet")
    files = index["file"].to_pylist()
    assert len(set(files)) == len(ids)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*files, "index.parquet"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for row, file in enumerate(files):
        assert not file.startswith(".")
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / file)), pixels[row])


@pytest.mark.slow
@given(st.one_of(st.integers(), st.text(max_size=60)), st.one_of(st.integers(), st.text(max_size=60)))
def test_short_ids_have_names_of_their_own(first, second):
    stems = [file_stem(first), file_stem(second)]
    assert (stems[0] == stems[1]) == (str(first) == str(second)) or max(map(len, stems)) == 150
    for stem in stems:
        assert 0 < len(stem) <= 150
        assert not set(stem) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-%")
        assert not stem.startswith(".")


def test_a_file_that_is_there_is_never_written_over(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(FileExistsError):
        write_png(tmp_path / "a.png", np.ones((2, 2), np.uint8))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        *(((4, 4), "float32"), ((4, 4), "int8"), ((16,), "uint8"), ((4, 4, 2), "uint8"), ((2, 2, 2, 3), "uint8")),
        *(((4, 4, 3), "uint16"), ((4, 4, 4), "uint16")),
    ],
)
def test_rows_that_are_no_images_are_refused(shape, dtype, tmp_path):
    with pytest.raises(ConfigError, match=f"rows of {dtype} .* are no images.*--format parquet"):
        export_images(*blocks_of([1, 2], random_pixels((2, *shape), dtype)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_attribute_called_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="a column is called `file`"):
        export_images(*blocks_of([1, 2], random_pixels((2, 3, 3), "uint8"), file=["a", "b"]), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["out", "out.parquet"])
@pytest.mark.parametrize("export", [export_parquet, export_images])
def test_what_is_cut_off_leaves_nothing(export, target, tmp_path):
    blocks, schema, spec = blocks_of([1, 2], random_pixels((2, 3, 3), "uint8"))

    def cut_off():
        yield blocks[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(cut_off(), schema, spec, tmp_path / target)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["out", "out.parquet"])
def test_parquet_is_a_data_set_again_also_without_rows(target, tmp_path):
    pixels = random_pixels((5, 3, 3), "int16")
    blocks, schema, spec = blocks_of([5, 4, 3, 2, 1], pixels, name=["a", None, "c", "d", "e"])
    assert export_parquet(blocks, schema, spec, tmp_path / target) == 5
    again = SampleSet.open(tmp_path / target)
    assert again.spec == spec
    assert np.array_equal(again.load().pixels, pixels)
    assert again.load().attributes["name"].to_pylist() == ["a", None, "c", "d", "e"]
    assert export_parquet([], schema, spec, tmp_path / f"none-{target}") == 0
    assert pq.read_table(tmp_path / f"none-{target}").column_names == ["id", "name", "pixels"]


@pytest.mark.parametrize("target", ["out", "out.parquet"])
def test_what_exists_is_refused_and_left_alone(target, tmp_path):
    blocks, schema, spec = blocks_of([1, 2], random_pixels((2, 3, 3), "uint8"))
    (tmp_path / target).write_bytes(b"mine")
    (tmp_path / "folder.parquet").mkdir()
    for export in (export_parquet, export_images):
        with pytest.raises(TargetError, match="exists already"):
            export(blocks, schema, spec, tmp_path / target)
    with pytest.raises(TargetError, match="is a folder"):
        export_parquet(blocks, schema, spec, tmp_path / "folder.parquet")
    assert (tmp_path / target).read_bytes() == b"mine"
    assert not list((tmp_path / "folder.parquet").iterdir())
