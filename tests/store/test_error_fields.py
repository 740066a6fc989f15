"""An error's place, finding and advice are fields: whoever needs one takes it, and reads no sentence apart."""

import copy
import pickle

import pytest
from grown import copied, grow, rewrite_manifest
from handmade import flip_bit

from ae_pipeline.cli.options import naming_options
from ae_pipeline.data.idx import open_idx
from ae_pipeline.errors import ConfigError, DamagedPartError, DataError, NewerFormatError, PipelineError, StoreError
from ae_pipeline.operation.inbox.files.faults import reason_of
from ae_pipeline.operation.inbox.idx import read_labels
from ae_pipeline.sources.idx import IMAGES, IdxSource
from ae_pipeline.store.format.manifest import MANIFEST_NAME, read_manifest
from ae_pipeline.store.latent_store import LatentStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three parts in three snapshots."""
    return grow(tmp_path_factory.mktemp("errors"))


@pytest.fixture
def store(whole, tmp_path):
    return copied(whole, tmp_path / "store")


def fields(error):
    """Its fields, of which the sentence is made."""
    assert str(error) == f"{error.place} {error.finding}; {error.advice}"
    return str(error.place), error.finding, error.advice


def test_a_sentence_is_made_of_the_fields_that_there_are(tmp_path):
    assert str(StoreError("has 3 bytes", place=tmp_path, advice="restore it")) == f"{tmp_path} has 3 bytes; restore it"
    assert str(StoreError("has 3 bytes", place="s3://a/b")) == "s3://a/b has 3 bytes"
    assert str(ConfigError("no data", advice="give some")) == "no data; give some"
    whole = ConfigError("give a or b")
    assert (str(whole), whole.finding, whole.place, whole.advice) == ("give a or b", "give a or b", None, None)


def test_fields_survive_copies_and_processes():
    error = DamagedPartError("is damaged", place="part", advice="repair it")
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(other), fields(other)) == (DamagedPartError, fields(error))


def test_no_field_holds_a_password():
    url = "https://user:secret@host/store?token=secret"
    error = PipelineError(f"asks {url}", place=url, advice=f"ask {url}")
    for text in (str(error), repr(error), error.finding, error.place, error.advice, str(error.with_fields(place=url))):
        assert "secret" not in text


def test_a_manifest_that_was_changed(store):
    flip_bit(store / MANIFEST_NAME, 300)
    with pytest.raises(StoreError) as found:
        read_manifest(store)
    place, finding, advice = fields(found.value)
    assert place == str(store / MANIFEST_NAME)
    assert finding.startswith(("was changed: ", "is not readable JSON: "))
    assert advice.startswith("restore it from a copy, or run `ae-pipeline repair`")
    assert advice.endswith("until then, `ae-pipeline decode --snapshot 2` reads what stood there before")


def test_a_manifest_of_a_later_version(store):
    rewrite_manifest(store, lambda values: values.update(format=5))
    with pytest.raises(NewerFormatError) as found:
        read_manifest(store)
    finding = "has format 5, expected 1, 2, 3 or 4: a later version of ae-pipeline wrote it"
    assert fields(found.value) == (str(store / MANIFEST_NAME), finding, "use that one")


def test_a_part_that_is_damaged_or_missing(store):
    opened = LatentStore.open(store)
    first, second, _ = opened.manifest.parts
    (store / first.name).unlink()
    (store / second.name).write_bytes(b"short")
    found = {}
    list(opened.scan(ids=[100, 200], on_damaged=lambda part, error: found.update({part.name: fields(error)})))
    advice = "restore it, or run `ae-pipeline repair` with the data that was encoded"
    assert found == {
        first.name: (str(store / first.name), "is missing, but the manifest lists it", advice),
        second.name: (
            str(store / second.name),
            f"is damaged: has 5 bytes, the manifest says {second.bytes}",
            advice,
        ),
    }


def test_a_codec_that_was_swapped(store):
    (store / "_codec/codec.json").write_text((store / "_codec/codec.json").read_text() + " ")
    with pytest.raises(StoreError) as found:
        LatentStore.open(store).codec_header()
    assert fields(found.value)[:2] == (
        str(store / "_codec/codec.json"),
        "was changed: its SHA-256 is not the one in the manifest",
    )


def test_a_file_of_idx_and_the_copy_that_is_read_in_its_place(tmp_path):
    original = tmp_path / "mine/train-images-idx3-ubyte"
    original.parent.mkdir()
    original.write_bytes(b"no images")
    (original.parent / IMAGES["test"]).write_bytes(b"no images")
    with pytest.raises(DataError) as found:
        open_idx(original)
    expected = (str(original), "is not an IDX file (starts with b'no i')", "expected two zero bytes and a type")
    assert fields(found.value) == expected
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError) as found:
        IdxSource(folder=str(original.parent)).fetch(tmp_path / "raw")
    assert fields(found.value) == expected
    with pytest.raises(DataError) as found:
        read_labels(original, tmp_path / "unpacked", 3)
    assert fields(found.value) == expected


def test_a_file_of_an_inbox_goes_by_its_name_there(tmp_path):
    copied_to = tmp_path / "fetched"
    names = {str(copied_to): "a\nb.parquet"}
    for error, reason in (
        (DataError("holds no rows", place=copied_to, advice="add some"), "a\\nb.parquet holds no rows; add some"),
        (DataError(f"{copied_to} holds no rows"), "a\\nb.parquet holds no rows"),
        (PermissionError(13, "Permission denied", str(copied_to)), "a\\nb.parquet cannot be read (Permission denied)"),
        (ValueError(f"bad {copied_to}"), "it cannot be used (ValueError: bad a\\nb.parquet)"),
    ):
        assert reason_of(error, names) == reason


def test_a_knob_goes_by_the_option_of_the_command():
    with pytest.raises(DataError) as found, naming_options(row_group_rows="--row-group-rows"):
        raise DataError("is too large", place="a.parquet", advice="set encode.row_group_rows to less")
    assert fields(found.value) == ("a.parquet", "is too large", "set --row-group-rows to less")
