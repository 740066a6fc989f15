"""`vacuum`: earlier snapshots and leftovers go; those that stay are whole, whatever stops it."""

import shutil

import pytest
from grown import append, batch, copied, grow, read_ids, rewrite_manifest
from handmade import bytes_of, flip_bit
from killing import killed_at_every_step, stopped_at_every_step

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import ConfigError, DamagedPartError, StoreError, TargetError
from ae_pipeline.files import locked_folder
from ae_pipeline.operation.inbox.batches import batch_facts, statistics_path, write_missing
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.store.care.snapshots import VACUUMED_NAME, added_shards, read_vacuumed
from ae_pipeline.store.care.vacuum import vacuum_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format.manifest import MANIFEST_NAME, read_manifest
from ae_pipeline.store.latent_store import LatentStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Four parts in four snapshots; data and codec beside it."""
    return grow(tmp_path_factory.mktemp("vacuuming"), (1, 2, 3, 4))


@pytest.fixture
def store(whole, tmp_path):
    return copied(whole, tmp_path / "store")


def manifests(store):
    return sorted(path.name for path in (store / "_snapshots").iterdir())


def test_the_newest_snapshots_stay_and_the_others_go(store, whole):
    before = bytes_of(store)
    done = vacuum_store(store, 2)
    assert (done.kept, done.snapshots) == ([3, 4], [1, 2])
    assert done.files == ["_snapshots/1.json", "_snapshots/2.json"]
    assert done.bytes == sum(len(before[name]) for name in done.files)
    assert manifests(store) == ["3.json", "vacuumed.json"]
    found = verify_store(store)
    assert (found.whole, found.earlier_snapshots, found.notices) == (True, [3], [])
    for number in (3, 4):
        assert read_ids(LatentStore.open(store, number)) == read_ids(LatentStore.open(whole.path, number))
    with pytest.raises(StoreError, match="has no snapshot 1; it has 3, 4"):
        LatentStore.open(store, 1)


def test_a_dry_run_says_the_same_and_does_nothing(store):
    before = bytes_of(store)
    said = vacuum_store(store, 1, dry_run=True)
    assert bytes_of(store) == before
    assert vacuum_store(store, 1) == said


def test_once_more_changes_nothing_and_what_is_gone_stays_gone(store):
    vacuum_store(store, 2)
    before = bytes_of(store)
    assert vacuum_store(store, 2).files == []
    assert vacuum_store(store, 9).kept == [3, 4]
    assert bytes_of(store) == before
    assert vacuum_store(store, 1).snapshots == [3]
    assert read_vacuumed(store) == [1, 2, 3]


def test_a_store_of_one_snapshot_has_nothing_to_vacuum(tmp_path):
    store = grow(tmp_path, (1,))
    before = bytes_of(store.path)
    assert vacuum_store(store.path).files == []
    assert bytes_of(store.path) == before


def test_a_store_goes_on_growing(store, whole, tmp_path):
    vacuum_store(store)
    grown = append(store, [batch(tmp_path, 5)], whole.path.parent / "codec", row_group_rows=16).store
    assert (grown.manifest.snapshot, grown.manifest.parent, len(grown.manifest.parts)) == (5, 4, 5)
    found = verify_store(store)
    assert (found.whole, found.earlier_snapshots) == (True, [4])


def test_leftovers_of_interrupted_runs_go(store, tmp_path):
    (store / "part-00009-0123456789abcdef.parquet").write_bytes(b"x" * 10)
    (store / ".part.1.tmp").write_bytes(b"x")
    (store / "_codec/.codec.json.1.tmp").write_bytes(b"x")
    (store / "notes.txt").write_text("mine")
    shutil.copy(store / MANIFEST_NAME, store / "_snapshots/4.json")
    for name in (
        ".store.0123456789abcdef.partial",
        ".store.fedcba9876543210.partial",
        ".other.0123456789abcdef.partial",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_bytes(b"xx")
    with locked_folder(tmp_path / ".store.fedcba9876543210.partial"):  # a run that goes on
        done = vacuum_store(store, 4)
    assert done.snapshots == []
    assert sorted(done.files) == [
        ".part.1.tmp",
        ".store.0123456789abcdef.partial/",
        "_codec/.codec.json.1.tmp",
        "_snapshots/4.json",
        "part-00009-0123456789abcdef.parquet",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".other.0123456789abcdef.partial",
        ".store.fedcba9876543210.partial",
        "store",
    ]
    assert verify_store(store).notices == ["files that do not belong to the store: notes.txt"]


def test_what_cannot_be_vacuumed_is_left_alone(store, tmp_path):
    before = bytes_of(store)
    with locked_folder(store), pytest.raises(TargetError, match="another run is writing"):
        vacuum_store(store)
    with pytest.raises(ConfigError, match="cannot keep 0 snapshots"):
        vacuum_store(store, 0)
    assert bytes_of(store) == before
    with pytest.raises(StoreError, match="no store at"):
        vacuum_store(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    flip_bit(store / "_snapshots/3.json", 100)
    with pytest.raises(StoreError, match=r"3\.json"):
        vacuum_store(store, 2)
    assert vacuum_store(store, 1).kept == [4]
    assert verify_store(store).whole


def test_an_old_copy_of_the_manifest_removes_nothing(store):
    shutil.copy(store / "_snapshots/1.json", store / MANIFEST_NAME)
    before = bytes_of(store)
    with pytest.raises(StoreError, match="it is an old copy; put the newest one back first"):
        vacuum_store(store)
    assert bytes_of(store) == before


def test_a_damaged_record_is_made_anew(store):
    vacuum_store(store, 2)
    (store / VACUUMED_NAME).write_text("{")
    assert [damage.file for damage in verify_store(store).damaged] == [VACUUMED_NAME]
    vacuum_store(store, 2)
    assert verify_store(store).whole
    # Whose parts they were is lost: they count with the first snapshot that is there.
    assert read_vacuumed(store) == [0, 0]
    assert [len(added_shards(store, number)[1]) for number in (1, 2, 3, 4)] == [0, 0, 3, 1]


# Readers.


def test_an_open_snapshot_can_be_read_on_or_says_what_became_of_it(store, whole, tmp_path):
    first = LatentStore.open(store, 1)
    newest = LatentStore.open(store)
    ids = read_ids(first)
    vacuum_store(store)
    assert read_ids(first) == ids  # the newest snapshot has its part too
    rewrite_manifest(store, lambda values: values["parts"][0].update(sha256="0" * 64))
    data = [SampleSet.open(whole.path.parent / "data/batch-1.parquet")]
    repair_store(store, data, accept_new_bytes=True, device="cpu", git={})
    for opened in (first, newest):
        with pytest.raises(DamagedPartError, match=r"snapshot . was removed since it was opened: open snapshot 5"):
            read_ids(opened)


# What each snapshot added is known for good: drift and the numbers of batches need it.


def test_batches_are_counted_the_same_after_a_vacuum(store):
    expected = {number: batch_facts(store, number) for number in (1, 2, 3, 4)}
    vacuum_store(store)
    for number in (1, 2, 3, 4):
        assert batch_facts(store, number) == {**expected[number]}
    assert write_missing(store) == [1, 2, 3, 4]
    assert statistics_path(store, 1).exists()
    with pytest.raises(StoreError, match="has no snapshot 5"):
        added_shards(store, 5)


def test_a_repair_is_no_batch(store, whole):
    write_missing(store)
    for name in ("_snapshots/3.json", MANIFEST_NAME):
        rewrite_manifest(store, lambda values: values["parts"][2].update(sha256="0" * 64), name)
    data = [SampleSet.open(whole.path.parent / "data")]
    assert repair_store(store, data, accept_new_bytes=True, device="cpu", git={}).snapshot == 5
    assert added_shards(store, 5)[1] == []
    assert write_missing(store) == []
    assert [part.shard.file for part in added_shards(store, 3)[1]] == ["batch-3.parquet"]


# Killed.

VACUUM = """
from pathlib import Path
from ae_pipeline.store.care.vacuum import vacuum_store

