"""Stores at s3://: the bytes of a local store, complete or absent, and one winner among writers."""

import itertools
import multiprocessing.connection
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import bytes_of, encode, random_codec, random_pixels, write_rows
from moto.core.authorization import enable_iam_authentication
from remote_writer import append, compact, write
from s3_server import serving
from werkzeug.wrappers import Response

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import ConfigError, DamagedPartError, PipelineError, StoreError, TargetError, UnreachableError
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format import manifest
from ae_pipeline.store.format.manifest import MANIFEST_NAME, read_manifest, write_manifest
from ae_pipeline.store.format.verified_file import DamagedError, VerifiedFile
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store
from ae_pipeline.store.storage.folder import read_whole
from ae_pipeline.store.storage.place import open_storage
from ae_pipeline.store.storage.url import RemoteStorage

pytestmark = pytest.mark.server

URL = "s3://bucket/deep/store"
KEY = "bucket/deep/store/"


@pytest.fixture(scope="module")
def running():
    with serving() as server:
        yield server


@pytest.fixture
def s3(running, monkeypatch):
    """The server with one empty bucket, and the environment that leads to it."""
    running.lead_here(monkeypatch)
    running.reset()
    running.make_bucket("bucket")
    running.requests.clear()
    return running


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """The folder of an untrained codec for uint8 5x4."""
    folder = tmp_path_factory.mktemp("remote") / "codec"
    random_codec(folder)
    return folder


def batch(folder, number, rows=30, **columns):
    """One data set of rows that no other number has."""
    ids = list(range(100 * number, 100 * number + rows))
    return write_rows(
        folder / f"batch-{number}.parquet", random_pixels((rows, 5, 4), "uint8", number), id=ids, **columns
    )


def data_set(folder, numbers):
    """Several of them in one folder: one shard, and so one part, for each."""
    for number in numbers:
        batch(folder, number)
    return SampleSet.open(folder)


def in_bucket(server):
    return server.objects("bucket", "deep/store/")


def ids_of(place, snapshot=None):
    return [value for table in LatentStore.open(place, snapshot).scan(["id"]) for value in table["id"].to_pylist()]


def numbers(*wanted):
    return [100 * number + row for number in wanted for row in range(30)]


def puts(server, ending=""):
    return [
        asked.key.removeprefix(KEY) for asked in server.requests if asked.method == "PUT" and asked.key.endswith(ending)
    ]


def check_all(place):
    """Every byte of every part against the manifest."""
    store = LatentStore.open(place)
    for part in store.manifest.parts:
        file = VerifiedFile(store.storage, part)
        assert len(file.read()) == part.bytes
    store.codec_header()


# The same bytes as in a folder.


def test_a_store_in_s3_has_the_bytes_of_a_local_one(s3, codec, tmp_path):
    samples = data_set(tmp_path / "data", [1, 2, 3])
    local = encode(samples, codec, tmp_path / "local")
    remote = encode(samples, codec, URL)
    assert in_bucket(s3) == bytes_of(tmp_path / "local")
    assert remote.manifest == local.manifest == read_manifest(URL)
    assert (remote.nbytes, remote.location) == (local.nbytes, URL)
    decoded = decode_store(LatentStore.open(URL), tmp_path / "decoded", device="cpu").load()
    assert np.array_equal(decoded.pixels, decode_store(local, tmp_path / "again", device="cpu").load().pixels)


def test_the_manifest_is_put_last_and_parts_under_their_final_names(s3, codec, tmp_path):
    encode(data_set(tmp_path / "data", [1, 2]), codec, URL)
    names = puts(s3)
    assert names[:3] == ["_codec/codec.json", "_codec/codec.json", "_codec/weights.safetensors"]
    assert sorted(names[3:-1]) == [part.name for part in read_manifest(URL).parts]
    assert names[-1] == MANIFEST_NAME
    assert all(asked.condition == "*" for asked in s3.requests if asked.method == "PUT")


