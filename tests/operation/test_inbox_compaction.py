"""The inbox joins the small parts of its store, and knows its files, batches and labels as before."""

from handmade import bytes_of, flip_bit
from inboxes import params_with, put, put_image, put_table, store_of, stored

from ae_pipeline.operation.inbox.batches import statistics_path
from ae_pipeline.operation.inbox.run import encode_inbox
from ae_pipeline.params.operation import CompactParams
from ae_pipeline.store.care.snapshots import added_shards
from ae_pipeline.store.care.vacuum import vacuum_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.latent_store import LatentStore


def run(root, codec, parts=4):
    params = params_with().model_copy(update={"compact": CompactParams(parts=parts)})
    return encode_inbox(params, root, codec)


def test_parts_are_joined_as_soon_as_there_are_enough(codec, box, tmp_path):
    joined = []
    for number in range(1, 7):
        put_table(box / f"{number}.parquet", number, id=[f"{number}-{row}" for row in range(30)])
        if number % 2:
            put_image(box / f"{number}.png", number)
        done = run(tmp_path, codec)
        joined.append(done.joined_parts)
    store = store_of(tmp_path, codec)
    # A file makes a part, and so do the images of a run; what is as large as the others together waits for more.
    assert joined == [0, 0, 5, 0, 0, 4]
    assert "; 4 small parts of the store were joined" in done.summary()
    assert [len(added_shards(store, number)[1]) for number in range(1, 9)] == [2, 1, 2, 0, 1, 2, 1, 0]
    assert [part.rows for part in LatentStore.open(store).manifest.parts] == [92, 91]
    before = stored(store)["id"].to_pylist()
    vacuum_store(store)
    assert verify_store(store).whole
    again = run(tmp_path, codec)
    assert (again.files, again.known, again.joined_parts, again.quarantined) == ([], 9, 0, {})
    assert stored(store)["id"].to_pylist() == before
    # Numbers of a batch that a crash lost are had from the joined part.
    lost = statistics_path(store, 3)
    text = lost.read_text()
    lost.unlink()
    run(tmp_path, codec)
    for key in ('"rows": 31', '"3.png"', '"3.parquet"', '"median_error": '):
        assert key in text
        assert key in lost.read_text()
    assert not statistics_path(store, 4).exists()


def test_nothing_is_joined_where_it_is_switched_off(codec, box, tmp_path):
    for number in (1, 2, 3):
        put(box / f"{number}.parquet", number)
        assert run(tmp_path, codec, None).joined_parts == 0
    assert len(LatentStore.open(store_of(tmp_path, codec)).manifest.parts) == 3


def test_files_are_encoded_whatever_keeps_parts_from_being_joined(codec, box, tmp_path):
    for number in (1, 2, 3):
        put(box / f"{number}.parquet", number)
        run(tmp_path, codec)
    store = store_of(tmp_path, codec)
    flip_bit(store / LatentStore.open(store).manifest.parts[1].name, 200)
    put(box / "4.parquet", 4)
    done = run(tmp_path, codec)
    assert (done.files, done.joined_parts) == (["4.parquet"], 0)
    assert "were changed; restore it" in done.why_not_joined
    assert "small parts could NOT be joined: " in done.summary()
    assert len(bytes_of(store)) == len(list(store.glob("part-*"))) + 3 + 3
