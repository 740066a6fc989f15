"""Two at once: of writers one wins and the other is told; readers are never blocked and never see a mixture."""

import pytest
from handmade import bytes_of, random_codec, random_pixels, write_rows
from racing import race

from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.latent_store import LatentStore

START = """
from ae_pipeline.store.writing.appending import append_samples
from ae_pipeline.store.writing.encoding import encode_samples
from ae_pipeline.errors import TargetError
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.params import EncodeParams
from ae_pipeline.data.samples import SampleSet

PARAMS = EncodeParams(device="cpu")

def append(folder, number, **options):
    sets = [SampleSet.open(folder / "data" / f"{number}.parquet")]
    done = append_samples(folder / "out/store", sets, folder / "codec", PARAMS, name="x", git={}, **options)
    return done.store.manifest.snapshot

def encode(folder, number, **options):
    samples = SampleSet.open(folder / "data" / f"{number}.parquet")
    store = encode_samples(samples, folder / "codec", folder / "out/store", PARAMS, name="x", git={}, **options)
    return store.manifest.parts[0].id_min

def files(folder):
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

def both_are_here(meet):
    # The other one acts between the two, while this one is in the middle of its work.
    def progress(rows):
        meet()
        meet()
    return progress
"""


@pytest.fixture
def folder(tmp_path):
    """A codec and data sets of 10 rows, whose ids begin with 100 times their number."""
    random_codec(tmp_path / "codec")
    for number in range(1, 22):
        pixels = random_pixels((10, 5, 4), "uint8", seed=number)
        write_rows(tmp_path / "data" / f"{number}.parquet", pixels, id=list(range(100 * number, 100 * number + 10)))
    return tmp_path


def everything(folder):
    return sorted(item.name for item in (folder / "out").iterdir())


def first_ids(store):
    return [part.id_min for part in LatentStore.open(store).manifest.parts]


@pytest.mark.slow
@pytest.mark.parametrize("existing", [True, False])
def test_of_two_that_append_one_is_told_and_has_changed_nothing(existing, folder):
    script = f"""{START}
def first(folder, meet):
    {"append(folder, 1)" if existing else ""}
    return append(folder, 2, progress=both_are_here(meet))

def second(folder, meet):
    meet()
    before = files(folder)
    try:
        append(folder, 3)
    except TargetError as error:
        assert files(folder) == before
        return str(error)
    finally:
        meet()
"""
    (_, snapshot), (_, message) = race(script, folder)
    assert "another run is writing" in message
    assert "\n" not in message
    assert (snapshot, first_ids(folder / "out/store")) == ((2, [100, 200]) if existing else (1, [200]))
    assert verify_store(folder / "out/store").whole
    assert everything(folder) == ["store"]


@pytest.mark.slow
def test_of_two_that_encode_to_one_name_the_slower_one_is_told(folder):
    script = f"""{START}
def first(folder, meet):
    return encode(folder, 1, progress=both_are_here(meet))

def second(folder, meet):
    meet()
    found = encode(folder, 2)
    meet()
    return found
"""
    (_, message), (_, found) = race(script, folder)
    assert "TargetError" in message
    assert "choose another target" in message
    assert [found] == first_ids(folder / "out/store") == [200]
    assert verify_store(folder / "out/store").whole
    assert everything(folder) == ["store"]


@pytest.mark.slow
def test_of_two_that_encode_the_same_the_second_is_told(folder):
    script = f"""{START}
def first(folder, meet):
    return encode(folder, 1, progress=both_are_here(meet))

def second(folder, meet):
    meet()
    before = files(folder)
    try:
        return encode(folder, 1)
    finally:
        assert files(folder) == before
        meet()
"""
    (_, found), (_, message) = race(script, folder)
    assert found == 100
    assert "another run is writing" in message
    assert everything(folder) == ["store"]


@pytest.mark.slow
def test_readers_go_on_while_20_snapshots_are_appended_and_see_each_of_them_whole(folder):
    script = f"""{START}
LAST = 21

def first(folder, meet):
    append(folder, 1)
    meet()
    return [append(folder, number, progress=both_are_here(meet)) for number in range(2, LAST + 1)]

def read(folder):
    store = LatentStore.open(folder / "out/store")
    ids = [name for rows in store.rows() for name in rows.attributes["id"].to_pylist()]
    snapshot = store.manifest.snapshot
    assert ids == [100 * number + row for number in range(1, snapshot + 1) for row in range(10)], "a mixture"
    return snapshot

def second(folder, meet):
    meet()
    seen = []
    for number in range(1, LAST):
        meet()
        seen.append(read(folder))  # the writer has locked the store and encoded
        assert seen[-1] == number
        meet()
        while seen[-1] == number:  # the writer moves parts and commits
            seen.append(read(folder))
    return seen
"""
    (_, written), (_, seen) = race(script, folder)
    assert written == list(range(2, 22))
    assert seen == sorted(seen)
    assert set(seen) == set(range(1, 22))
    assert bytes_of(folder / "out/store").keys() >= {f"_snapshots/{number}.json" for number in range(1, 21)}
