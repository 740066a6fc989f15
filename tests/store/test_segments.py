"""Stores of very many parts: the manifest lists segments, which list the parts. Here "very many" is more than two."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from grown import ROWS, append, batch, copied, grow, read_ids, rewrite_manifest
from handmade import bytes_of, flip_bit, random_codec

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import PipelineError, StoreError
from ae_pipeline.files import sha256_json
from ae_pipeline.params.operation import CompactParams
from ae_pipeline.store.care.compaction import compact_store
from ae_pipeline.store.care.deep import verify_deep
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.store.care.snapshots import added_shards
from ae_pipeline.store.care.vacuum import vacuum_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format import manifest as manifests
from ae_pipeline.store.format import segment_file
from ae_pipeline.store.format import segments as segments_module
from ae_pipeline.store.format.part_entries import JoinedEntry
from ae_pipeline.store.format.segment_file import entries_of, table_of
from ae_pipeline.store.format.segments import SegmentedParts
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store
from ae_pipeline.store.storage.folder import LocalStorage

NUMBERS = (1, 2, 3, 4, 5, 6)


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    monkeypatch.setattr(manifests, "MOST_LISTED", 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`store`: six snapshots of a part each; the newest has segments of five parts and of one. `data`, `codec`."""
    folder = tmp_path_factory.mktemp("segments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifests, "MOST_LISTED", 2)
        random_codec(folder / "codec")
        for number in NUMBERS:
            append(folder / "store", [batch(folder / "data", number)], folder / "codec")
    return folder


@pytest.fixture
def store(made, tmp_path):
    """A copy that a test may damage."""
    return copied(LatentStore.open(made / "store"), tmp_path / "store")


@pytest.fixture
def sets(made):
    return [SampleSet.open(path) for path in sorted((made / "data").iterdir())]


def repair(store, sources, **options):
    return repair_store(store, sources, device="cpu", git={}, **options)


def ids_of(*numbers):
    return [100 * number + row for number in numbers for row in range(ROWS)]


def test_a_store_that_grows_past_the_number_gets_segments_and_keeps_what_it_had(made):
    opened = LatentStore.open(made / "store")
    assert [LatentStore.open(made / "store", number).manifest.format for number in NUMBERS] == [2, 2, 4, 4, 4, 4]
    assert [segment.parts for segment in opened.manifest.segments] == [5, 1]
    assert "parts" not in json.loads((made / "store/_manifest.json").read_bytes())
    for number in NUMBERS:
        earlier = LatentStore.open(made / "store", number)
        assert read_ids(earlier) == ids_of(*NUMBERS[:number])
        assert (len(earlier.manifest.parts), earlier.manifest.shard_count) == (number, number)


def test_what_they_say_is_what_a_manifest_without_them_says(made, tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "MOST_LISTED", 10_000)
    for number in NUMBERS:
        append(tmp_path / "plain", [batch(tmp_path / "data", number)], made / "codec")
    plain, opened = LatentStore.open(tmp_path / "plain"), LatentStore.open(made / "store")
    assert list(opened.manifest.parts) == list(plain.manifest.parts)
    assert (plain.manifest.format, opened.manifest.totals) == (2, plain.manifest.totals)
    assert opened.manifest.source == plain.manifest.source
    assert opened.manifest.shard_digests == plain.manifest.shard_digests
    assert opened.manifest.next_number == plain.manifest.next_number == 6
    assert opened.manifest.parts[-1] == plain.manifest.parts[5] == opened.manifest.parts[5]
    assert opened.manifest.parts[1:4] == list(plain.manifest.parts[1:4])
    with pytest.raises(IndexError):
        opened.manifest.parts[6]


@pytest.mark.parametrize("ids", [int, str, lambda number: number + (1 << 63)])
def test_entries_come_back_as_they_were(made, ids):
    first = LatentStore.open(made / "store").manifest.parts[0]
    entries = [
        replace(first, id_min=ids(3 * number), id_max=ids(3 * number + 2), pieces=[None, [], first.pieces][number % 3])
        for number in range(7)
    ]
    joined = [JoinedEntry(name=first.name, rows=20, shard=replace(first.shard, file=f"\u00e9{n}")) for n in range(2)]
    entries.append(replace(entries[0], shard=joined))
    assert entries_of(table_of(entries)) == entries


def many(first, count):
    """Entries of parts that nobody made, with ids of their own."""
    for number in range(count):
        job = sha256_json(number)
        name = f"part-{number:05d}-{job[:16]}.parquet"
        yield replace(first, name=name, job=job, id_min=10 * number, id_max=10 * number + 9)


def test_a_store_that_grows_part_by_part_has_few_segments_and_writes_each_entry_seldom(made, tmp_path, monkeypatch):
    monkeypatch.setattr(segments_module, "MOST_IN_SEGMENT", 64)
    first = LatentStore.open(made / "store").manifest.parts[0]
    entries = list(many(first, 200))
    parts, written = SegmentedParts(LocalStorage(tmp_path), []), 0
    for number, entry in enumerate(entries):
        parts, new = parts.with_added([entry]).settled(tmp_path, number + 1)
        written += sum(segment.parts for segment in new)
        sizes = [segment.parts for segment in parts.segments]
        assert sum(sizes) == number + 1
        assert max(sizes) <= 64
        assert len(sizes) <= number // 32 + 7
    assert written <= 200 * 6
    assert list(parts) == entries


def test_ids_find_the_parts_that_may_have_them_and_read_no_other_segment(made, tmp_path, monkeypatch):
    monkeypatch.setattr(segments_module, "MOST_IN_SEGMENT", 8)
    entries = list(many(LatentStore.open(made / "store").manifest.parts[0], 40))
    parts, segments = SegmentedParts(LocalStorage(tmp_path), [tuple(entries)]).settled(tmp_path, 1)
    assert len(segments) == 5
    random = np.random.default_rng(1)
    for count in (1, 2, 30):
        ids = {int(one) for one in random.integers(-20, 420, count)}
        wanted = [entry for entry in entries if any(entry.id_min <= one <= entry.id_max for one in ids)]
        assert list(parts.that_may_hold(ids)) == wanted
    for segment in (*segments[:2], *segments[3:]):
        (tmp_path / segment.name).unlink()
    assert list(parts.that_may_hold({170})) == entries[17:18]
    assert list(parts.that_may_hold({-1, 9999})) == []


@pytest.mark.slow
def test_a_changed_byte_of_any_segment_is_found_named_and_mended(made, store, sets):
    before, random = bytes_of(made / "store"), np.random.default_rng(2)
    for name in sorted(name for name in before if name.startswith("_segments/")):
        flip_bit(store / name, int(random.integers(len(before[name]))), int(random.integers(8)))
        found = verify_store(store)
        listed = {segment.name: segment for segment in LatentStore.open(store).manifest.segments}
        assert [damage.file for damage in found.damaged] == [name]
        assert found.rows_lost == (listed[name].rows if name in listed else 0)
        assert not found.notices
        done = repair(store, sets)
        assert (done.files, done.failed) == ([name], {})
        assert bytes_of(store) == before


def test_one_that_other_snapshots_know_needs_no_data_and_one_that_none_does_says_so(store):
    vacuum_store(store)
    before = bytes_of(store)
    name = LatentStore.open(store).manifest.segments[0].name
    (store / name).unlink()
    with pytest.raises(StoreError, match=name) as caught:
        read_ids(LatentStore.open(store))
    assert "is missing, but the manifest lists it; restore it from a copy, or run `ae-pipeline repair`" in str(
        caught.value
    )
    assert "with --source" in repair(store, []).failed[name]
    assert bytes_of(store) == {other: data for other, data in before.items() if other != name}


def test_with_a_lost_segment_the_rows_of_others_are_checked_and_nothing_is_removed(store, made, sets):
    vacuum_store(store)
    before = bytes_of(store)
    first, _ = LatentStore.open(store).manifest.segments
    parts = LatentStore.open(store).manifest.parts
    flip_bit(store / parts[5].name, 40)
    flip_bit(store / parts[0].name, 40)
    (store / first.name).unlink()
    found = verify_store(store)
    assert found.damaged_files == {first.name, parts[5].name}
    attempts = (
        lambda: read_ids(LatentStore.open(store), on_damaged=lambda part, error: None),
        lambda: vacuum_store(store),
        lambda: append(store, [batch(store.parent, 7)], made / "codec"),
    )
    for change in attempts:
        with pytest.raises(PipelineError, match=first.name):
            change()
    done = repair(store, sets)
    assert (set(done.files), done.failed) == ({first.name, parts[0].name, parts[5].name}, {})
    assert bytes_of(store) == before


@pytest.mark.parametrize("lost", [True, False])
def test_a_lost_manifest_comes_back_with_the_segments_that_are_there(store, sets, lost):
    whole = list(LatentStore.open(store).manifest.parts)
    if lost:
        (store / LatentStore.open(store).manifest.segments[1].name).unlink()
    (store / "_manifest.json").unlink()
    assert "who wrote the store" in repair(store, sets).failed["_manifest.json"]
    assert "_manifest.json" in repair(store, sets, accept_new_bytes=True).made_anew
    found = verify_store(store)
    assert (found.whole, found.format, found.snapshot, found.rows) == (True, 4, 6, 6 * ROWS)
    assert list(LatentStore.open(store).manifest.parts) == whole


def test_a_changed_byte_of_the_manifest_is_proven_from_the_data(store, made, sets):
    text = (store / "_manifest.json").read_bytes()
    flip_bit(store / "_manifest.json", text.index(b'"last_number": 4') + 15)
    assert repair(store, sets).files == ["_manifest.json"]
    assert bytes_of(store) == bytes_of(made / "store")


def test_vacuum_keeps_the_segments_of_kept_snapshots_and_an_open_one_says_what_became_of_it(store):
    fourth = LatentStore.open(store, 4)
    (store / "_segments/000009-0123456789abcdef.parquet").write_bytes(b"left")
    assert "interrupted run left" in str(verify_store(store).notices)
    vacuum_store(store, keep=2)
    kept = {segment.name for number in (5, 6) for segment in LatentStore.open(store, number).manifest.segments}
    assert {f"_segments/{path.name}" for path in (store / "_segments").iterdir()} == kept
    assert verify_store(store).whole
    with pytest.raises(StoreError, match="snapshot 4 was removed since it was opened: open snapshot 6"):
        read_ids(fourth)


def test_appends_remove_segments_that_nobody_can_commit_and_add_no_shard_twice(store, made):
    (store / "_segments/000009-0123456789abcdef.parquet").write_bytes(b"left")
    done = append(store, [batch(store.parent / "data", 3), batch(store.parent / "data", 7)], made / "codec")
    assert ([part.name[:10] for part in done.parts], done.skipped) == (["part-00006"], 1)
    assert not (store / "_segments/000009-0123456789abcdef.parquet").exists()
    assert [segment.parts for segment in done.store.manifest.segments] == [5, 2]
    assert read_ids(done.store) == ids_of(*NUMBERS, 7)
    assert [one.name for one in added_shards(store, 7)[1]] == [part.name for part in done.parts]
    assert verify_store(store).whole


def test_joined_parts_stand_in_segments_and_come_back(store, made, sets):
    done = compact_store(store, CompactParams(rows=3 * ROWS), git={})
    opened = LatentStore.open(store)
    assert (done.into, opened.manifest.format, opened.manifest.shard_count) == (2, 4, 6)
    assert read_ids(opened) == ids_of(*NUMBERS)
    assert verify_deep(store, verify_store(store), [made / "data"], "cpu", lambda rows: None).deep.identical == 2
    assert [shard.name for shard in added_shards(store, 2)[1]] == [LatentStore.open(store, 2).manifest.parts[1].name]
    vacuum_store(store)
    (segment,) = opened.manifest.segments
    whole = list(opened.manifest.parts)
    flip_bit(store / segment.name, 200)
    assert "take _manifest.json away" in repair(store, sets).failed[segment.name]
    (store / "_manifest.json").unlink()
    repair(store, sets, accept_new_bytes=True)
    assert verify_store(store).whole
    assert list(LatentStore.open(store).manifest.parts) == whole


def test_decoding_and_other_processes_take_them(made, tmp_path):
    decoded = decode_store(LatentStore.open(made / "store"), tmp_path / "decoded", device="cpu")
    assert decoded.load().attributes["id"].to_pylist() == ids_of(*NUMBERS)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"name": "../../etc/passwd"}, "segments: 0.name"),
        ({"name": "_segments/../part-00000-0123456789abcdef.parquet"}, "segments: 0.name"),
        ({"rows": 1}, "not the sums over the segments"),
        ({"bytes": 1 << 62}, "manifest says 4611686018427387904"),
        ({"pieces": ["900000000000000:" + "0" * 32] * 2}, "pieces in the manifest do not add up"),
        ({"parts": 4}, "has 5 rows, the manifest says 4"),
        ({"sha256": "0" * 64}, "SHA-256 is not the one"),
        ({"id_min": "a", "id_max": "b"}, "ids are integers in some parts and strings in others"),
        ({"id_max": 7}, "has id_max 539, the manifest says 7"),
        ({"last_number": 7}, "has parts up to number 4, the manifest says 7"),
        ({"shards": 9}, "has shards 5, the manifest says 9"),
    ],
)
def test_a_manifest_that_lies_about_a_segment_is_refused_or_found_out(store, change, finding):
    vacuum_store(store)
    rewrite_manifest(store, lambda values: values["segments"][0].update(change))
    try:
        found = " ".join(damage.reason for damage in verify_store(store).damaged)
    except StoreError as error:
        found = str(error)
    assert finding in found
    if change.keys().isdisjoint({"shards", "sha256", "last_number", "id_max"}):  # these are not needed to read rows
        with pytest.raises(StoreError):
            read_ids(LatentStore.open(store))


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"name": "../../../etc/passwd"}, "lists a name that no part can have"),
        ({"rows": 0}, "lists a part without rows"),
        ({}, "twice"),
    ],
)
def test_a_segment_that_was_written_wrong_is_found_out(store, changes, finding):
    vacuum_store(store)
    opened = LatentStore.open(store).manifest
    entries = list(opened.parts)
    wrong = table_of([*entries, entries[0]] if not changes else entries)
    for name, value in changes.items():
        values = wrong.column(name).to_pylist()
        place = wrong.schema.get_field_index(name)
        wrong = wrong.set_column(place, wrong.schema.field(name), [[value, *values[1:]]])
    segment = write(store, wrong)
    totals = {**dict(opened.totals), "rows": segment["rows"], "bytes_parts": segment["bytes_parts"]}
    rewrite_manifest(store, lambda values: values.update(segments=[segment], totals=totals))
    found = verify_store(store)
    assert finding in " ".join(damage.reason for damage in found.damaged)
    if changes:
        with pytest.raises(StoreError, match="is damaged"):
            read_ids(LatentStore.open(store))


def write(store: Path, table) -> dict:
    """A segment of a store, whatever stands in it; its entry as a manifest has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_file, "part_number", lambda name: 5)
        patch.setattr(segment_file, "SegmentEntry", dict)
        return segment_file.write_segment(store, 6, table)


def test_small_stores_stay_as_they_were(tmp_path):
    assert grow(tmp_path, (1, 2)).manifest.format == 2
    assert not (tmp_path / "store/_segments").exists()
