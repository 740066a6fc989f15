"""Small parts are joined: the same rows, provenance and promises in fewer files, without decoding."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from grown import append, batch, copied, few, grow, hidden, read_ids, rewrite_manifest
from handmade import bytes_of, encode, flip_bit, random_codec, random_pixels, write_rows
from PIL import Image

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DamagedPartError, StoreError, TargetError
from ae_pipeline.files import locked_folder, sha256_json
from ae_pipeline.kinds import build_kind
from ae_pipeline.kinds.image import ImageState
from ae_pipeline.kinds.state import Form, entry_of
from ae_pipeline.operation.inbox.batches import batch_facts
from ae_pipeline.params.operation import CompactParams
from ae_pipeline.store.care.compaction import compact_store, groups_by_size
from ae_pipeline.store.care.deep import verify_deep
from ae_pipeline.store.care.joining import why_not
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.store.care.snapshots import added_shards
from ae_pipeline.store.care.vacuum import vacuum_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format.manifest import MANIFEST_NAME, read_manifest
from ae_pipeline.store.format.part_entries import rows_of_shards
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store

NUMBERS = (1, 2, 3, 4, 5)
PARAMS = CompactParams()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`store`: five parts of 40 rows in five snapshots; data and codec beside it; `joined`: the same, compacted."""
    folder = tmp_path_factory.mktemp("compaction")
    grow(folder, NUMBERS)
    shutil.copytree(folder / "store", folder / "joined")
    compact(folder / "joined")
    return folder


@pytest.fixture
def store(folder, tmp_path):
    return copied(LatentStore.open(folder / "store"), tmp_path / "store")


@pytest.fixture
def joined(folder, tmp_path):
    return copied(LatentStore.open(folder / "joined"), tmp_path / "store")


@pytest.fixture
def sets(folder):
    return [SampleSet.open(path) for path in sorted((folder / "data").iterdir())]


def compact(store, params=PARAMS, **options):
    return compact_store(store, params, git={}, **options)


def repair(store, sources, **options):
    return repair_store(store, sources, device="cpu", git={}, **options)


def deep(store, data):
    return verify_deep(store, verify_store(store), data, "cpu", lambda rows: None).deep


def all_rows(store):
    return pa.concat_tables(store.scan()).combine_chunks()


def provenance(store):
    return [(one.name, one.rows, one.shard) for one in rows_of_shards(store.manifest.parts)]


# What becomes of a store.


def test_parts_become_one_with_the_same_rows_and_provenance(folder, store, monkeypatch):
    before = LatentStore.open(store)
    rows, files = all_rows(before), bytes_of(store)
    with monkeypatch.context() as patched:
        patched.setattr("ae_pipeline.codec.codec.Codec.load", None)  # nothing is decoded, nor encoded
        done = compact(store)
    after = LatentStore.open(store)
    assert (done.joined, done.into, done.rows, done.parts, done.snapshot, done.left) == (5, 1, 200, 1, 6, {})
    assert done.bytes_after < done.bytes_before
    assert all_rows(after).equals(rows)
    assert provenance(after) == provenance(before)
    (part,) = after.manifest.parts
    assert (part.name[:10], part.rows, part.id_min, part.id_max) == ("part-00005", 200, 100, 539)
    assert (after.manifest.format, after.manifest.parent) == (3, 5)
    same = ("codec", "samples", "latent", "columns", "source", "probe")
    assert all(getattr(after.manifest, key) == getattr(before.manifest, key) for key in same)
    # What was there is there, byte for byte; the former manifest is kept.
    now = bytes_of(store)
    assert now["_snapshots/5.json"] == files.pop(MANIFEST_NAME)
    assert now.items() >= files.items()
    assert not hidden(store.parent)
    found = verify_store(store)
    assert (found.whole, found.notices, found.earlier_snapshots) == (True, [], [1, 2, 3, 4, 5])
    for number in NUMBERS:
        assert read_ids(LatentStore.open(store, number)) == read_ids(LatentStore.open(folder / "store", number))


def test_once_more_changes_nothing(joined):
    before = bytes_of(joined)
    assert (compact(joined).joined, compact(joined, dry_run=True).joined) == (0, 0)
    assert bytes_of(joined) == before


def test_a_dry_run_says_the_same_and_does_nothing(store):
    before = bytes_of(store)
    said = compact(store, dry_run=True)
    assert bytes_of(store) == before
    done = compact(store)
    assert (said.joined, said.into, said.rows, said.parts, said.bytes_before) == (5, 1, 200, 1, done.bytes_before)


