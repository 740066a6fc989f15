"""Stores on a real S3 server, Ceph's gateway: one winner among writers, whole or absent after a kill, never a mixture.

tests/store/test_remote.py looks into every request, with moto's server. What MLflow and DVC keep is on the same server.
"""

import multiprocessing
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from ceph import gateway, skip_without_ceph
from clone import Clone, ran
from handmade import bytes_of, encode, random_codec, random_pixels, write_rows
from prefect_server import until
from remote_writer import append, write

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import PipelineError, StoreError, TargetError
from ae_pipeline.operation.tracking.connection import connect, fetch_codec
from ae_pipeline.operation.tracking.publish import publish
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format.manifest import MANIFEST_NAME, read_manifest
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.place import open_storage

pytestmark = [pytest.mark.slow, pytest.mark.server]

WRITERS = 4


@pytest.fixture(scope="module")
def running():
    skip_without_ceph()
    with gateway() as server:
        server.client.create_bucket(Bucket="bucket")
        yield server


@pytest.fixture
def s3(running, monkeypatch):
    running.lead_here(monkeypatch)
    return running


@pytest.fixture
def url(request):
    """A place of its own for each test."""
    return f"s3://bucket/{request.node.name}"


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote") / "codec"
    random_codec(folder)
    return folder


def batch(folder, number):
    ids = list(range(100 * number, 100 * number + 30))
    return write_rows(folder / f"batch-{number}.parquet", random_pixels((30, 5, 4), "uint8", number), id=ids)


def data_set(folder, numbers):
    for number in numbers:
        batch(folder, number)
    return SampleSet.open(folder)


def numbers(*wanted):
    return [100 * number + row for number in wanted for row in range(30)]


def ids_of(place, snapshot=None):
    return [value for table in LatentStore.open(place, snapshot).scan(["id"]) for value in table["id"].to_pylist()]


def race(*writers):
    """Run them at once; what each returned, or the error that it raised."""
    barrier = threading.Barrier(len(writers), timeout=60)

    def attempt(writer):
        barrier.wait()
        try:
            return writer()
        except PipelineError as error:
            return error

    with ThreadPoolExecutor(len(writers)) as pool:
        return [future.result() for future in [pool.submit(attempt, writer) for writer in writers]]


def test_the_server_decides_conditional_puts_one_at_a_time(s3, url):
    """The heart of it: of many who create, or who replace the same file, one is told that it did."""
    storage = open_storage(url)
    for number in range(10):
        name = f"file-{number}"
        contents = [f"{one}".encode() * 1000 for one in range(WRITERS)]
        made = race(*(partial(storage.create, name, content) for content in contents))
        assert sorted(made) == [False] * (WRITERS - 1) + [True]
        assert storage.holds(name, contents[made.index(True)])
        tag = storage.tag(name)
        contents = [content + b" new" for content in contents]
        made = race(*(partial(storage.replace, name, content, tag) for content in contents))
        assert sorted(made) == [False] * (WRITERS - 1) + [True]
        assert storage.holds(name, contents[made.index(True)])
        assert not storage.replace(name, b"late", tag)


def test_of_encodes_at_once_one_wins_and_the_others_say_so(s3, url, codec, tmp_path):
    sets = [data_set(tmp_path / f"data-{one}", [one, one + WRITERS]) for one in range(1, WRITERS + 1)]
    results = race(*(lambda samples=samples: encode(samples, codec, url) for samples in sets))
    (winner,) = [one for one, result in enumerate(results, 1) if not isinstance(result, Exception)]
    losers = [result for result in results if isinstance(result, Exception)]
    assert [type(error) for error in losers] == [TargetError] * (WRITERS - 1)
    local = encode(sets[winner - 1], codec, tmp_path / "local")
    assert read_manifest(url) == local.manifest
    assert ids_of(url) == numbers(winner, winner + WRITERS)
    assert verify_store(url).whole


