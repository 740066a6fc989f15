"""`repair`: damaged files come back byte for byte from the data; what cannot is left alone, unless that is accepted."""

import shutil
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pytest
from grown import append, batch, copied, grow, read_ids, rewrite_manifest
from handmade import bytes_of, flip_bit, random_codec, write_rows
from killing import killed_at_every_step

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, StoreError, TargetError
from ae_pipeline.files import locked_folder
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.store.care.vacuum import vacuum_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format.manifest import MANIFEST_NAME
from ae_pipeline.store.latent_store import LatentStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three parts in three snapshots; their data beside it."""
    return grow(tmp_path_factory.mktemp("repairing"))


@pytest.fixture
def store(whole, tmp_path):
    return copied(whole, tmp_path / "store")


@pytest.fixture
def data(whole):
    return [SampleSet.open(path) for path in sorted((whole.path.parent / "data").iterdir())]


def repair(store, sources, **options):
    return repair_store(store, sources, device="cpu", git={}, **options)


def parts_of(store):
    return [part.name for part in LatentStore.open(store).manifest.parts]


def test_nothing_damaged_nothing_changed(store, whole):
    done = repair(store, [])
    assert (done.files, done.replaced, done.failed) == ([], {}, {})
    assert bytes_of(store) == bytes_of(whole.path)


def test_damaged_and_missing_parts_come_back_byte_for_byte(store, whole, data, tmp_path):
    first, second, third = parts_of(store)
    (store / first).unlink()
    flip_bit(store / third, 200)
    untouched = (store / second).stat().st_ino
    done = repair(store, data)
    assert (done.files, done.failed, done.snapshot) == ([first, third], {}, 3)
    assert bytes_of(store) == bytes_of(whole.path)
    assert (store / second).stat().st_ino == untouched
    assert sorted(item.name for item in tmp_path.iterdir()) == ["store"]


def test_parts_are_found_by_content_wherever_the_data_is(store, whole, tmp_path):
    """Also one file of several, under another name, and among others."""
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(whole.path.parent / "data/batch-2.parquet", tmp_path / "elsewhere/x.parquet")
    batch(tmp_path / "elsewhere", 7)
    (store / parts_of(store)[1]).unlink()
    assert repair(store, [SampleSet.open(tmp_path / "elsewhere")]).failed == {}
    assert bytes_of(store) == bytes_of(whole.path)


def test_rows_without_ids_get_the_numbers_they_had(tmp_path):
    store = grow(tmp_path, (1, 2, 3), id=None)
    before = bytes_of(store.path)
    (store.path / parts_of(store.path)[2]).unlink()
    repair(store.path, [SampleSet.open(tmp_path / "data/batch-3.parquet")])
    assert bytes_of(store.path) == before
    assert read_ids(store) == list(range(120))


def test_what_the_data_cannot_give_back_is_named_and_left_alone(store, data):
    first, second, _ = parts_of(store)
    (store / first).unlink()
    (store / second).write_bytes(b"no part")
    done = repair(store, data[:1])
    assert done.files == [first]
    assert done.failed == {second: "no source holds what it was made from (batch-2.parquet, unchanged)"}
    assert (store / second).read_bytes() == b"no part"
    assert repair(store, data).files == [second]


def test_data_of_another_shape_is_refused(store, tmp_path):
    (store / parts_of(store)[0]).unlink()
    other = write_rows(tmp_path / "other.parquet", np.zeros((3, 2, 2), np.uint8))
    with pytest.raises(CodecError, match="is for samples of uint8 5x4, but the data set has uint8 2x2"):
        repair(store, [other])


def test_a_store_that_another_run_is_writing_is_left_alone(store, data):
    (store / parts_of(store)[0]).unlink()
    before = bytes_of(store)
    with locked_folder(store), pytest.raises(TargetError, match="another run is writing"):
        repair(store, data)
    assert bytes_of(store) == before


@pytest.mark.parametrize("clear", [lambda store: repair(store, []), lambda store: vacuum_store(store, keep=3)])
def test_what_a_repair_that_was_cut_off_left_goes(clear, store, whole):
    left = store.with_name(".store.parts-made-again.partial")
    left.mkdir()
    (left / "part-00000-0123456789abcdef.parquet").write_bytes(b"half")
    with locked_folder(left), suppress(TargetError):  # another run has it
        clear(store)
    assert list(left.iterdir())
    clear(store)
    assert not left.exists()
    assert bytes_of(store) == bytes_of(whole.path)


def test_no_store_is_no_folder_made(tmp_path):
    with pytest.raises(StoreError, match="no store at"):
        repair(tmp_path / "none", [])
    assert not list(tmp_path.iterdir())


# The codec.


def test_a_codec_comes_back_from_a_copy_and_only_from_a_copy(store, whole, data, tmp_path):
    name = parts_of(store)[0]
    (store / name).unlink()
    (store / "_codec/codec.json").unlink()
    flip_bit(store / "_codec/weights.safetensors", 300)
    done = repair(store, data)
    assert set(done.failed) == {"_codec/codec.json", "_codec/weights.safetensors", name}
    assert done.failed[name] == "cannot be made again without the store's codec, which is damaged"
    random_codec(tmp_path / "other", seed=5)
    done = repair(store, data, codec_path=tmp_path / "other")
    assert done.failed["_codec/codec.json"].endswith("is not a copy of it")
    done = repair(store, data, codec_path=whole.path.parent / "codec")
    assert done.failed == {}
    assert bytes_of(store) == bytes_of(whole.path)


# Bytes that cannot be the same.


def cannot_be_made(store, number, **changes):
    """Let all snapshots list a part that this machine does not make: as if its writer's had rounded otherwise."""
    names = ["_snapshots/1.json", "_snapshots/2.json", MANIFEST_NAME]
    for name in names[number:]:
        rewrite_manifest(store, lambda values: values["parts"][number].update(sha256="0" * 64, **changes), name)