def test_vacuum_removes_the_former_parts_and_the_store_goes_on_growing(joined, folder, tmp_path):
    vacuum_store(joined)
    assert len(list(joined.glob("part-*"))) == 1
    grown = append(joined, [batch(tmp_path, 6)], folder / "codec", row_group_rows=16).store
    assert grown.manifest.source.digest == sha256_json(grown.manifest.shard_digests)
    assert [part.name[:10] for part in grown.manifest.parts] == ["part-00005", "part-00006"]
    again = append(joined, [SampleSet.open(folder / "data" / "batch-2.parquet")], folder / "codec", row_group_rows=16)
    assert (again.parts, again.skipped) == ([], 1)
    # The part with most rows waits until the others have as many.
    assert compact(joined).joined == 0
    append(joined, [batch(tmp_path, 7, rows=160)], folder / "codec", row_group_rows=16)
    done = compact(joined)
    assert (done.joined, done.into, done.rows) == (3, 1, 400)
    assert [len(added_shards(joined, number)[1]) for number in range(1, 10)] == [1, 1, 1, 1, 1, 0, 1, 1, 0]
    assert verify_store(joined).whole


def test_a_part_joined_twice_has_the_bytes_of_one_joined_at_once(folder, store):
    assert sizes(store, CompactParams(rows=100)) == (4, [80, 80, 40])
    assert sizes(store, PARAMS) == (3, [200])
    (twice,), (once,) = (LatentStore.open(place).manifest.parts for place in (store, folder / "joined"))
    assert (twice.sha256, twice.job, twice.shard) == (once.sha256, once.job, once.shard)
    assert verify_store(store).whole


def test_rows_without_ids_keep_their_numbers(tmp_path):
    sets = [few(tmp_path / "data", number, rows=30, id=None) for number in NUMBERS]
    codec = random_codec(tmp_path / "codec") and tmp_path / "codec"
    for samples in sets[:4]:
        append(tmp_path / "store", [samples], codec, layout="coded", row_group_rows=25)
    compact(tmp_path / "store", CompactParams(rows=61))
    assert [part.rows for part in LatentStore.open(tmp_path / "store").manifest.parts] == [60, 60]
    append(tmp_path / "store", sets, codec, layout="coded", row_group_rows=25)
    assert read_ids(LatentStore.open(tmp_path / "store")) == list(range(150))
    found = deep(tmp_path / "store", [tmp_path / "data"])
    assert (found.identical, found.not_compared, found.rows_not_in_store) == (3, [], 0)


def test_other_processes_and_the_same_encode_find_what_they_know(folder, tmp_path):
    store = encode(folder / "data", folder / "codec", tmp_path / "store", row_group_rows=16)
    decoded = decode_store(store, tmp_path / "before", device="cpu").load()
    compact(tmp_path / "store")
    before = bytes_of(tmp_path / "store")
    found = encode(folder / "data", folder / "codec", tmp_path / "store", row_group_rows=16)
    assert (found.manifest.snapshot, bytes_of(tmp_path / "store")) == (2, before)
    again = decode_store(found, tmp_path / "after", device="cpu").load()
    assert np.array_equal(again.pixels, decoded.pixels)
    assert again.attributes.equals(decoded.attributes)


def test_a_store_of_format_1_becomes_one_of_format_3(folder, tmp_path):
    encode(folder / "data", folder / "codec", tmp_path / "store", row_group_rows=16)

    def as_format_1(values):
        values["format"] = 1
        del values["probe"]
        for part in values["parts"]:
            del part["pieces"]

    rewrite_manifest(tmp_path / "store", as_format_1)
    compact(tmp_path / "store")
    found = verify_store(tmp_path / "store")
    assert (found.whole, found.format, found.parts, found.decoding[:10]) == (True, 3, 1, "reproduced")


# Which parts.


def sizes(store, params):
    done = compact(store, params)
    return done.joined, [part.rows for part in LatentStore.open(store).manifest.parts]


def test_only_small_parts_that_stand_side_by_side_as_many_as_fit(store):
    assert sizes(store, CompactParams(rows=80)) == (0, [40] * 5)  # half of it: not small
    assert sizes(store, CompactParams(rows=100)) == (4, [80, 80, 40])
    assert sizes(store, CompactParams(megabytes=0.002)) == (0, [80, 80, 40])
    assert compact(store, at_least=4).joined == 0


