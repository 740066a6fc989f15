"""What goes wrong with workers: no row is lost, none is there twice, no store is half there, nothing waits for ever."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import psutil
import pytest
import torch
from buckets import put
from failing import greedy, killed, refused
from handmade import bytes_of, encode, random_codec, random_pixels, write_rows
from s3_server import serving
from werkzeug.wrappers import Response

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import UnreachableError, WorkerError
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.sources.own_files.opening import open_data
from ae_pipeline.store.care.deep import verify_deep
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.executors import run_shards
from ae_pipeline.store.executors.engines import engine_for, kept
from ae_pipeline.store.executors.greeting import Greeting, Sight
from ae_pipeline.store.executors.lent import lent
from ae_pipeline.store.executors.on_ray import read_environment_again
from ae_pipeline.store.executors.process import _exit_code
from ae_pipeline.store.reading.decode import decode_store
from ae_pipeline.store.storage.work_folder import unfinished_work
from ae_pipeline.store.writing.encoding import encode_samples

CPU = torch.device("cpu")
SHARDS = 8


def of(name, **settings):
    return ExecuteParams(name=name, **settings)


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "codec"
    random_codec(folder, integer=True)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    for number in range(SHARDS):
        pixels = random_pixels((500, 5, 4), "uint8", number)
        write_rows(folder / f"{number}.parquet", pixels, id=list(range(1000 * number, 1000 * number + 500)))
    return folder


@pytest.fixture(scope="module")
def expected(rows, codec, tmp_path_factory):
    """The bytes of the store of a run to which nothing happens."""
    return bytes_of(encode(rows, codec, tmp_path_factory.mktemp("expected") / "store").path)


def encode_with(rows, codec, store, execute, progress=lambda rows: None):
    params = EncodeParams(layout="list", device="cpu")
    samples = SampleSet.open(rows)
    return encode_samples(samples, codec, store, params, name="tiny", git={}, execute=execute, progress=progress)


def refuse(execute):
    """A run that ends by a mistake leaves nothing to the next one."""
    with pytest.raises(ValueError, match="a mistake"):
        run_shards(refused, range(50), 50, CPU, execute=execute)
    assert run_shards(refused, [5, 6], 2, CPU, execute=execute) == [5, 6]


def workers_of(parent):
    """Processes at work for another one: those that multiprocessing or Ray started."""
    found = [process for process in psutil.Process(parent).children(recursive=True) if process.is_running()]
    words = {process: " ".join(process.cmdline()) for process in found if process.status() != psutil.STATUS_ZOMBIE}
    return [process for process, said in words.items() if "spawn_main" in said or said.startswith("ray::IDLE")]


# Processes of this machine.


@pytest.mark.slow
def test_how_a_process_ended_is_known_although_a_pool_waits_for_it_too():
    context = multiprocessing.get_context("fork")
    for _ in range(30):
        process = context.Process(target=signal.pause)
        process.start()
        pool = threading.Thread(target=process.join)
        pool.start()
        os.kill(process.pid, signal.SIGKILL)
        assert _exit_code(process) == -signal.SIGKILL
        pool.join()


@pytest.mark.slow
def test_a_killed_process_is_named_and_its_shard_is_done_by_another_one(tmp_path, capsys):
    execute = of("process", workers=1, memory=1.5, retries=1)
    with kept(execute):
        found = run_shards(partial(killed, tmp_path, 1), range(6), 6, CPU, execute=execute)
        assert [value for value, _ in found] == [0, 2, 4, 6, 8, 10]
        assert len({process for _, process in found}) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert "was ended by SIGKILL, as the system does when memory is lacking); its shard is sent to" in said
        # Now it is lost every time.
        with pytest.raises(
            WorkerError, match=r"its worker was lost 2 time\(s\), last: process \d+ was ended by SIGKILL"
        ):
            run_shards(partial(killed, tmp_path, 99), range(6), 6, CPU, execute=execute)
        # The next run has a worker again. One that needs too much memory is refused it, and ends nothing.
        with pytest.raises(WorkerError, match=r"its worker had too little memory, 2 time\(s\).*--memory"):
            run_shards(greedy, range(4), 4, CPU, execute=execute)
    assert not workers_of(os.getpid())


DRIVER = """
import sys
from pathlib import Path
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.writing.encoding import encode_samples

rows, codec, store = map(Path, sys.argv[1:])
print("begun", flush=True)

def progress(count):
    print("part", flush=True)
    sys.stdin.readline()