def test_other_bytes_change_nothing_unless_they_are_accepted(store, data):
    first, second, third = parts_of(store)
    cannot_be_made(store, 1)
    (store / first).unlink()
    before = bytes_of(store)
    done = repair(store, data[1:])
    assert set(done.failed) == {first, second}
    assert "comes out with other bytes on this machine" in done.failed[second]
    assert bytes_of(store) == before

    done = repair(store, data, accept_new_bytes=True)
    assert (done.files, done.failed, done.snapshot) == ([first], {}, 4)
    new = f"part-00003-{second[11:]}"
    assert done.replaced == {second: new}
    assert parts_of(store) == [first, new, third]
    assert not (store / second).exists()
    found = verify_store(store)
    assert (found.whole, found.snapshot, found.earlier_snapshots, found.notices) == (True, 4, [], [])
    assert read_ids(LatentStore.open(store)) == [*range(100, 140), *range(200, 240), *range(300, 340)]


def test_a_store_goes_on_growing_after_new_bytes(store, data, whole, tmp_path):
    cannot_be_made(store, 0)
    repair(store, data, accept_new_bytes=True)
    grown = append(store, [batch(tmp_path, 4), *data], whole.path.parent / "codec", row_group_rows=16).store
    assert [part.name[:10] for part in grown.manifest.parts] == ["part-00003", "part-00001", "part-00002", "part-00004"]
    assert grown.manifest.snapshot == 5
    assert verify_store(store).whole


def test_another_pyarrow_is_said(store, data, monkeypatch):
    name = parts_of(store)[0]
    (store / name).unlink()
    monkeypatch.setattr(pa, "__version__", "99.0")
    assert (
        "cannot come out byte for byte with pyarrow 99.0: the store was written with"
        in repair(store, data).failed[name]
    )
    done = repair(store, data, accept_new_bytes=True)
    assert list(done.replaced) == [name]
    assert verify_store(store).whole


def test_other_columns_are_never_accepted(store, data, tmp_path):
    """A shard that is known by its content, but whose job was another: its file was changed on its way in."""
    name = parts_of(store)[0]
    cannot_be_made(store, 0, job="0" * 64, id_min=99)
    done = repair(store, data)
    assert "was not made by encoding this file as it is" in done.failed[name]
    done = repair(store, data, accept_new_bytes=True)
    assert "it was not made from this file as it is" in done.failed[name]


# Killed.

REPAIR = """
from pathlib import Path
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.data.samples import SampleSet

def run(folder):
    data = [SampleSet.open(path) for path in sorted(Path(folder, "data").iterdir())]
    repair_store(Path(folder, "store"), data, accept_new_bytes={accept}, device="cpu", git={{}})
"""


@pytest.mark.slow
@pytest.mark.parametrize("accept", [False, True])
def test_killed_at_any_step_a_file_is_as_it_was_or_whole(accept, whole, data, tmp_path):
    template = copied(whole, tmp_path / "template/store").parent
    shutil.copytree(whole.path.parent / "data", template / "data")
    if accept:
        cannot_be_made(template / "store", 1)
    else:
        (template / "store" / parts_of(whole.path)[0]).unlink()
        flip_bit(template / "store" / parts_of(whole.path)[2], 200)
    at_first = {damage.file for damage in verify_store(template / "store").damaged}
    states = killed_at_every_step(REPAIR.format(accept=accept), template, tmp_path / "killed")
    assert len(states) > 8
    for left in states:
        found = verify_store(left / "store")
        assert {damage.file for damage in found.damaged} <= at_first
        assert len(LatentStore.open(left / "store").manifest.parts) == 3
        repair(left / "store", data, accept_new_bytes=accept)
        assert verify_store(left / "store").whole
        if not accept:
            assert bytes_of(left / "store") == bytes_of(whole.path)
