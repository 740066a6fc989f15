"""Stores of very many parts: work grows as the number of parts does, and a manifest has the same bytes in pieces."""

import cProfile
import json
import shutil
from dataclasses import replace

import pytest
from handmade import encode, random_codec, random_pixels, write_rows

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import StoreError
from ae_pipeline.files import sha256_json, write_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.care.snapshots import is_spelt, read_snapshots
from ae_pipeline.store.format import manifest as manifests
from ae_pipeline.store.format import manifest_text as text
from ae_pipeline.store.format.manifest import MANIFEST_NAME, grown_text, manifest_text, write_manifest
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import LocalStorage
from ae_pipeline.store.writing.appending import append_samples, new_pieces
from ae_pipeline.store.writing.shards import plan_jobs

PARAMS = EncodeParams(device="cpu")


def calls(work):
    """How many functions are called; the same in every run, unlike the time."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(entry.callcount for entry in profile.getstats())


def assert_grows_evenly(work):
    """That what N more cost is the same wherever one begins: `work(n)` gives a function to call."""
    work(20)()  # what is loaded and remembered once
    few, some, many = (calls(work(count)) for count in (40, 120, 280))
    assert many - some < 2.1 * (some - few) + 200


@pytest.fixture
def data(tmp_path):
    """A codec, and a store of one part."""
    random_codec(tmp_path / "codec")
    write_rows(tmp_path / "rows.parquet", random_pixels((4, 5, 4), "uint8"), id=[0, 1, 2, 3])
    encode(tmp_path / "rows.parquet", tmp_path / "codec", tmp_path / "one")
    return tmp_path


def parts_like(first, count, ids=int):
    """Entries of parts that nobody made: names and digests as they might be."""
    for number in range(count):
        job, shard = sha256_json(["job", number]), sha256_json(["shard", number])
        yield replace(
            first,
            name=f"part-{number:05d}-{job[:16]}.parquet",
            job=job,
            id_min=ids(4 * number),
            id_max=ids(4 * number + 3),
            shard=replace(
                first.shard, file=f'b="{number}"/\t\u00e9\u2028\\.parquet', row_groups=[0, number], digest=shard
            ),
            pieces=[None, [], first.pieces][number % 3] if ids is str else first.pieces,
        )


def with_parts(manifest, parts):
    totals = manifest.totals.model_copy(update={"rows": sum(part.rows for part in parts)})
    return manifest.model_copy(update={"parts": parts, "totals": totals})


def store_of(data, count):
    """A store that lists so many parts; only the first one is there."""
    store = data / str(count)
    shutil.copytree(data / "one", store, dirs_exist_ok=True)
    manifest = LatentStore.open(data / "one").manifest
    first = manifest.parts[0]
    write_manifest(store, with_parts(manifest, [first, *list(parts_like(first, count))[1:]]))
    return store


def many_files(data, count):
    folder = data / f"files-{count}"
    for number in range(count):
        path = folder / f"{number:03d}.parquet"
        path.parent.mkdir(exist_ok=number > 0)
        path.hardlink_to(data / "rows.parquet")
    return SampleSet.open(folder)


def test_planning_grows_as_the_number_of_shards_does(data):
    def work(count):
        samples = many_files(data, count)

        def plan():
            assert new_pieces([samples], set())[1] == count - 1  # all are the same file
            jobs = plan_jobs(((samples, shard) for shard in samples.shards), "0" * 64, PARAMS)
            assert len({job.part_name for job in jobs}) == count
            assert samples.digest
            assert samples.rows == 4 * count

        return plan

    assert_grows_evenly(work)


def test_reading_all_shards_grows_as_their_number_does(data):
    write_rows(data / "rows.parquet", random_pixels((4, 5, 4), "uint8"))  # rows are numbered through all files

    def work(count):
        samples = many_files(data, count)
        return lambda: [
            list(some.blocks(shard, 4)) for shard in samples.shards for some in (samples, samples.only(shard))
        ]

    assert_grows_evenly(work)


def test_opening_and_checking_the_manifests_grows_as_the_number_of_parts_does(data):
    def work(count):
        store = store_of(data, count)

        def check():
            assert len(LatentStore.open(store).manifest.parts) == count
            assert not read_snapshots(LocalStorage(store), None).damaged

        return check

    assert_grows_evenly(work)


def test_one_append_grows_as_the_number_of_parts_does(data):
    write_rows(data / "more.parquet", random_pixels((4, 5, 4), "uint8", seed=1), id=[4, 5, 6, 7])
    more = SampleSet.open(data / "more.parquet")

    def work(count):
        store = store_of(data, count)
        return lambda: append_samples(store, [more], data / "codec", PARAMS, name="more", git={})

    assert_grows_evenly(work)


# The text of a manifest.


@pytest.fixture
def long(data, monkeypatch):
    """A manifest that is written and read in several pieces, with names and ids of all kinds."""
    monkeypatch.setattr(text, "_PARTS_AT_A_TIME", 7)
    monkeypatch.setattr(text, "_BYTES_AT_A_TIME", 3000)
    manifest = LatentStore.open(data / "one").manifest
    return with_parts(manifest, list(parts_like(manifest.parts[0], 100, ids=str)))


def values_of(manifest):
    values = manifest.model_dump(mode="json")
    return {**values, "digest": sha256_json(values)}


def test_a_manifest_in_pieces_has_the_bytes_of_one_that_is_written_whole(long, tmp_path):
    write_json(tmp_path / "whole.json", values_of(long))
    write_manifest(tmp_path, long)
    data = (tmp_path / MANIFEST_NAME).read_bytes()
    assert data == (tmp_path / "whole.json").read_bytes() == b"".join(manifest_text(long))
    assert is_spelt(long, data)
    assert not is_spelt(long, data + b"\n")
    assert not is_spelt(long, data.replace(b'"rows":', b'"rows" :', 1))


def test_one_that_grows_has_the_bytes_of_one_that_is_written_anew(long):
    old = with_parts(long, long.parts[:60])
    whole, data = b"".join(manifest_text(long)), b"".join(manifest_text(old))
    others = data.replace(b"{", b'{"others": {\n  "parts": [\n  ],\n  "end": 0},', 1)
    for file in (data, json.dumps(values_of(old)).encode(), others):
        assert grown_text(long, old, file) == whole
    assert grown_text(long, old.model_copy(update={"format": 1}), b"") == whole


def test_it_is_read_in_pieces_as_it_is_whole(long):
    data = b"".join(manifest_text(long))
    _, pieces = text.take_apart(data)
    assert len([len(json.loads(piece)) for piece in pieces]) > 5
    assert manifests._parse_in_pieces(data) == manifests._parse_whole(data) == long


def test_one_that_is_spelt_otherwise_is_read_whole(long):
    for options in ({}, {"indent": 4}, {"indent": 2, "sort_keys": True}):
        data = json.dumps(values_of(long), **options).encode()
        assert manifests.parse_manifest(data, "it") == long
        assert not is_spelt(long, data)


def test_what_was_changed_is_found_in_pieces_as_in_the_whole(long):
    data = b"".join(manifest_text(long))
    places = range(0, len(data), len(data) // 300)
    for place in places:
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        found = []
        for parse in (lambda data: manifests.parse_manifest(data, "it"), manifests._parse_whole):
            try:
                found.append(parse(changed))
            except StoreError as error:
                found.append((type(error), error.finding))
        assert found[0] == found[1]


@pytest.mark.parametrize("value", [1.0, "4", True])
def test_numbers_that_are_none_are_refused_with_a_digest_that_fits(value, long):
    values = long.model_dump(mode="json")
    values["parts"][3]["rows"] = value
    data = (json.dumps({**values, "digest": sha256_json(values)}, indent=2, ensure_ascii=False) + "\n").encode()
    with pytest.raises(StoreError, match=r"it is not a valid manifest: parts\.3\.rows"):
        manifests.parse_manifest(data, "it")