def test_the_same_rows_are_copied_seldom(folder):
    (part,) = LatentStore.open(folder / "joined").manifest.parts
    fields = {name: getattr(part, name) for name in part.__slots__}

    def parts(*rows):
        return [type(part)(**{**fields, "rows": each, "bytes": 1}) for each in rows]

    def groups(*rows):
        return [[one.rows for one in group] for group in groups_by_size(parts(*rows), PARAMS)]

    assert groups(400, 1, 1, 1) == [[1, 1, 1]]
    assert groups(400, 1, 399) == [[400, 1, 399]]
    assert groups(1, 60_000, 1, 1, 40_000, 70_000, 2) == [[1, 1]]
    assert groups(*[30_000] * 7) == [[30_000] * 3, [30_000] * 3]
    copies, run = 0, []
    for _ in range(2000):
        run.append(1)
        if sum(map(len, found := groups(*run))) >= 10:
            for group in found:
                copies += sum(group)
                start = next(k for k in range(len(run)) if run[k : k + len(group)] == group)
                run[start : start + len(group)] = [sum(group)]
    assert (sum(run), len(run) < 25) == (2000, True)
    assert copies < 2000 * 8


def test_parts_whose_columns_differ_stay_apart(tmp_path):
    random_codec(tmp_path / "codec")
    for number in range(4):
        pixels = random_pixels((20, 5, 4), "uint8", number)
        write_rows(tmp_path / f"{number}.parquet", pixels, id=list(range(20 * number, 20 * number + 20)), x=[1.0] * 20)
        if number > 1:  # the same type, but never null
            table = pq.read_table(tmp_path / f"{number}.parquet")
            place = table.schema.get_field_index("x")
            schema = table.schema.set(place, pa.field("x", pa.float64(), nullable=False))
            pq.write_table(table.cast(schema), tmp_path / f"{number}.parquet")
        append(tmp_path / "store", [SampleSet.open(tmp_path / f"{number}.parquet")], tmp_path / "codec")
    done = compact(tmp_path / "store")
    assert (done.joined, done.into) == (4, 2)
    assert list(done.left.values()) == [
        "the next part's columns may be null where its own may not, or are described otherwise"
    ]
    assert verify_store(tmp_path / "store").whole


def test_values_of_all_kinds_come_out_as_they_went_in(tmp_path):
    random_codec(tmp_path / "codec")
    kinds = {
        "text": pa.array(["a", None, "ü", ""] * 5),
        "word": pa.array(["b", "a", None, "b"] * 5).dictionary_encode(),
        "nan": pa.array([float("nan"), -0.0, None, 1.5] * 5, pa.float32()),
        "lists": pa.array([[1, None], [], None, [3]] * 5),
        "when": pa.array([0, 1, None, 2] * 5, pa.timestamp("ns", "UTC")),
        "nothing": pa.nulls(20),
        "inside": pa.array([{"a": 1, "b": "x"}, None] * 10),
    }
    for number in range(3):
        columns = {**kinds, "word": pa.array([str(number), "a", None, "b"] * 5).dictionary_encode()}
        ids = list(range(20 * number, 20 * number + 20))
        samples = write_rows(
            tmp_path / f"d/{number}.parquet", random_pixels((20, 5, 4), "uint8", number), id=ids, **columns
        )
        append(tmp_path / "store", [samples], tmp_path / "codec", row_group_rows=7)
    before = [table.to_pylist() for table in LatentStore.open(tmp_path / "store").scan()]
    assert compact(tmp_path / "store").joined == 3
    store = LatentStore.open(tmp_path / "store")
    after = [row for table in store.scan() for row in table.to_pylist()]
    assert repr(after) == repr([row for rows in before for row in rows])
    assert verify_store(store.path).whole
    assert deep(store.path, [tmp_path / "d"]).identical == 1
    assert why_not(pa.schema({"x": pa.dictionary(pa.int8(), pa.string(), ordered=True)}))
    assert why_not(pa.schema({"x": pa.list_(pa.dictionary(pa.int8(), pa.string()))}))


