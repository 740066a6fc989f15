"""Stores that were written without some of their data: they say so everywhere, and get it when it can be encoded."""

import pytest
from handmade import bytes_of, encode, random_codec, random_pixels, write_rows

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import CompactParams
from ae_pipeline.store.care.compaction import compact_store
from ae_pipeline.store.care.vacuum import vacuum_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing.appending import append_samples


@pytest.fixture
def place(tmp_path):
    """A codec, and four files of 30 rows without ids, the second of which is damaged; `good` has it as it was."""
    random_codec(tmp_path / "codec")
    for number in range(4):
        write_rows(tmp_path / "rows" / f"{number}.parquet", random_pixels((30, 5, 4), "uint8", number))
    encode(tmp_path / "rows", tmp_path / "codec", tmp_path / "whole")
    file = tmp_path / "rows/1.parquet"
    good = file.read_bytes()
    (tmp_path / "good").write_bytes(good)
    file.write_bytes(good[:4] + b"\xff" * 40 + good[44:])
    return tmp_path


def command(place, *more):
    return ("encode", place / "rows", "--codec", place / "codec", "--store", place / "store", "--layout", "list", *more)


def mend(place):
    (place / "rows/1.parquet").write_bytes((place / "good").read_bytes())


def parts(folder):
    return {name: data for name, data in bytes_of(folder).items() if name.startswith("part-")}


def test_a_file_that_cannot_be_encoded_stops_no_other_and_nothing_is_committed(place, ae):
    code, _, said = ae(*command(place))
    assert code == 1
    assert "rows/1.parquet" in said.splitlines()[0]
    assert "; the other shards go on, but nothing is committed (`encode`" in said.splitlines()[0]
    assert "error: " in said
    assert not (place / "store").exists()
    (left,) = place.glob(".store.*.partial")
    assert len(list(left.glob("part-*"))) == 3


def test_several_are_named_together(place, ae):
    (place / "rows/3.parquet").write_bytes((place / "rows/1.parquet").read_bytes())
    code, _, said = ae(*command(place))
    assert code == 1
    last = said.splitlines()[-1]
    assert "2 of 4 shards could not be encoded; the other 2 are finished, and the same command takes them up" in last
    assert "1.parquet" in last
    assert "3.parquet" in last


def test_a_partial_store_says_what_is_missing_until_the_same_command_adds_it(place, ae):
    code, _, said = ae(*command(place, "--allow-partial"))
    assert code == 3
    assert "incomplete: 1 of 4 shards, with 30 rows, are not in the store" in said
    store = LatentStore.open(place / "store")
    (entry,) = store.manifest.missing
    assert (entry.number, entry.first_row, entry.rows, entry.shard.file) == (1, 30, 30, "1.parquet")
    assert str(place) not in entry.reason
    code, out, _ = ae("verify", place / "store")
    assert code == 3
    assert "PARTIAL: undamaged, but 1 shard(s) with 30 rows could not be encoded" in out
    assert "ae-pipeline encode` again" in out
    assert '"missing": {\n    "shards": 1,' in ae("info", place / "store", "--json")[1]
    assert ae("decode", place / "store", "--out", place / "out")[2].startswith("note: ")
    # While the data is damaged, the same command changes nothing.
    before = bytes_of(place / "store")
    assert ae(*command(place))[0] == 1
    assert ae(*command(place, "--allow-partial"))[0] == 1
    assert bytes_of(place / "store") == before
    mend(place)
    code, _, said = ae(*command(place))
    assert (code, said) == (0, "")
    completed = LatentStore.open(place / "store")
    assert (completed.manifest.snapshot, completed.manifest.missing) == (2, [])
    assert parts(place / "store") == parts(place / "whole")
    assert ids(completed) == [*range(30), *range(60, 120), *range(30, 60)]  # what comes later stands at the end
    assert ae("verify", place / "store", "--deep", "--source", place / "rows")[0] == 0
    after = bytes_of(place / "store")
    assert ae(*command(place))[0] == 0  # it is there
    assert bytes_of(place / "store") == after


def ids(store):
    return [value for table in store.scan(["id"]) for value in table["id"].to_pylist()]