params, execute = EncodeParams(layout="list", device="cpu"), ExecuteParams(name="process", workers=1)
encode_samples(SampleSet.open(rows), codec, store, params, name="tiny", git={}, execute=execute, progress=progress)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_workers_end_with_their_run_and_the_next_one_takes_up_what_is_finished(number, rows, codec, expected, tmp_path):
    store = tmp_path / "store"
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, rows, codec, store],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    )  # fmt: skip
    assert [driver.stdout.readline() for _ in range(2)] == ["begun\n", "part\n"]
    (worker,) = workers_of(driver.pid)
    os.killpg(driver.pid, number) if number == signal.SIGINT else driver.kill()
    _, said = driver.communicate()
    worker.wait(timeout=20)
    assert not store.exists()
    assert said.count("Traceback") == (number == signal.SIGINT)  # of the driver alone
    (left,) = unfinished_work(store)
    finished = {path: path.stat().st_mtime_ns for path in left.glob("part-*")}
    assert finished
    encode(rows, codec, store)
    assert bytes_of(store) == expected
    assert all((store / path.name).stat().st_mtime_ns == time for path, time in finished.items())


# Clusters.


def nothing():
    return None


def gpus_of_this_task(_):
    import ray

    return ray.get_gpu_ids()


@pytest.mark.slow
def test_a_node_of_ray_is_lost(rows, codec, expected, tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("ab" * 32)
    for name, value in {"AUTH_MODE": "token", "AUTH_TOKEN_PATH": str(token), "USAGE_STATS_ENABLED": "0"}.items():
        monkeypatch.setenv(f"RAY_{name}", value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    from ray.cluster_utils import Cluster

    read_environment_again()
    options = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the paths of its sockets have to be short
    monkeypatch.setenv("RAY_TMPDIR", folder)
    cluster = Cluster(initialize_head=True, head_node_args=options)
    try:
        lost = []

        def lose(count):
            if not lost:
                lost.append(second)
                cluster.remove_node(second, allow_graceful=False)

        execute = of("ray", address=cluster.address)
        with kept(execute):
            refuse(execute)
            with engine_for(execute, 2) as engine:
                with pytest.raises(WorkerError, match=r"no GPUs; .* or choose --device cpu"):
                    engine.greet(nothing, on_gpu=True)
                # Ray takes our word for it.
                second = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=80 << 20)
                cluster.wait_for_nodes()
                assert engine.greet(nothing, on_gpu=True) == [None]
                assert engine.at_hand == 2
                assert engine.result(engine.submit(gpus_of_this_task, None)) == [0]
            encode_with(rows, codec, tmp_path / "store", execute, lose)
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    assert lost
    assert bytes_of(tmp_path / "store") == expected


@pytest.fixture(scope="module")
def dask():
    """A cluster of Dask that was there before: two workers on this machine."""
    with dask_cluster(2) as cluster:
        yield cluster


def dask_cluster(workers):
    from distributed import LocalCluster

    options = {"threads_per_worker": 1, "memory_limit": None, "host": "127.0.0.1", "silence_logs": 50}
    ports = {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    return LocalCluster(n_workers=workers, **options, **ports)


@pytest.mark.slow
def test_a_worker_of_dask_is_killed(rows, codec, expected, tmp_path, dask):
    lost = []

    def kill(count):
        if not lost:
            lost.append(workers_of(os.getpid())[0])
            lost[0].kill()

    execute = of("dask", address=dask.scheduler_address)
    with kept(execute):
        refuse(execute)
        encode_with(rows, codec, tmp_path / "store", execute, kill)
    assert lost
    assert bytes_of(tmp_path / "store") == expected


# Workers that are not as they have to be.


def test_a_worker_says_what_is_not_as_it_is_here(codec, tmp_path):
    random_codec(tmp_path / "floats")
    (tmp_path / "file").write_text("x")
    with lent(Codec.load(codec)) as integers, lent(Codec.load(tmp_path / "floats")) as floats:
        there = Greeting.to_a_cluster(integers, [tmp_path / "file"])
        assert there.problem() is None
        other = dict(there.versions) | {"pyarrow": "1.0"}
        for greeting, sentence in (
            (
                replace(there, versions=tuple(other.items())),
                "has pyarrow .*, expected 1.0 as here; install that version",
            ),
            (replace(there, code="0" * 64), "runs other code of ae-pipeline .* than is here"),
            (
                replace(there, sights=(Sight(str(tmp_path / "file"), 1, 5),)),
                "does not see .*/file as it is here; give the",
            ),
            (
                replace(Greeting.to_a_cluster(floats, []), processor="z80"),
                "another kind of processor .*here: z80.*floats",
            ),
        ):
            assert re.search(f"^the worker on .* {sentence}", greeting.problem()), greeting.problem()
        assert not there.processor  # integers are the same on all of them


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"name": "ray", "address": "127.0.0.1:9"},
            r"the Ray cluster at 127.0.0.1:9 cannot be reached: .*refused; give",
        ),
        ({"name": "ray", "address": "head"}, r"the Ray cluster at head cannot be reached: .*as host:port"),
        ({"name": "dask", "address": "tcp://127.0.0.1:9"}, r"the Dask cluster at tcp://127.0.0.1:9 cannot be reached"),
    ],
)
@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named(settings, said, rows, codec, tmp_path, monkeypatch):
    monkeypatch.setattr("ae_pipeline.store.executors.on_dask._BEGIN_S", 0.2)
    with pytest.raises(UnreachableError, match=said):
        encode_with(rows, codec, tmp_path / "store", of(**settings))