def test_a_group_that_would_be_too_large_in_memory_is_halved(folder, tmp_path, monkeypatch):
    encode(folder / "data", folder / "codec", tmp_path / "store")
    shutil.copytree(tmp_path / "store", tmp_path / "whole")
    compact(tmp_path / "whole")
    limit, of_a_row = "ae_pipeline.store.format.verified_file.MOST_ROW_GROUP_BYTES", 8 + 8 + 3 * 4 + 4
    monkeypatch.setattr(limit, of_a_row * 60)
    done = compact(tmp_path / "store")
    assert (done.joined, len(done.left)) == (0, 2)
    assert all(reason.startswith("row group 0 would take") for reason in done.left.values())
    assert not hidden(tmp_path)
    monkeypatch.setattr(limit, of_a_row * 150)
    done = compact(tmp_path / "store")
    assert (done.joined, done.into, done.left) == (5, 2, {})
    assert [part.rows for part in LatentStore.open(tmp_path / "store").manifest.parts] == [80, 120]
    assert read_ids(LatentStore.open(tmp_path / "store")) == read_ids(LatentStore.open(tmp_path / "whole"))


def test_records_that_would_be_taken_for_one_stay_apart(tmp_path):
    """Clips of sound have several rows, and are told apart by their names."""
    state = build_kind("audio").State(form=Form(sort="files"), block=32, frame=64, rate=8000)
    random_codec(tmp_path / "codec", (20,), "float32", kind=entry_of("audio", state))
    for number, records in enumerate([["a", "a", "b"], ["b", "c", "c"], ["d", "d", "e"]]):
        pixels = random_pixels((3, 20), "float32", number)
        ids = list(range(3 * number, 3 * number + 3))
        samples = write_rows(tmp_path / f"{number}.parquet", pixels, id=ids, record=records)
        append(tmp_path / "store", [samples], tmp_path / "codec")
    done = compact(tmp_path / "store")
    assert [part.rows for part in LatentStore.open(tmp_path / "store").manifest.parts] == [3, 6]
    assert list(done.left.values()) == [
        "it ends with a record 'b', and the next part begins with another one of that name"
    ]


def test_a_folder_of_pictures_goes_on_growing(ae, tmp_path):
    kind = entry_of("image", ImageState(form=Form(sort="files")))
    random_codec(tmp_path / "codec", kind=kind)
    pixels = random_pixels((8, 5, 4), "uint8")
    for number in range(8):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels[number]).save(tmp_path / f"photos/{number}.png")
        if number == 1:
            assert ae("encode", tmp_path / "photos", "--codec", tmp_path / "codec", "--store", tmp_path / "s")[0] == 0
        elif number in (3, 5):
            assert ae("append", tmp_path / "s", tmp_path / "photos")[0] == 0
        if number == 5:
            done = compact(tmp_path / "s")
            assert (done.joined, done.rows) == (3, 6)
    assert json.loads(ae("append", tmp_path / "s", tmp_path / "photos", "--json")[1])["added_rows"] == 2
    assert json.loads(ae("append", tmp_path / "s", tmp_path / "photos", "--json")[1])["added_rows"] == 0
    whole = bytes_of(tmp_path / "s")
    flip_bit(tmp_path / "s" / LatentStore.open(tmp_path / "s").manifest.parts[0].name, 200)
    assert ae("repair", tmp_path / "s", "--source", tmp_path / "photos")[0] == 0
    assert bytes_of(tmp_path / "s") == whole
    assert ae("verify", tmp_path / "s", "--deep", "--source", tmp_path / "photos")[0] == 0


# Promises.


def test_deep_compares_joined_parts_also_with_some_of_the_data(folder, joined):
    found = deep(joined, [folder / "data"])
    assert (found.identical, found.not_compared, found.partly, found.rows_not_in_store) == (1, [], {}, 0)
    (name,) = (part.name for part in LatentStore.open(joined).manifest.parts)
    some = deep(joined, [folder / "data/batch-2.parquet", folder / "data/batch-4.parquet"])
    assert (some.identical, some.not_compared, some.partly, some.different) == (0, [name], {name: 2}, {})


def test_rows_of_other_data_are_found_out(joined, folder, tmp_path):
    other = batch(tmp_path, 2, label=[7] * 40)

    def lie(values):
        values["parts"][0]["shard"][1]["shard"]["digest"] = other.shard_digest(other.shards[0])

    rewrite_manifest(joined, lie)
    found = deep(joined, [tmp_path / "batch-2.parquet"])
    assert list(found.different.values()) == ["batch-2.parquet: has other ids or attributes than the data"]


def test_a_joined_part_is_made_again_byte_for_byte(joined, sets):
    (part,) = LatentStore.open(joined).manifest.parts
    whole = bytes_of(joined)
    for spoil in (lambda: flip_bit(joined / part.name, 300), (joined / part.name).unlink):
        spoil()
        assert verify_store(joined).rows_lost == 200
        failed = repair(joined, sets[:3]).failed[part.name]
        assert failed.startswith("no source holds 2 of the 5 files that it was made from, unchanged: batch-4.parquet, ")
        done = repair(joined, sets)
        assert (done.files, done.failed) == ([part.name], {})
        assert bytes_of(joined) == whole


