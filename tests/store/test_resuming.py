"""An encoding that was cut off is taken up again: what is whole is kept, and the store comes out the same."""

import shutil

import pyarrow.parquet as pq
import pytest
from handmade import bytes_of, encode, flip_bit, random_codec

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.store.format.manifest import CODEC_FOLDER


class Cut(Exception):  # noqa: N818 (no error of the package)
    """Stands for whatever stops a run."""


def cut(rows):
    raise Cut


@pytest.fixture
def train(synthetic_prepared):
    return SampleSet.open(synthetic_prepared / "train")


@pytest.fixture
def interrupted(train, tiny_codec, tmp_path):
    """The work folder of a run that was cut off after its first part."""
    with pytest.raises(Cut):
        encode(train, tiny_codec, tmp_path / "store", progress=cut)
    assert not (tmp_path / "store").exists()
    (folder,) = tmp_path.glob(".store.*.partial")
    return folder


@pytest.fixture
def whole(train, tiny_codec, tmp_path_factory):
    """The bytes of a store that was written in one go."""
    return bytes_of(encode(train, tiny_codec, tmp_path_factory.mktemp("whole") / "store").path)


def finish(train, tiny_codec, tmp_path):
    encode(train, tiny_codec, tmp_path / "store")
    assert not list(tmp_path.glob(".*"))
    return bytes_of(tmp_path / "store")


def test_a_resumed_run_takes_the_parts_that_are_there(interrupted, whole, train, tiny_codec, tmp_path):
    def stamps(folder):
        return {part.name: (part.stat().st_ino, part.stat().st_mtime_ns) for part in folder.glob("part-*")}

    before = stamps(interrupted)
    assert before
    assert finish(train, tiny_codec, tmp_path) == whole
    assert before.items() <= stamps(tmp_path / "store").items()


def spoil_page(part):
    column = pq.read_metadata(part).row_group(0).column(0)
    flip_bit(part, column.data_page_offset + column.total_compressed_size - 1)


def spoil_footer(part):
    flip_bit(part, part.read_bytes().index(b"label"))  # a column of another name


def truncate(part):
    part.write_bytes(part.read_bytes()[:-100])


def empty(part):
    part.write_bytes(b"")


@pytest.mark.parametrize("spoil", [spoil_page, spoil_footer, truncate, empty])
def test_a_damaged_part_that_was_left_is_made_again(spoil, interrupted, whole, train, tiny_codec, tmp_path):
    spoil(next(iter(interrupted.glob("part-*"))))
    assert finish(train, tiny_codec, tmp_path) == whole


def test_a_part_of_another_job_is_never_taken(interrupted, whole, train, tiny_codec, tmp_path):
    # Same rows and schema, right name, other codec: only the job that is written in the part tells.
    random_codec(tmp_path / "other", (12, 12), latent_size=6)
    other = encode(train, tmp_path / "other", tmp_path / "theirs")
    for part in interrupted.glob("part-*"):
        (theirs,) = other.path.glob(f"{part.name[:11]}*")
        shutil.copyfile(theirs, part)
    shutil.rmtree(other.path)
    assert finish(train, tiny_codec, tmp_path) == whole


def test_what_an_interrupted_run_left_is_swept(interrupted, whole, train, tiny_codec, tmp_path):
    (interrupted / CODEC_FOLDER).mkdir(exist_ok=True)  # the run had copied its codec there
    for stray in (
        "_manifest.json",
        ".part-00001-0123456789abcdef.parquet.77.tmp",
        f"{CODEC_FOLDER}/.weights.safetensors.77.tmp",
        f"{CODEC_FOLDER}/codec.json",
    ):
        (interrupted / stray).write_bytes(b"half")
    (interrupted / "folder").mkdir()
    assert finish(train, tiny_codec, tmp_path) == whole
    assert not (tmp_path / "store" / "folder").exists()


def test_a_run_with_another_codec_takes_nothing(interrupted, train, tmp_path):
    random_codec(tmp_path / "other", (12, 12), latent_size=6)
    left = bytes_of(interrupted)
    store = encode(train, tmp_path / "other", tmp_path / "store")
    assert store.manifest.codec.fingerprint == Codec.load(tmp_path / "other").fingerprint
    assert not {name for name in left if name.startswith("part")} & set(bytes_of(store.path))
