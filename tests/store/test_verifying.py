"""`verify`: what is damaged is named with what it costs, what costs nothing is a notice, and nothing ends it early."""

import json
import re
import shutil
from pathlib import Path

import fsspec
import pytest
from grown import ROWS, append, batch, copied, grow, rewrite_manifest
from handmade import bytes_of, flip_bit, random_codec

from ae_pipeline.errors import StoreError
from ae_pipeline.store.care.findings import Damage
from ae_pipeline.store.care.part_checks import damage_of_part
from ae_pipeline.store.care.repeated_ids import repeated_ids
from ae_pipeline.store.care.vacuum import vacuum_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format.manifest import MANIFEST_NAME
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import LocalStorage

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three parts in three snapshots."""
    return grow(tmp_path_factory.mktemp("verifying"))


@pytest.fixture
def store(whole, tmp_path):
    return copied(whole, tmp_path / "store")


def test_a_whole_store_is_whole(whole):
    before = bytes_of(whole.path)
    found = verify_store(whole.path)
    assert found.whole
    assert (found.format, found.snapshot, found.earlier_snapshots, found.parts, found.rows) == (2, 3, [1, 2], 3, 120)
    assert (found.damaged, found.notices, found.rows_lost) == ([], [], 0)
    assert found.decoding.startswith("reproduced: ")
    assert json.loads(json.dumps(found.as_dict()))["whole"] is True
    assert bytes_of(whole.path) == before


@pytest.mark.parametrize("name", ["store-v1", "store-v1-conv", "store-v2", "store-v2-conv", "store-v2-coded"])
def test_stores_of_every_released_format_are_whole(name):
    found = verify_store(GOLDEN / name)
    assert found.whole, found.damaged
    # Made on another machine, perhaps: what it decodes to is no damage.
    wanted = ("not recorded: ",) if "v1" in name else ("reproduced: ", "differs: ")
    assert found.decoding.startswith(wanted)


def test_all_damage_is_named_with_what_it_costs(store):
    first, second, third = (part.name for part in LatentStore.open(store).manifest.parts)
    (store / first).unlink()
    flip_bit(store / second, 100)
    with open(store / third, "ab") as file:
        file.write(b"x")
    (store / "_snapshots/1.json").write_text("{}")
    flip_bit(store / "_codec/weights.safetensors", 500)
    found = verify_store(store)
    damaged = {damage.file: damage for damage in found.damaged}
    assert set(damaged) == {first, second, third, "_snapshots/1.json", "_codec/weights.safetensors"}
    assert damaged[first] == Damage(first, "is missing", ROWS, 100, 139)
    assert re.fullmatch("bytes [0-9]+ to [0-9]+ were changed", damaged[second].reason)
    assert "bytes, the manifest says " in damaged[third].reason
    assert damaged["_snapshots/1.json"].rows == 0
    assert damaged["_codec/weights.safetensors"].rows == found.rows == found.rows_lost == 120
    assert damaged[first].describe() == f"{first}: is missing; costs 40 rows (ids 100 to 139)"


def test_rows_lost_are_those_of_the_damaged_parts(store):
    (store / LatentStore.open(store).manifest.parts[1].name).unlink()
    assert verify_store(store).rows_lost == ROWS


def test_one_snapshot_can_be_checked_alone(store):
    (store / LatentStore.open(store).manifest.parts[2].name).unlink()
    (store / "_snapshots/1.json").unlink()
    assert [damage.rows for damage in verify_store(store).damaged] == [0, ROWS]
    found = verify_store(store, 2)
    assert found.whole
    assert (found.snapshot, found.rows, found.notices) == (2, 80, [])
    with pytest.raises(StoreError, match="has no snapshot 7; it has 2, 3"):
        verify_store(store, 7)


def test_a_damaged_newest_manifest_leaves_the_rest_to_be_checked(store):
    (store / MANIFEST_NAME).write_bytes(b"{")
    (store / LatentStore.open(store, 2).manifest.parts[0].name).unlink()
    found = verify_store(store)
    assert (found.snapshot, found.rows, found.rows_lost) == (2, 80, None)
    assert [damage.rows for damage in found.damaged] == [None, ROWS]
    assert found.damaged[0].describe().endswith("costs the rows that only it lists")


def test_without_any_manifest_a_store_is_damaged_and_a_folder_is_none(store, tmp_path):
    shutil.rmtree(store / "_snapshots")
    (store / MANIFEST_NAME).unlink()
    found = verify_store(store)
    assert (found.snapshot, [damage.file for damage in found.damaged]) == (None, [MANIFEST_NAME])
    assert found.damaged[0].reason == "is missing"
    (tmp_path / "other").mkdir()
    for place, message in ((tmp_path / "other", "not a complete latent store"), (tmp_path / "none", "no store at")):
        with pytest.raises(StoreError, match=message):
            verify_store(place)


def test_an_old_copy_of_the_manifest_is_found(store):
    shutil.copy(store / "_snapshots/1.json", store / MANIFEST_NAME)
    found = verify_store(store)
    assert [damage.file for damage in found.damaged] == [MANIFEST_NAME]
    assert "is of snapshot 1, but there was a later one than 2: an old copy" in found.damaged[0].reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["parts"][1].update(id_max=140), "has ids from 200 to 239, the manifest says from"),
        (lambda values: values["parts"][1].update(sha256="0" * 64), "its SHA-256 is not the one in the manifest"),
        (lambda values: values["parts"][1]["pieces"].pop(), "its pieces in the manifest do not add up to its size"),
        (lambda values: values["parts"][1].update(job="0" * 64), "was made by another job"),
        (lambda values: values["columns"][1].update(name="digit"), "has the columns id: int64, label: int64, "),
        (lambda values: values["latent"].update(row_group_rows=20), "has row groups of other than 20 rows"),
        (lambda values: values["latent"].update(levels=2), "has latents that are not from -1 to 0"),
    ],
)
def test_a_manifest_that_was_written_wrong_is_found(store, change, message):
    rewrite_manifest(store, change)
    part = LatentStore.open(store).manifest.parts[1]
    found = {damage.file: damage.reason for damage in verify_store(store).damaged}
    assert message in found[part.name]


def test_rows_of_a_part_are_counted(store):
    def change(values):
        values["parts"][0]["rows"] += 1
        values["parts"][1]["rows"] -= 1

    rewrite_manifest(store, change)
    opened = LatentStore.open(store)
    assert (
        damage_of_part(opened.storage, opened.manifest, opened.manifest.parts[0]) == "has 40 rows, the manifest says 41"
    )


def test_another_codec_than_the_manifest_says_is_damage(store, tmp_path):
    random_codec(tmp_path / "other", seed=1)
    shutil.rmtree(store / "_codec")
    shutil.copytree(tmp_path / "other", store / "_codec")
    assert {damage.file for damage in verify_store(store).damaged} == {
        "_codec/codec.json",
        "_codec/weights.safetensors",
    }


# What costs nothing.


def test_what_an_interrupted_run_left_is_a_notice(store):
    (store / "part-00003-0123456789abcdef.parquet").write_bytes(b"")
    (store / ".part-00004.1.tmp").write_bytes(b"")
    (store / "notes.txt").write_text("mine")
    shutil.copy(store / MANIFEST_NAME, store / "_snapshots/3.json")
    found = verify_store(store)
    assert found.whole
    left, unlisted, strange = found.notices
    assert "_snapshots/3.json" in left
    assert unlisted.startswith("2 files that an interrupted run left, which cost only space: .part-00004.1.tmp, part-")
    assert strange == "files that do not belong to the store: notes.txt"


def test_a_machine_that_decodes_otherwise_is_no_damage(store):
    rewrite_manifest(store, lambda values: values["probe"].update(pixels_sha256="0" * 64, instructions="AVX5000"))
    found = verify_store(store)
    assert found.whole
    assert found.decoding.startswith("differs: ")
    assert "the machine that wrote the store (AVX5000)" in found.decoding
    (store / LatentStore.open(store).manifest.parts[0].name).unlink()
    assert verify_store(store).decoding == "not checked: the codec or the first part is damaged"


@pytest.mark.parametrize("text", [False, True])
def test_repeated_ids_are_a_notice_that_names_some(text, tmp_path):
    def ids(number):
        rows = [
            3 if row < 3 else number * 30 + row for row in range(ROWS)
        ]  # 10 in common with the next, and 3 three times
        return [f"row {name:03d}" for name in rows] if text else rows

    random_codec(tmp_path / "codec")
    for number in range(3):
        store = append(
            tmp_path / "store", [batch(tmp_path, number, id=ids(number))], tmp_path / "codec", row_group_rows=16
        ).store
    every = [name for number in range(3) for name in ids(number)]
    expected = sorted({name for name in every if every.count(name) > 1})
    found = verify_store(store.path)
    assert found.whole
    names = ", ".join(map(str, expected[:5]))
    more = len(expected) - 5
    assert found.notices == [
        f"ids that are on more than one row: {len(expected)}, as they came with the data: {names} and {more} more"
    ]
    for most in (1, 7, 50, 1000):  # in several passes
        assert repeated_ids(store, store.manifest.parts, most) == (len(expected), expected[:5])


def test_ids_in_parts_that_do_not_overlap_are_not_repeated(whole):
    assert repeated_ids(whole, whole.manifest.parts, 10) == (0, [])


# Anywhere, at any time.


def test_a_vacuum_in_the_middle_is_no_damage(store):
    class Busy(LocalStorage):
        """A folder that another run vacuums as soon as the earlier manifests are looked at."""

        def size(self, name):
            if name == "_snapshots/1.json":
                vacuum_store(self.path)
            return super().size(name)

    found = verify_store(Busy(store))
    assert found.whole
    assert found.earlier_snapshots == []


def test_a_file_without_permission_is_named(store):
    name = LatentStore.open(store).manifest.parts[0].name

    class Locked(LocalStorage):
        """A folder with a file that may not be read; root may read all."""

        def read_range(self, file, start, size):
            if file == name:
                raise PermissionError(13, "Permission denied", file)
            return super().read_range(file, start, size)

    (damage,) = verify_store(Locked(store)).damaged
    assert (damage.file, damage.reason) == (name, f"cannot be read: [Errno 13] Permission denied: '{name}'")


def test_a_remote_store_is_checked_the_same(store):
    files = fsspec.filesystem("memory")
    files.put(str(store), "/verifying", recursive=True)
    try:
        assert verify_store("memory://verifying").whole
        parts = LatentStore.open(store).manifest.parts
        files.pipe_file(f"/verifying/{parts[0].name}", b"x" * parts[0].bytes)
        files.rm_file(f"/verifying/{parts[2].name}")
        found = verify_store("memory://verifying")
        assert [damage.file for damage in found.damaged] == [parts[0].name, parts[2].name]
        assert found.rows_lost == 80
    finally:
        files.rm("/verifying", recursive=True)