# Machines that share no disk.


@contextmanager
def worker_without_our_files(scheduler, log):
    """A worker of Dask with a temporary folder of its own."""
    own = tempfile.gettempdir()
    command = f"mount -t tmpfs tmpfs {own} && exec {sys.executable} -m distributed.cli.dask_worker {scheduler}"
    options = f"--nthreads 1 --no-nanny --no-dashboard --memory-limit 0 --host 127.0.0.1 --local-directory {own}"
    with open(log, "wb") as output:
        worker = subprocess.Popen(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", f"{command} {options}"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield
    finally:
        worker.terminate()
        worker.wait()


@pytest.fixture
def far_away(tmp_path):
    if subprocess.run(["unshare", "--map-root-user", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("a worker cannot have a temporary folder of its own here")
    with (
        dask_cluster(0) as cluster,
        worker_without_our_files(cluster.scheduler_address, tmp_path / "log"),
    ):
        yield of("dask", address=cluster.scheduler_address)


@pytest.mark.slow
@pytest.mark.server
def test_machines_that_share_no_disk_need_data_and_stores_at_urls(s3, far_away, rows, codec, expected, tmp_path):
    with kept(far_away):
        with pytest.raises(WorkerError, match=r"does not see .* as it is here; give the cluster a disk .* or .* s3://"):
            encode_with(rows, codec, tmp_path / "store", far_away)
        assert not unfinished_work(tmp_path / "store")
        put(s3, rows, "rows")
        there = open_data("s3://bucket/rows", None, None)
        params = EncodeParams(layout="list", device="cpu")
        options = {"name": "tiny", "git": {}, "execute": far_away}
        made = encode_samples(there, codec, "s3://bucket/far", params, **options)
        assert s3.objects("bucket", "far/") == expected
        verified = verify_store("s3://bucket/far", execute=far_away)
        assert verified.whole
        for write in (
            lambda: verify_deep("s3://bucket/far", verified, ["s3://bucket/rows"], "cpu", lambda rows: None, far_away),
            lambda: decode_store(made, tmp_path / "decoded", device="cpu", execute=far_away),
        ):
            with pytest.raises(WorkerError, match="does not see"):
                write()


@pytest.mark.slow
def test_a_cluster_without_workers_is_named(rows, codec, tmp_path, monkeypatch):
    monkeypatch.setattr("ae_pipeline.store.executors.on_dask._BEGIN_S", 0.5)
    said = r"the Dask cluster at .* has no workers; start some"
    with dask_cluster(0) as cluster, pytest.raises(WorkerError, match=said):
        encode_with(rows, codec, tmp_path / "store", of("dask", address=cluster.scheduler_address))


# Object stores.


@pytest.fixture(scope="module")
def s3():
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        server.lead_here(patch)
        server.make_bucket("bucket")
        yield server


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("name", ["threads", "process"])
def test_an_object_store_that_is_slow_refuses_or_hangs_up(name, s3, rows, codec, expected):
    refused = set()

    def fail(asked):
        if asked.method == "PUT" and "part-" in asked.key and asked.key not in refused:
            refused.add(asked.key)
            if len(refused) % 3 == 0:
                time.sleep(0.3)
                return None
            return Response(status=503) if len(refused) % 3 else HangUp()
        return None

    s3.hooks.append(fail)
    encode_with(rows, codec, f"s3://bucket/{name}", of(name, workers=1))
    s3.hooks.clear()
    assert len(refused) == SHARDS
    assert s3.objects("bucket", f"{name}/") == expected


@pytest.mark.server
def test_a_partial_store_in_an_object_store_is_completed_there(s3, rows, codec, expected, tmp_path):
    data = tmp_path / "rows"
    shutil.copytree(rows, data)
    whole = (data / "3.parquet").read_bytes()
    (data / "3.parquet").write_bytes(whole[:4] + b"\xff" * 40 + whole[44:])
    params = EncodeParams(layout="list", device="cpu")
    options = {"name": "tiny", "git": {}, "allow_partial": True}
    store = encode_samples(SampleSet.open(data), codec, "s3://bucket/partial", params, **options)
    assert [entry.number for entry in store.manifest.missing] == [3]
    (data / "3.parquet").write_bytes(whole)
    store = encode_samples(SampleSet.open(data), codec, "s3://bucket/partial", params, **options)
    assert (store.manifest.snapshot, store.manifest.missing) == (2, [])
    made = s3.objects("bucket", "partial/")
    assert {name: made[name] for name in made if "part-" in name} == {
        name: expected[name] for name in expected if "part-" in name
    }
    assert verify_store("s3://bucket/partial").whole


class HangUp(Response):
    """The connection is closed before the answer is whole."""

    def __call__(self, _, start_response):
        start_response("200 OK", [("Content-Length", "500"), ("Connection", "close")])
        return [b"x"]