@pytest.mark.parametrize("given", [True, False], ids=["work", "temporary"])
def test_nothing_is_left_on_this_machine(given, s3, codec, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    work = tmp_path / "work" if given else None
    samples = data_set(tmp_path / "data", [1, 2])
    encode(samples, codec, URL, work=work)
    append(URL, [batch(tmp_path / "more", 3)], codec, work=work)
    assert ids_of(URL) == numbers(1, 2, 3)
    del samples
    assert not [item for item in (tmp_path / "temporary").iterdir() if not item.name.startswith("ae-pipeline-codec-")]
    assert not given or not list(work.iterdir())


def test_a_store_that_grows_in_s3_has_the_bytes_of_one_that_grows_in_a_folder(s3, codec, tmp_path):
    for sets in ([1], [2, 3], [4]):
        for place in (tmp_path / "local", URL):
            appended = append(place, [batch(tmp_path / "data", number) for number in sets], codec)
            assert (len(appended.parts), appended.skipped) == (len(sets), 0)
    assert in_bucket(s3) == bytes_of(tmp_path / "local")
    assert [ids_of(URL, snapshot) for snapshot in (1, 2, 3)] == [numbers(1), numbers(1, 2, 3), numbers(1, 2, 3, 4)]


def test_a_shard_that_the_store_has_adds_nothing(s3, codec, tmp_path):
    first = batch(tmp_path, 1)
    append(URL, [first], codec)
    before = in_bucket(s3)
    appended = append(URL, [first, first], codec)
    assert (appended.parts, appended.skipped, appended.store.manifest.snapshot) == ([], 2, 1)
    assert in_bucket(s3) == before


def test_an_existing_store_is_never_written_over(s3, codec, tmp_path):
    samples = data_set(tmp_path / "data", [1])
    encode(samples, codec, URL)
    before = in_bucket(s3)
    with pytest.raises(TargetError, match=rf"{URL} exists already; choose another target"):
        encode(data_set(tmp_path / "other", [2]), codec, URL)
    assert in_bucket(s3) == before


def test_the_same_work_again_is_done_already(s3, codec, tmp_path):
    samples = data_set(tmp_path / "data", [1, 2])
    store = encode(samples, codec, URL)
    s3.requests.clear()
    assert encode(samples, codec, URL + "/").manifest == store.manifest
    assert not puts(s3)
    RemoteStorage(URL).remove(store.manifest.parts[0].name)
    with pytest.raises(TargetError, match=rf"{URL} exists already; choose another target"):
        encode(samples, codec, URL)


def test_two_codecs_never_mix_in_one_store(s3, codec, tmp_path):
    """The second is told before anything is encoded; an encode that was cut off counts, too."""
    random_codec(tmp_path / "other", seed=1)
    RemoteStorage(URL).create("_codec/codec.json", (codec / "codec.json").read_bytes())
    samples = data_set(tmp_path / "data", [1])
    with pytest.raises(TargetError, match=r"codec\.json is of another codec: .*or choose another target"):
        encode(samples, tmp_path / "other", URL)
    assert not puts(s3, "weights.safetensors")
    encode(samples, codec, URL)
    check_all(URL)


# Readers.


def test_readers_see_the_old_snapshot_until_the_new_one_is_whole(s3, codec, tmp_path):
    append(URL, [batch(tmp_path, 1)], codec)
    opened, seen = LatentStore.open(URL), []

    def read(asked):
        if asked.method == "PUT":
            seen.append(ids_of(URL))

    s3.hooks.append(read)
    append(URL, [batch(tmp_path, 2), batch(tmp_path, 3)], codec)
    s3.hooks.clear()
    # Two parts, the kept manifest twice (the second put must be refused), and the new manifest.
    assert seen == [numbers(1)] * 5
    assert ids_of(URL) == numbers(1, 2, 3)
    assert [value for table in opened.scan(["id"]) for value in table["id"].to_pylist()] == numbers(1)


def test_nothing_is_cached_between_two_looks(s3):
    reader, writer = RemoteStorage(URL), RemoteStorage(URL)
    assert reader.names() == []
    with pytest.raises(FileNotFoundError):
        reader.size("a/b")
    writer.create("a/b", b"12345")
    assert (reader.names(), reader.size("a/b")) == (["a/b"], 5)
    writer.replace("a/b", b"123456789", writer.tag("a/b"))
    assert (reader.size("a/b"), reader.read_range("a/b", 0, 100)) == (9, b"123456789")
    writer.remove("a/b")
    writer.remove("a/b")
    assert (reader.names(), writer.exists("a/b")) == ([], False)


def test_ranges_are_what_they_are_of_a_local_file(s3):
    files = RemoteStorage(URL)
    files.create("file", b"0123456789")
    files.create("empty", b"")
    assert [files.read_range("file", *place) for place in [(0, 4), (4, 3), (8, 100), (10, 1), (20, 1), (3, 0)]] == [
        b"0123",
        b"456",
        b"89",
        b"",
        b"",
        b"",
    ]
    assert (files.size("empty"), files.read_range("empty", 0, 10)) == (0, b"")
    files.create("folder/inside", b"1")
    for call in (files.size, lambda name: files.read_range(name, 0, 1), files.tag):
        for name in ("nothing", "folder"):
            with pytest.raises(FileNotFoundError):
                call(name)


def test_a_scan_reads_only_what_it_needs(s3, codec, tmp_path):
    pixels = random_pixels((6000, 5, 4), "uint8")
    data = write_rows(
        tmp_path / "data.parquet",
        pixels,
        id=list(range(6000)),
        noise=list(random_pixels((6000, 50), "uint8", 1).tobytes().hex(":", 50).split(":")),
    )
    store = encode(data, codec, URL, row_group_rows=1000)
    s3.requests.clear()
    tables = list(LatentStore.open(URL).scan(["id", "error"], ids=[2500, 2501]))
    assert [table["id"].to_pylist() for table in tables] == [[2500, 2501]]
    part = store.manifest.parts[0]
    sent = sum(asked.sent for asked in s3.requests if asked.key.endswith(part.name))
    sizes = [int(piece.split(":")[0]) for piece in part.pieces]
    # The footer for the schema, once more for the rows, and two of the four columns of the third row group.
    columns = [field.name for field in store.schema()]
    wanted = [sizes[2 * len(columns) + columns.index(name)] for name in ("id", "error")]
    assert sent == 2 * sizes[-1] + sum(wanted) < part.bytes / 10
    assert not [asked for asked in s3.requests if "_codec" in asked.key]


@pytest.mark.parametrize("kind", ["folder", "url"])
def test_a_folder_and_a_url_are_written_by_the_same_rules(kind, s3, tmp_path):
    storage = open_storage(tmp_path / "store" if kind == "folder" else URL)
    (tmp_path / "file").write_bytes(b"of a file")
    assert (storage.names(), storage.exists("a/b")) == ([], False)
    storage.remove("a/b")
    assert not storage.fetch("a/b", tmp_path / "fetched")
    assert storage.create("a/b", b"first")
    assert storage.create("c", tmp_path / "file")
    assert not storage.create("a/b", b"second")
    assert not storage.create("c", tmp_path / "file")
    assert (storage.names(), storage.exists("a/b")) == (["a/b", "c"], True)
    assert [storage.holds("a/b", data) for data in (b"first", b"firs", b"first ")] == [True, False, False]
    tag = storage.tag("a/b")
    assert storage.replace("a/b", b"third", tag)
    assert storage.tag("a/b") != tag
    assert not storage.replace("a/b", b"fourth", tag)  # two have read what stood there: one is faster
    assert storage.holds("a/b", b"third")
    assert storage.fetch("a/b", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"third"
    storage.remove("c")
    assert not storage.exists("c")
    assert sorted(item.name for item in tmp_path.iterdir() if item.name != "store") == ["fetched", "file"]


# What is broken is named: damage is damage, and a server that does not answer is not.


def test_a_missing_part_is_damage_and_the_rest_can_be_read(s3, codec, tmp_path):
    store = encode(data_set(tmp_path / "data", [1, 2, 3]), codec, URL)
    RemoteStorage(URL).remove(store.manifest.parts[1].name)
    with pytest.raises(DamagedPartError, match=r"part-00001.* is missing, but the manifest lists it"):
        list(store.scan())
    lost = []
    assert [table["id"][0].as_py() for table in store.scan(on_damaged=lambda part, error: lost.append(part))] == [
        100,
        300,
    ]
    assert lost == [store.manifest.parts[1]]


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_server_that_refuses_is_not_taken_for_damage(status, s3, codec, tmp_path, monkeypatch):
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    store = encode(data_set(tmp_path / "data", [1, 2]), codec, URL)
    s3.hooks.append(lambda asked: Response(status=status) if "part-00001" in asked.key else None)
    for call in (
        lambda: verify_store(URL),
        lambda: list(store.scan(on_damaged=lambda part, error: pytest.fail("not damaged"))),
        store.latent_bytes,
    ):
        with pytest.raises(UnreachableError, match=rf"{URL} cannot be reached: .*; check its address") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_changed_bytes_are_damage(s3, codec, tmp_path):
    store = encode(data_set(tmp_path / "data", [1]), codec, URL)
    part = store.manifest.parts[0]
    data = bytearray(in_bucket(s3)[part.name])
    data[100] ^= 1
    s3.client.put_object(Bucket="bucket", Key=f"deep/store/{part.name}", Body=bytes(data))
    with pytest.raises(DamagedPartError, match="were changed"):
        list(store.scan())
    with pytest.raises(DamagedError):
        VerifiedFile(store.storage, part).read()


# Writers at the same time.


def race(*writers):
    """Run them at once; what each returned, or the error that it raised."""

    def attempt(writer):
        try:
            return writer()
        except PipelineError as error:
            return error

    with ThreadPoolExecutor(len(writers)) as pool:
        return [future.result() for future in [pool.submit(attempt, writer) for writer in writers]]


def meet_before_the_commit(server, count):
    """Hold every put of the manifest back until all writers have come to theirs."""
    barrier = threading.Barrier(count, timeout=60)

    def meet(asked):
        if (asked.method, asked.key) == ("PUT", KEY + MANIFEST_NAME):
            barrier.wait()

    server.hooks.append(meet)


@pytest.mark.parametrize("data", [([1, 2], [3]), ([1], [2, 3]), ([1, 2], [1, 2]), ([1], [1, 2])], ids=str)
def test_of_two_encodes_one_wins_and_the_other_says_so(data, s3, codec, tmp_path):
    sets = [data_set(tmp_path / f"data-{number}", chosen) for number, chosen in enumerate(data)]
    locals_ = [encode(samples, codec, tmp_path / f"local-{number}") for number, samples in enumerate(sets)]
    meet_before_the_commit(s3, 2)
    results = race(*(lambda samples=samples: encode(samples, codec, URL) for samples in sets))
    losers = [result for result in results if isinstance(result, Exception)]
    assert [type(error) for error in losers] == [TargetError]
    assert "was written by another run meanwhile" in str(losers[0])
    winner = next(number for number, result in enumerate(results) if not isinstance(result, Exception))
    # What the loser uploaded beyond the winner's numbers is listed nowhere and stays until a snapshot has passed it.
    found, expected = in_bucket(s3), bytes_of(locals_[winner].path)
    highest = max(name for name in expected if name.startswith("part"))[:10]
    assert {name: value for name, value in found.items() if name[:10] <= highest or name[0] == "_"} == expected
    check_all(URL)
    assert ids_of(URL) == numbers(*data[winner])


@pytest.mark.parametrize("data", [([2], [3]), ([2], [2]), ([2], [2, 3]), ([3], [2, 3])], ids=str)
def test_of_two_appends_one_wins_and_the_other_can_be_repeated(data, s3, codec, tmp_path):
    append(URL, [batch(tmp_path, 1)], codec)
    batch(tmp_path, 2), batch(tmp_path, 3)
    sets = [[SampleSet.open(tmp_path / f"batch-{number}.parquet") for number in chosen] for chosen in data]
    meet_before_the_commit(s3, 2)
    results = race(*(lambda chosen=chosen: append(URL, chosen, codec) for chosen in sets))
    s3.hooks.clear()
    losers = [number for number, result in enumerate(results) if isinstance(result, Exception)]
    assert len(losers) == 1
    with pytest.raises(TargetError, match=r"was written by another run meanwhile, .*; append again$"):
        raise results[losers[0]]
    winner = 1 - losers[0]
    assert ids_of(URL) == numbers(1, *data[winner])
    assert read_manifest(URL).snapshot == 2
    append(URL, sets[losers[0]], codec)
    assert sorted(ids_of(URL)) == sorted(numbers(1, *{*data[0], *data[1]}))
    assert ids_of(URL, 2) == numbers(1, *data[winner])
    check_all(URL)
    listed = {part.name for part in read_manifest(URL).parts}
    assert {name for name in in_bucket(s3) if name.startswith("part")} == listed


def test_a_loser_leaves_alone_what_another_append_may_be_about_to_list(s3, codec, tmp_path):
    """The second of its parts is what an append after the winner makes, under the same name."""
    append(URL, [batch(tmp_path, 1)], codec)
    two, three = batch(tmp_path, 2), batch(tmp_path, 3)
    s3.hooks.append(first_time(KEY + MANIFEST_NAME, lambda: append(URL, [two], codec)))
    with pytest.raises(TargetError, match="append again"):
        append(URL, [two, three], codec)
    s3.requests.clear()
    assert ids_of(URL) == numbers(1, 2)
    append(URL, [three], codec)
    assert not puts(s3, ".parquet")  # the part was there, and was taken
    assert ids_of(URL) == numbers(1, 2, 3)
    check_all(URL)


@pytest.mark.parametrize("first", ["append", "compact"])
def test_of_an_append_and_a_compaction_one_wins_and_the_other_can_be_repeated(first, s3, codec, tmp_path):
    sets = [batch(tmp_path, number) for number in (1, 2, 3)]
    for samples in sets[:2]:
        append(URL, [samples], codec)
    writers = {"append": lambda: append(URL, sets[2:], codec), "compact": lambda: compact(URL)}
    late = writers.pop("compact" if first == "append" else "append")
    s3.hooks.append(first_time(KEY + MANIFEST_NAME, writers[first]))
    again = "run the same command again" if first == "append" else "append again"
    with pytest.raises(TargetError, match=rf"was written by another run meanwhile, .*; {again}$"):
        late()
    s3.hooks.clear()
    assert ids_of(URL) == (numbers(1, 2, 3) if first == "append" else numbers(1, 2))
    check_all(URL)
    late()
    assert ids_of(URL) == numbers(1, 2, 3)
    assert len(read_manifest(URL).parts) == (1 if first == "append" else 2)
    assert [len(ids_of(URL, number)) for number in (1, 2, 3, 4)] == [30, 60, 90 if first == "append" else 60, 90]
    check_all(URL)


def first_time(key, act):
    """A hook that does something before the first put of a key is answered, and lets it go on."""
    todo = [act]

    def hook(asked):
        if (asked.method, asked.key) == ("PUT", key) and todo:
            todo.pop()()

    return hook


def test_a_part_that_another_processor_made_is_taken_as_it_is(s3, codec, tmp_path):
    """Writing over it would damage the store that lists it: the same job can round to other integers elsewhere."""
    samples = data_set(tmp_path / "data", [1, 2])
    part = encode(samples, codec, tmp_path / "local").manifest.parts[0]
    table = pq.read_table(tmp_path / "local" / part.name)
    pq.write_table(
        table, tmp_path / "other.parquet", compression="zstd", use_dictionary=False, write_page_checksum=True
    )
    other = (tmp_path / "other.parquet").read_bytes()
    RemoteStorage(URL).create(part.name, other)
    encode(samples, codec, URL)
    assert in_bucket(s3)[part.name] == other
    check_all(URL)


def test_what_has_a_parts_name_and_is_none_is_made_again(s3, codec, tmp_path):
    samples = data_set(tmp_path / "data", [1, 2])
    parts = encode(samples, codec, tmp_path / "local").manifest.parts
    RemoteStorage(URL).create(parts[0].name, b"nothing of the kind")
    RemoteStorage(URL).create(parts[1].name, (tmp_path / "local" / parts[0].name).read_bytes())
    encode(samples, codec, URL)
    assert in_bucket(s3) == bytes_of(tmp_path / "local")


def test_left_overs_go_when_no_writer_can_commit_them_any_more(s3, codec, tmp_path):
    files = RemoteStorage(URL)
    dead, alive = "part-00001-0123456789abcdef.parquet", "part-00002-0123456789abcdef.parquet"
    for name in (dead, alive, "notes.txt"):
        files.create(name, b"left")
    encode(data_set(tmp_path / "data", [1, 2]), codec, URL)
    assert set(in_bucket(s3)) & {dead, alive, "notes.txt"} == {alive, "notes.txt"}
    append(URL, [batch(tmp_path, 3)], codec)
    assert set(in_bucket(s3)) & {dead, alive, "notes.txt"} == {"notes.txt"}


def test_what_an_earlier_snapshot_lists_stays(s3, codec, tmp_path):
    """Also if the newest one does not list it: a repair can give a part another name."""
    first = encode(data_set(tmp_path / "data", [1, 2]), codec, tmp_path / "local").manifest
    totals = first.totals.model_copy(update={"rows": 30})
    changes = {"snapshot": 2, "parent": 1, "parts": first.parts[1:], "totals": totals}
    (tmp_path / "local/_snapshots").mkdir()
    (tmp_path / "local" / MANIFEST_NAME).rename(tmp_path / "local/_snapshots/1.json")
    write_manifest(tmp_path / "local", first.model_copy(update=changes))
    for name, data in bytes_of(tmp_path / "local").items():
        RemoteStorage(URL).create(name, data)
    RemoteStorage(URL).create("part-00000-0123456789abcdef.parquet", b"left")
    append(URL, [batch(tmp_path, 3)], codec)
    assert [ids_of(URL, snapshot) for snapshot in (1, 2, 3)] == [numbers(1, 2), numbers(2), numbers(2, 3)]
    assert "part-00000-0123456789abcdef.parquet" not in in_bucket(s3)


def test_a_server_that_ignores_conditions_is_refused(s3, codec, tmp_path):
    s3.careless = True
    with pytest.raises(TargetError, match="ignores the condition If-None-Match"):
        encode(data_set(tmp_path / "data", [1]), codec, URL)
    assert not puts(s3, MANIFEST_NAME)
    s3.careless = False
    append(URL, [batch(tmp_path, 1)], codec)
    s3.careless = True
    with pytest.raises(TargetError, match="ignores the condition If-Match"):
        append(URL, [batch(tmp_path, 2)], codec)
    assert ids_of(URL) == numbers(1)


def test_a_commit_whose_answer_was_lost_has_happened(s3, codec, tmp_path, monkeypatch):
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)

    def lose(asked):
        return Response(status=500) if (asked.method, asked.key) == ("PUT", KEY + MANIFEST_NAME) else None

    s3.answered.append(lose)
    append(URL, [batch(tmp_path, 1)], codec)
    append(URL, [batch(tmp_path, 2)], codec)
    assert ids_of(URL) == numbers(1, 2)
    # A library that tries again is refused because of its own first try.
    s3.answered[:] = [once(lose)]
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3.requests.clear()
    append(URL, [batch(tmp_path, 3)], codec)
    assert [asked.status for asked in s3.requests if asked.key == KEY + MANIFEST_NAME and asked.method == "PUT"] == [
        200,
        412,
    ]
    assert ids_of(URL) == numbers(1, 2, 3)


def once(hook):
    left = [True]

    def first(asked):
        answer = hook(asked) if left else None
        if answer is not None:
            left.clear()
        return answer

    return first


# kill -9 of the writing process, after every one of its puts.


@pytest.fixture(scope="module")
def started(running):
    """A process that has imported everything, and forks a child for each run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["s3fs", "ae_pipeline.store.writing.commit", "ae_pipeline.models.dense", "torch._dynamo"]
    )
    return context


def run_and_kill(started, server, arguments, step, *, after=True):
    """Run `write` and kill it at its put number `step` (from 0), when the server has taken it, or just before.

    False if it came to its end before.
    """
    child = started.Process(target=write, args=(server.environment, URL, *arguments))
    steps, killed = itertools.count(), []

    def count(asked):
        if asked.method in ("PUT", "POST") and next(steps) == step:
            killed.append(asked)
            os.kill(child.pid, signal.SIGKILL)
            multiprocessing.connection.wait([child.sentinel])
            return Response(status=500)  # nobody is there to read it, but `before` must not have had an effect
        return None

    (server.answered if after else server.hooks).append(count)
    child.start()
    child.join()
    server.hooks.clear()
    server.answered.clear()
    assert killed or child.exitcode == 0
    return bool(killed)


@pytest.mark.slow
def test_an_encode_that_is_killed_leaves_no_store_and_is_taken_up_again(s3, started, codec, tmp_path):
    samples = data_set(tmp_path / "data", [1, 2, 3])
    encode(samples, codec, tmp_path / "local")
    # Two files of the codec, one of them twice, three parts, the manifest.
    for step in range(8):
        killed = run_and_kill(started, s3, ([tmp_path / "data"], codec, "encode"), step)
        assert killed == (step < 7)
        there = in_bucket(s3)
        assert (MANIFEST_NAME in there) == (step >= 6)
        if step < 6:
            with pytest.raises(StoreError, match="not a complete latent store"):
                LatentStore.open(URL)
        s3.requests.clear()
        encode(samples, codec, URL)
        assert not {name for name in there if name.startswith("part")} & set(puts(s3))
        assert in_bucket(s3) == bytes_of(tmp_path / "local")
        s3.reset()
        s3.make_bucket("bucket")


@pytest.mark.slow
def test_an_append_that_is_killed_leaves_one_snapshot_or_the_other(s3, started, codec, tmp_path):
    sets = [batch(tmp_path / "data", number) for number in (1, 2, 3)]
    for chosen in (sets[:1], sets[1:]):
        append(tmp_path / "local", chosen, codec)
    # Two parts, the old manifest twice, the new one.
    for step in range(6):
        append(URL, sets[:1], codec)
        killed = run_and_kill(started, s3, ([one.files[0] for one in sets[1:]], codec, "append"), step)
        assert killed == (step < 5)
        assert ids_of(URL) == (numbers(1) if step < 4 else numbers(1, 2, 3))
        check_all(URL)
        append(URL, sets[1:], codec)
        assert in_bucket(s3) == bytes_of(tmp_path / "local")
        s3.reset()
        s3.make_bucket("bucket")


@pytest.mark.slow
def test_a_compaction_that_is_killed_leaves_one_snapshot_or_the_other(s3, started, codec, tmp_path):
    for place in (URL, tmp_path / "local"):
        for number in (1, 2):
            append(place, [batch(tmp_path / "data", number)], codec)
    before = in_bucket(s3)
    compact(tmp_path / "local")
    # The part, the old manifest twice, the new one.
    for step in range(5):
        killed = run_and_kill(started, s3, ([], codec, "compact"), step)
        assert killed == (step < 4)
        assert ids_of(URL) == numbers(1, 2)
        assert read_manifest(URL).snapshot == (2 if step < 3 else 3)
        check_all(URL)
        s3.requests.clear()
        compact(URL)
        assert not puts(s3, ".parquet")  # the part was there, and was taken
        assert in_bucket(s3) == bytes_of(tmp_path / "local")
        s3.reset()
        s3.make_bucket("bucket")
        for name, value in before.items():
            s3.client.put_object(Bucket="bucket", Key=f"deep/store/{name}", Body=value)


def large(folder):
    """A part of some 36 MiB, which goes up in three requests."""
    payload = np.random.default_rng(0).bytes(36 << 20)
    rows = [payload[start : start + (4 << 20)] for start in range(0, len(payload), 4 << 20)]
    return batch(folder, 1, rows=9, payload=pa.array(rows, pa.binary()))


@pytest.mark.slow
def test_an_upload_in_several_requests_appears_with_the_last_one(s3, started, codec, tmp_path, monkeypatch):
    samples = large(tmp_path / "data")
    encode(samples, codec, tmp_path / "local")

    def uploading():
        return [item["Key"] for item in s3.client.list_multipart_uploads(Bucket="bucket").get("Uploads", [])]

    # 0 to 2: the codec; 3: the upload begins; 4 to 6: its pieces; 7: its end. One less once the codec is there.
    for step, after in ((4, True), (6, False)):
        assert run_and_kill(started, s3, ([tmp_path / "data"], codec, "encode"), step, after=after)
        assert set(in_bucket(s3)) == {"_codec/codec.json", "_codec/weights.safetensors"}
    assert len(uploading()) == 2
    # A request that fails for good: one line, and the upload is given up.
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    s3.hooks.append(lambda asked: Response(status=500) if "partNumber=2" in asked.query else None)
    with pytest.raises(UnreachableError, match="cannot be reached"):
        encode(samples, codec, URL)
    s3.hooks.clear()
    assert len(uploading()) == 2
    assert set(in_bucket(s3)) == {"_codec/codec.json", "_codec/weights.safetensors"}
    encode(samples, codec, URL)
    assert in_bucket(s3) == bytes_of(tmp_path / "local")


# What a user is told.


def one_line(result, *words):
    code, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out, len(lines)) == (1, "", 1), err
    assert "Traceback" not in err
    assert all(word in lines[0] for word in words), lines[0]


def test_the_command_line_takes_urls(ae, s3, codec, tmp_path):
    data_set(tmp_path / "data", [1, 2])
    code, out, err = ae("encode", tmp_path / "data", "--codec", codec, "--store", URL)
    assert code == 0, err
    assert URL in out
    code, described, _ = ae("info", URL)
    written = {line for line in out.splitlines() if not line.startswith("largest_error")}
    assert (code, written <= set(described.splitlines())) == (0, True)
    assert ae("decode", URL, "--out", tmp_path / "decoded")[0] == 0
    assert SampleSet.open(tmp_path / "decoded").rows == 60
    assert ae("encode", tmp_path / "data", "--codec", codec, "--store", f"file://{tmp_path}/folder")[0] == 0
    assert bytes_of(tmp_path / "folder").keys() == in_bucket(s3).keys()
    batch(tmp_path / "more", 3)
    assert ae("append", URL, tmp_path / "more")[0] == 0
    assert ids_of(URL) == numbers(1, 2, 3)
    code, out, _ = ae("compact", URL)
    assert (code, "joined 3 parts into 1: 90 rows" in out) == (0, True)
    assert ae("verify", URL, "--deep", "--source", tmp_path / "data", "--source", tmp_path / "more")[0] == 0
    assert ae("info", URL, "--snapshot", 1)[0] == 0
    one_line(ae("encode", tmp_path / "data", "--codec", codec, "--store", URL), URL, "exists already")


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_server_that_sends_less_than_it_says_is_not_asked_for_ever(s3):
    def cut_off(asked):
        return Response(b"{}", 206) if (asked.method, asked.key) == ("GET", f"{KEY}_manifest.json") else None

    s3.client.put_object(Bucket="bucket", Key="deep/store/_manifest.json", Body=b"{}" * 50)
    s3.answered.append(cut_off)
    with pytest.raises(StoreError, match="has another size than is said of it"):
        read_whole(open_storage(URL), "_manifest.json", most=1000)


def test_what_cannot_be_reached_is_said_in_one_line(ae, s3, codec, tmp_path, monkeypatch):
    import s3fs

    data_set(tmp_path / "data", [1])
    encoding = ("encode", tmp_path / "data", "--codec", codec, "--store")
    one_line(ae(*encoding, "s3://nothing/store"), "bucket does not exist", "make the bucket first")
    one_line(ae("info", "s3://nothing/store"), "not a complete latent store", "bucket does not exist")
    one_line(ae("info", URL), URL, "is not a complete latent store", "_manifest.json is missing)")
    with enable_iam_authentication():
        one_line(ae(*encoding, URL), URL, "cannot be reached", "credentials")
        one_line(ae("info", URL), URL, "cannot be reached", "credentials")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    one_line(ae("info", URL), URL, "Unable to locate credentials")
    one_line(ae(*encoding, URL), URL, "Unable to locate credentials")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3fs.S3FileSystem.clear_instance_cache()
    one_line(ae("info", URL), URL, "Could not connect")
    one_line(ae(*encoding, URL), URL, "Could not connect")
    one_line(ae("info", "nonsense://bucket/store"), "nonsense://bucket/store cannot be opened")


OTHERS = [
    "gs://bucket/store",
    "gcs://bucket/store",
    "az://container/store",
    "abfs://container/store",
    "abfss://container@account/store",
    "https://example.com/store",
    "sftp://example.com/store",
    "simplecache::s3://bucket/store",
    "nonsense://bucket/store",
]


@pytest.mark.parametrize("url", OTHERS)
def test_another_kind_of_url_is_refused_by_name_wherever_a_store_is_given(url, ae, codec, tmp_path, monkeypatch):
    data_set(tmp_path / "data", [1])
    monkeypatch.chdir(tmp_path)
    before = bytes_of(tmp_path)
    kind = f"not at {url.partition(':')[0]}://"
    for command in (
        ("encode", tmp_path / "data", "--codec", codec, "--store", url),
        ("append", url, tmp_path / "data"),
        ("info", url),
        ("verify", url),
        ("verify", url, "--deep", "--source", tmp_path / "data"),
        ("decode", url, "--out", tmp_path / "decoded"),
        ("evaluate", tmp_path / "data", "--store", url),
    ):
        one_line(ae(*command), url, "a store is kept in a folder or at s3://", kind, "copy it to one of these")
    for command in (("repair", url), ("vacuum", url)):
        one_line(ae(*command), url, "expected a folder: copy the store to one")
    if "::" not in url:
        one_line(ae("decode", tmp_path / "store", "--out", url), f"--out is a URL, {url}; give a folder")
    for call in (
        lambda: encode(tmp_path / "data", codec, url),
        lambda: append(url, [SampleSet.open(tmp_path / "data")], codec),
        lambda: LatentStore.open(url),
        lambda: verify_store(url),
        lambda: read_manifest(url),
    ):
        with pytest.raises(ConfigError, match=kind):
            call()
    assert bytes_of(tmp_path) == before


def test_what_can_only_be_read_is_not_written(codec, tmp_path):
    """These two are here for tests, which read what fsspec has put there."""
    samples = data_set(tmp_path / "data", [1, 2])
    encode(samples, codec, tmp_path / "local")
    files = fsspec.filesystem("memory")
    files.put(str(tmp_path / "local"), "/only-read", recursive=True)
    before = bytes_of(tmp_path)
    try:
        for url in ("memory://only-read", f"local://{tmp_path}/local"):
            check_all(url)
            assert ids_of(url) == numbers(1, 2)
            refused = f"{url}: a store is written into a folder or at s3://, and not at {url.partition(':')[0]}://"
            for place, write in ((url, append), (f"{url}-new", append), (f"{url}-new", encode)):
                with pytest.raises(TargetError, match=refused.replace(url, place)):
                    write(place, [samples], codec) if write is append else write(samples, codec, place)
        assert (files.exists("/only-read-new"), bytes_of(tmp_path)) == (False, before)
    finally:
        files.rm("/only-read", recursive=True)


def test_a_file_url_is_a_folder(codec, tmp_path):
    samples = data_set(tmp_path / "data", [1, 2])
    encode(samples, codec, f"file://{tmp_path}/store")
    append(f"file://{tmp_path}/store", [batch(tmp_path, 3)], codec)
    assert ids_of(f"file://{tmp_path}/store") == ids_of(tmp_path / "store") == numbers(1, 2, 3)
    assert LatentStore.open(f"file://{tmp_path}/store").path == tmp_path / "store"


# Segments of manifests.


def test_a_store_with_segments_is_the_same_at_a_url_and_its_orphans_go(s3, codec, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "MOST_LISTED", 1)
    for number in (1, 2, 3):
        for place in (URL, tmp_path / "store"):
            append(place, [batch(tmp_path, number)], codec)
        if number == 2:
            dead, alive = (f"_segments/{snapshot}-0123456789abcdef.parquet" for snapshot in ("000003", "000004"))
            RemoteStorage(URL).create(dead, b"left")
            RemoteStorage(URL).create(alive, b"about to be listed")
    assert read_manifest(URL).format == 4
    assert in_bucket(s3) == bytes_of(tmp_path / "store") | {alive: b"about to be listed"}
    assert ids_of(URL) == numbers(1, 2, 3)
    assert verify_store(URL).whole
    decoded = decode_store(LatentStore.open(URL), tmp_path / "decoded", device="cpu")
    assert decoded.load().attributes["id"].to_pylist() == numbers(1, 2, 3)


def test_of_two_appends_with_segments_one_wins_and_the_other_leaves_none(s3, codec, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "MOST_LISTED", 1)
    append(URL, [batch(tmp_path, 1), batch(tmp_path, 2)], codec)
    three, four = batch(tmp_path, 3), batch(tmp_path, 4)
    s3.hooks.append(first_time(KEY + MANIFEST_NAME, lambda: append(URL, [three], codec)))
    with pytest.raises(TargetError, match="append again"):
        append(URL, [four], codec)
    assert ids_of(URL) == numbers(1, 2, 3)
    listed = {segment.name for number in (1, 2) for segment in read_manifest(URL, number).segments}
    assert {name for name in in_bucket(s3) if name.startswith("_segments/")} == listed
    append(URL, [four], codec)
    assert ids_of(URL) == numbers(1, 2, 3, 4)
    assert verify_store(URL).whole