def run(folder):
    vacuum_store(Path(folder, "store"), 2)
"""


def test_on_a_full_disk_the_leftovers_go_first(whole, tmp_path):
    template = copied(whole, tmp_path / "template/store").parent
    (template / "store/.part.1.tmp").write_bytes(b"x")
    (template / ".store.0123456789abcdef.partial").mkdir()
    (template / ".store.0123456789abcdef.partial/part").write_bytes(b"x")
    first, *_ = stopped_at_every_step(VACUUM, template, tmp_path / "full", "full")
    assert first.code
    assert sorted(path.name for path in first.folder.iterdir()) == ["store"]
    assert not (first.folder / "store/.part.1.tmp").exists()
    assert verify_store(first.folder / "store").whole
    vacuum_store(first.folder / "store", 2)
    assert read_manifest(first.folder / "store").snapshot == 4


@pytest.mark.slow
def test_killed_at_any_step_every_snapshot_that_is_left_is_whole(whole, tmp_path):
    template = copied(whole, tmp_path / "template/store").parent
    (template / "store/part-00009-0123456789abcdef.parquet").write_bytes(b"x")
    states = killed_at_every_step(VACUUM, template, tmp_path / "killed")
    assert len(states) > 4
    for left in states:
        store = left / "store"
        assert verify_store(store).whole
        for number in {path.stem for path in (store / "_snapshots").glob("[0-9].json")}:
            assert len(read_ids(LatentStore.open(store, int(number)))) == 40 * int(number)
        vacuum_store(store, 2)
        assert manifests(store) == ["3.json", "vacuumed.json"]
        assert read_manifest(store).snapshot == 4
        assert verify_store(store).notices == []