def test_an_append_adds_what_is_missing_and_new_rows_have_numbers_of_their_own(place, ae):
    ae(*command(place, "--allow-partial"))
    write_rows(place / "more.parquet", random_pixels((10, 5, 4), "uint8", 9))
    assert ae("append", place / "store", place / "more.parquet")[0] == 3  # it still lacks what it lacked
    store = LatentStore.open(place / "store")
    assert [entry.number for entry in store.manifest.missing] == [1]
    assert max(ids(store)) == 129
    mend(place)
    assert ae("append", place / "store", place / "rows")[0] == 0
    grown = LatentStore.open(place / "store")
    assert sorted(ids(grown)) == list(range(130))
    assert parts(place / "whole").items() <= parts(place / "store").items()
    vacuum_store(place / "store", 1)
    assert verify_store(place / "store").whole


def test_an_append_may_be_partial_too(place, ae):
    params = EncodeParams(layout="list", device="cpu")
    options = {"name": "x", "git": {}}
    first = SampleSet.open(place / "rows/0.parquet")
    append_samples(place / "store", [first], place / "codec", params, **options)
    assert ae("append", place / "store", place / "rows", "--allow-partial")[0] == 3
    assert LatentStore.open(place / "store").manifest.totals.rows == 90
    mend(place)
    assert ae("append", place / "store", place / "rows")[0] == 0
    assert sorted(ids(LatentStore.open(place / "store"))) == list(range(120))


def test_another_file_of_the_same_name_does_not_pass_for_the_missing_one(place, ae):
    ae(*command(place, "--allow-partial"))
    for number in (0, 1):
        write_rows(place / "others" / f"{number}.parquet", random_pixels((30, 5, 4), "uint8", 50 + number))
    assert ae("append", place / "store", place / "others")[0] == 3
    store = LatentStore.open(place / "store")
    assert [entry.number for entry in store.manifest.missing] == [1]
    assert store.manifest.totals.rows == 150


def test_a_repair_keeps_what_is_missing(place, ae):
    ae(*command(place, "--allow-partial"))
    (first, *_) = (place / "store").glob("part-00000-*")
    first.write_bytes(b"no part")
    assert ae("repair", place / "store", "--source", place / "rows")[0] == 0
    assert len(LatentStore.open(place / "store").manifest.missing) == 1
    assert parts(place / "store").items() <= parts(place / "whole").items()


def test_a_part_with_new_bytes_does_not_take_the_number_of_a_missing_one(place, ae):
    (place / "rows/3.parquet").write_bytes((place / "rows/1.parquet").read_bytes())
    ae(*command(place, "--allow-partial"))
    manifest = LatentStore.open(place / "store").manifest
    assert ([entry.number for entry in manifest.missing], manifest.next_number) == ([1, 3], 4)


def test_where_nothing_can_be_encoded_no_store_is_written(place, ae):
    for file in (place / "rows").iterdir():
        file.write_bytes((place / "rows/1.parquet").read_bytes())
    code, _, said = ae(*command(place, "--allow-partial"))
    assert code == 1
    assert "4 of 4 shards could not be encoded" in said
    assert not (place / "store").exists()


def test_what_is_missing_comes_also_after_the_other_parts_were_joined(place, ae):
    assert ae(*command(place, "--allow-partial"))[0] == 3
    assert compact_store(place / "store", CompactParams(), git={}).joined == 3
    code, out, _ = ae("verify", place / "store")
    assert (code, "PARTIAL" in out) == (3, True)
    mend(place)
    assert ae(*command(place))[0] == 0
    store = LatentStore.open(place / "store")
    assert (store.manifest.missing, [part.rows for part in store.manifest.parts]) == ([], [90, 30])
    before = parts(place / "store")
    assert ae(*command(place))[0] == 0  # it is finished
    assert ae("append", place / "store", place / "rows")[0] == 0
    assert (LatentStore.open(place / "store").manifest.snapshot, parts(place / "store")) == (3, before)
    (place / "store" / store.manifest.parts[0].name).unlink()
    assert ae("repair", place / "store", "--source", place / "rows")[0] == 0
    assert parts(place / "store") == before
    assert ids_of(store) == [*range(30), *range(60, 120), *range(30, 60)]
    code, out, _ = ae("verify", place / "store", "--deep", "--source", place / "rows")
    assert (code, "2 parts, encoded again from the data, are the same byte for byte" in out) == (0, True)


def ids_of(store):
    return [value for table in store.scan(["id"]) for value in table["id"].to_pylist()]