def test_a_former_part_that_is_damaged_costs_no_row(joined, sets):
    whole = bytes_of(joined)
    former = LatentStore.open(joined, 3).manifest.parts[1].name
    (joined / former).rename(joined.parent / "away")
    with pytest.raises(DamagedPartError, match="is missing, but the manifest lists it; restore it"):
        read_ids(LatentStore.open(joined, 3))
    (joined.parent / "away").rename(joined / former)
    flip_bit(joined / former, 200)
    found = verify_store(joined)
    assert [(damage.file, damage.rows) for damage in found.damaged] == [(former, 0)]
    assert "no row is lost; ae-pipeline vacuum" in found.next_step
    assert "no row is lost, as the newest snapshot has its rows" in repair(joined, []).failed[former]
    assert repair(joined, sets).files == [former]
    assert bytes_of(joined) == whole
    (joined / former).unlink()
    vacuum_store(joined)
    assert verify_store(joined).whole


@pytest.mark.parametrize("vacuumed", [False, True])
def test_a_lost_manifest_of_joined_parts_comes_back_from_the_data(vacuumed, joined, sets):
    if vacuumed:
        vacuum_store(joined)
    whole = bytes_of(joined)
    for name in ("bytes", "rows"):
        text = (joined / MANIFEST_NAME).read_bytes()
        (joined / MANIFEST_NAME).write_bytes(text.replace(f'"{name}": '.encode(), f'"{name}": 9'.encode(), 1))
        assert not verify_store(joined).whole
        assert repair(joined, sets).files == [MANIFEST_NAME]
        assert bytes_of(joined) == whole
    before = provenance(LatentStore.open(joined))
    (joined / MANIFEST_NAME).unlink()
    done = repair(joined, sets, accept_new_bytes=True)
    if vacuumed:  # nothing says how many rows a row group has
        assert "1 of its 1 parts do not come from the given data" in done.failed[MANIFEST_NAME]
        return
    assert (done.made_anew, done.failed) == ([MANIFEST_NAME], {})
    assert provenance(LatentStore.open(joined)) == before
    assert verify_store(joined).whole


def test_new_bytes_of_a_joined_part_are_a_new_snapshot(joined, sets, monkeypatch):
    (part,) = LatentStore.open(joined).manifest.parts
    flip_bit(joined / part.name, 300)
    monkeypatch.setattr(pa, "__version__", "0.0.1")
    assert "cannot come out byte for byte with pyarrow 0.0.1" in repair(joined, sets).failed[part.name]
    done = repair(joined, sets, accept_new_bytes=True)
    assert list(done.replaced) == [part.name]
    assert verify_store(joined).whole
    assert provenance(LatentStore.open(joined))[0][0].startswith("part-00000")


def test_each_snapshot_still_tells_what_it_added(folder, store):
    before = [batch_facts(store, number) for number in NUMBERS]
    compact(store)
    vacuum_store(store)
    after = [batch_facts(store, number) for number in NUMBERS]
    assert [{**facts, "bytes_out": 0} for facts in after] == [{**facts, "bytes_out": 0} for facts in before]
    assert added_shards(store, 6)[1] == []


def test_a_damaged_part_is_named_and_nothing_changes(store):
    flip_bit(store / LatentStore.open(store).manifest.parts[2].name, 200)
    before = bytes_of(store)
    with pytest.raises(DamagedPartError, match=r"bytes [0-9]+ to [0-9]+ were changed"):
        compact(store)
    assert bytes_of(store) == before
    assert not list(store.parent.glob(".*/part-*"))


def test_another_writer_is_told_apart(store):
    before = bytes_of(store)
    with locked_folder(store), pytest.raises(TargetError, match="another run is writing"):
        compact(store)
    assert bytes_of(store) == before
    with pytest.raises(StoreError, match="no store at"):
        compact(store.parent / "none")
    assert not (store.parent / "none").exists()


def test_an_older_program_refuses_joined_parts_by_the_format(joined):
    values = json.loads((joined / MANIFEST_NAME).read_bytes())
    assert values["format"] == 3  # which programs up to format 2 refuse by its number

    def as_format_2(values):
        values["format"] = 2

    rewrite_manifest(joined, as_format_2)
    with pytest.raises(StoreError, match="parts with several shards are of format 3, found format 2"):
        read_manifest(joined)