def test_of_appends_at_once_one_wins_and_the_others_can_be_repeated(s3, url, codec, tmp_path):
    append(url, [batch(tmp_path, 1)], codec)
    waiting = {number: batch(tmp_path, number) for number in range(2, 2 + WRITERS)}
    while waiting:
        before = read_manifest(url).snapshot
        tried = list(waiting)
        results = race(*(lambda one=one: append(url, [waiting[one]], codec) for one in tried))
        won = [one for one, result in zip(tried, results, strict=True) if not isinstance(result, Exception)]
        for result in results:
            assert not isinstance(result, Exception) or "append again" in str(result)
        assert won
        assert read_manifest(url).snapshot == before + len(won)
        for one in won:
            del waiting[one]
    assert sorted(ids_of(url)) == numbers(*range(1, 2 + WRITERS))
    assert ids_of(url, 1) == numbers(1)
    assert verify_store(url).whole


def test_readers_see_a_snapshot_or_the_next_while_it_grows(s3, url, codec, tmp_path):
    append(url, [batch(tmp_path, 1)], codec)
    whole = [numbers(*range(1, last + 1)) for last in range(1, 5)]
    seen, done = [], threading.Event()

    def read():
        while not done.is_set():
            seen.append(ids_of(url))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            for number in (2, 3, 4):
                append(url, [batch(tmp_path, number)], codec)
        finally:
            done.set()
        reading.result()
    assert seen
    assert all(ids in whole for ids in seen)
    assert seen == sorted(seen, key=len)


def _has(storage, files, child):
    return len(storage.names()) >= files or not child.is_alive()


def test_an_encode_that_is_killed_leaves_no_store_and_is_taken_up_again(s3, url, codec, tmp_path):
    samples = data_set(tmp_path / "data", [1, 2, 3])
    local = encode(samples, codec, tmp_path / "local")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["s3fs", "ae_pipeline.store.writing.commit", "ae_pipeline.models.dense"])
    storage = open_storage(url)
    for files in (2, 4):  # the codec's two; a part or two
        child = context.Process(target=write, args=(s3.environment, url, [tmp_path / "data"], codec, "encode"))
        child.start()
        until(partial(_has, storage, files, child), 120)
        child.kill()
        child.join()
        if MANIFEST_NAME not in storage.names():
            with pytest.raises(StoreError, match="not a complete latent store"):
                LatentStore.open(url)
    assert encode(samples, codec, url).manifest == local.manifest
    assert s3.objects("bucket", url.removeprefix("s3://bucket/") + "/") == bytes_of(local.path)


def test_artifacts_of_mlflow_are_on_it(s3, workspace, tmp_path, monkeypatch):
    root, params = workspace
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3.url)
    params = params.model_copy(
        update={"tracking": params.tracking.model_copy(update={"experiment": "in-s3", "registered_model": "in-s3"})}
    )
    with connect(params, root) as (client, _):
        client.create_experiment("in-s3", "s3://bucket/mlflow")
    published = publish(params, root)
    assert published.version == "1"
    assert any(name.endswith("codec/weights.safetensors") for name in s3.objects("bucket", "mlflow/"))
    fetched = fetch_codec("models:/in-s3@challenger", params, root, tmp_path / "fetched")
    assert bytes_of(fetched) == bytes_of(root / params.paths.codec)


def test_what_dvc_pushed_is_pulled_by_another_clone_which_then_runs_nothing(s3, warm_commands, tmp_path):
    (tmp_path / "first").mkdir()
    first = Clone(tmp_path / "first")
    first.take_what_was_built()
    first.dvc("repro", "evaluate")
    first.dvc("remote", "add", "-d", "storage", "s3://bucket/dvc")
    first.dvc("remote", "modify", "storage", "endpointurl", s3.url)
    first.dvc("push", "--quiet")
    first.commit("built")
    first.run("git", "clone", "-q", str(first.folder), str(tmp_path / "second"))
    shutil.rmtree(first.folder)
    second = first
    second.folder = tmp_path / "second"
    second.dvc("pull", "dvc.yaml")
    assert ran(second.dvc("repro", "evaluate", "decode")[1]) == ["code"]
    code, output = second.run(sys.executable, "-m", "ae_pipeline", "verify", "data/latents/test")
    assert code == 0
    assert "whole" in output
