"""Small real things that several files of tests share: data sets, codecs, published trainings, checkouts, a server."""

# ruff: noqa: E402 (the environment is read when torch is imported)
import os
import shutil
import tempfile
from pathlib import Path

# Before torch is imported: threads that do not fight for the cores, and no library that calls home.
for _name, _value in {
    "GOMP_SPINCOUNT": "1000",
    "OMP_NUM_THREADS": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}.items():
    os.environ.setdefault(_name, _value)
# What tests write is soon removed. In memory, where there is plenty, nobody waits for a disk to have it safely.
_MEMORY, _PLENTY, _IN_MEMORY = Path("/dev/shm"), 8 << 30, None
if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _PLENTY:
    for _left in _MEMORY.glob("ae-tests-*-*"):  # of tests that failed in a run that is over
        if not Path("/proc", _left.name.split("-")[2]).exists():
            shutil.rmtree(_left, ignore_errors=True)
    _IN_MEMORY = Path(tempfile.mkdtemp(prefix=f"ae-tests-{os.getpid()}-", dir=_MEMORY))
    _IN_MEMORY.chmod(0o711)  # PostgreSQL works for nobody who may do everything: it has a user of its own
    os.environ["TMPDIR"], tempfile.tempdir = str(_IN_MEMORY), None
# Hundreds of commands import the package from copies of this checkout: each would compile all of it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import gc
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import warm

pytest.register_assert_rewrite("faults")

from clone import Clone
from drifting import DRIFT_PARAMS, encoded
from guarding import SWITCH, Guard
from handmade import random_codec, write_rows
from ready import share, shared
from real_mnist import real_mnist

from ae_pipeline.cli.main import main
from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.idx import open_idx
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import write_splits
from ae_pipeline.errors import DownloadError
from ae_pipeline.evaluation.baselines import build_pca_codec
from ae_pipeline.evaluation.drift.fit import fit_reference
from ae_pipeline.operation.tracking.location import settle_location
from ae_pipeline.params import Params, load_params
from ae_pipeline.params.operation import DriftParams
from ae_pipeline.sources import build_source
from ae_pipeline.training.build import build_codec

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config):
    config.add_cleanup(share())  # before any worker starts: they inherit the folder's name


def pytest_sessionfinish(exitstatus):
    """Give the memory back; what tests that failed have written stays to be looked at."""
    if _IN_MEMORY and exitstatus != pytest.ExitCode.TESTS_FAILED:
        shutil.rmtree(_IN_MEMORY, ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Put the files that take longest first, so that none of them is left for one process in the end."""
    brief = {item.path for item in items if not item.get_closest_marker("slow")}
    served = {item.path for item in items if item.get_closest_marker("server")}
    items.sort(key=lambda item: (item.path in brief, item.path not in served))  # a file's tests stay together


def pytest_collection_finish():
    """Libraries and tests are there to stay: looking through a million objects of theirs took a twentieth of all.

    Once they were looked through, only what came since is.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def tiny_params() -> Params:
    """What `synthetic_prepared` and `tiny_codec` are made with; trains in about a second on the CPU."""
    return Params.model_validate(
        {
            "source": {
                "name": "synthetic",
                "synthetic": {"train_rows": 600, "test_rows": 150, "height": 12, "width": 12},
            },
            "prepare": {"rows_per_shard": 200},
            "model": {"name": "dense", "dense": {"hidden_sizes": [32], "hidden_norm": "none", "activation": "relu"}},
            "train": {"latent_size": 6, "epochs": 8, "batch_size": 64, "learning_rate": 3e-3, "device": "cpu"},
            "quantiser": {"levels": 16},
            "encode": {"device": "cpu"},
        }
    )


@pytest.fixture(scope="session")
def synthetic_prepared(tiny_params, tmp_path_factory) -> Path:
    """A folder with train (540 rows in 3 shards), validation (60 rows) and test (150 rows), uint8 12x12."""
    raw = tmp_path_factory.mktemp("synthetic-raw")
    prepared = tmp_path_factory.mktemp("synthetic-prepared")
    source = build_source(tiny_params.source)
    source.fetch(raw)
    write_splits(source.read(raw), prepared, tiny_params.prepare)
    return prepared


@pytest.fixture(scope="session")
def tiny_codec(synthetic_prepared, tiny_params, tmp_path_factory) -> Path:
    """The folder of a codec trained on `synthetic_prepared`."""
    folder = tmp_path_factory.mktemp("tiny") / "codec"
    build_codec(
        SampleSet.open(synthetic_prepared / "train"),
        SampleSet.open(synthetic_prepared / "validation"),
        tiny_params,
        folder,
        {"commit": None, "dirty": None},
        lambda epoch: None,
    )
    return folder


@pytest.fixture(scope="session")
def codec(tmp_path_factory) -> Path:
    """The folder of an untrained codec for uint8 5x4."""
    folder = tmp_path_factory.mktemp("untrained") / "codec"
    random_codec(folder)
    return folder


@pytest.fixture
def box(tmp_path) -> Path:
    """The inbox of the checkout `tmp_path`, empty."""
    folder = tmp_path / "data" / "inbox"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def mnist_raw(request, tmp_path_factory) -> Path:
    """The four verified IDX files of MNIST, uncompressed: what `make run` fetched, or fetched once and kept."""
    cache = getattr(request.config, "cache", None)  # None with `-p no:cacheprovider`
    try:
        return real_mnist(ROOT, cache.mkdir("mnist") if cache else tmp_path_factory.mktemp("mnist-raw"))
    except DownloadError as error:
        pytest.skip(f"needs MNIST: {error}")


@pytest.fixture(scope="session")
def shuffled_mnist(mnist_raw):
    """A shuffle of MNIST's test images (10,000, 28, 28), their labels, and 12,000 train images."""
    test = open_idx(mnist_raw / "t10k-images-idx3-ubyte")
    labels = open_idx(mnist_raw / "t10k-labels-idx1-ubyte")
    order = np.random.default_rng(0).permutation(len(test))
    return test[order], labels[order], open_idx(mnist_raw / "train-images-idx3-ubyte")[:12_000]


@pytest.fixture(scope="session")
def calibrated(shuffled_mnist, tmp_path_factory):
    """PCA of 12,000 train images, and its reference, calibrated on the first 6,000 of the shuffled test images."""
    folder = tmp_path_factory.mktemp("calibrated")
    test, _, train = shuffled_mnist
    train = write_rows(folder / "train.parquet", train)
    held_out = write_rows(folder / "held_out.parquet", test[:6000])
    build_pca_codec(train, 16, 16, Scaling(offset=0.0, scale=255.0), folder / "codec")
    return folder / "codec", fit_reference(folder / "codec", train, held_out, DRIFT_PARAMS, 0, device="cpu")


@pytest.fixture(scope="session")
def fresh(shuffled_mnist, calibrated):
    """Images, latents and errors of 4,000 test images that neither codec nor thresholds have seen."""
    return shuffled_mnist[0][6000:], *encoded(calibrated[0], shuffled_mnist[0][6000:])


@pytest.fixture(scope="session")
def tiny_reference(synthetic_prepared, tiny_codec):
    """A drift reference of the tiny codec: 540 train rows, 150 held-out ones."""
    splits = [SampleSet.open(synthetic_prepared / name) for name in ("train", "test")]
    return fit_reference(tiny_codec, *splits, DriftParams(), 0, device="cpu")


@pytest.fixture
def mark(tmp_path):
    """The file that live payloads create. In the end it is not there, and no unpickler has looked up a name."""
    from payloads import unpickled_names

    with unpickled_names() as names:
        yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists()
    assert names == []


@pytest.fixture(scope="session")
def published(tiny_params, tmp_path_factory):
    """A workspace that published three trainings, each better than the one before: versions 1, 2 and 3."""
    from trainings import published_three

    root = tmp_path_factory.mktemp("published")
    # Made once for all processes of a test run; each has a store of its own, whose addresses lead to itself.
    shutil.copytree(shared("published", partial(published_three, params=tiny_params)), root, dirs_exist_ok=True)
    settle_location(root / "mlruns/mlflow.db", ("ae-pipeline",))
    params = load_params(root / "params.yaml")
    shutil.copytree(root / "mlruns", root / "as_published")
    return root, params


@pytest.fixture
def workspace(published, tmp_path, monkeypatch):
    """The same before each test: a copy of the database (MLflow keeps one open for each address), and the artifacts
    put back where they were, for their addresses are absolute."""
    root, params = published
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(root)
    shutil.copy(root / "as_published/mlflow.db", tmp_path)
    shutil.rmtree(root / "mlruns/artifacts")
    shutil.copytree(root / "as_published/artifacts", root / "mlruns/artifacts")
    return root, params


@pytest.fixture
def ae(monkeypatch, capsys):
    """Run `ae-pipeline ARGUMENTS` in this process; returns exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ae-pipeline", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    """MLflow's model loaders are replaced in the processes of a clone: none may have been called in the end."""
    guard = Guard(tmp_path_factory.mktemp("guard"))
    yield guard
    assert guard.calls == []
    assert {line.split()[1] for line in guard.switches} <= {"false"}


@pytest.fixture(scope="module")
def warm_commands(tmp_path_factory):
    """Commands and scripts that this process starts begin with the libraries loaded; see tests/support/warm.py."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**Guard(tmp_path_factory.mktemp("warm")).environment, **warm.environment()}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def clone(tmp_path_factory, guard):
    """A checkout in which nothing has been built; the tests of a file build on each other in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv(SWITCH, raising=False)
        for name, value in {**guard.environment, **warm.environment()}.items():
            patch.setenv(name, value)
        yield Clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Prefect server on loopback."""
    from prefect_server import PrefectServer

    with PrefectServer(tmp_path_factory.mktemp("prefect")) as server:
        yield server


@pytest.fixture(scope="module")
def run_flow(clone, server, tmp_path_factory):
    """Run a flow as a program, the first time from nothing; returns its record in Prefect."""
    from warm_flows import WarmFlows

    log = tmp_path_factory.mktemp("flows") / "log"
    were_run = set()
    with WarmFlows(clone.folder, clone.environment(**server.environment)) as warm:

        def run(name, *arguments, check=True):
            if name in were_run:
                code, output = warm.run(name, arguments, log)
                assert not check or code == 0, output
            else:
                clone.run(sys.executable, "-m", f"flows.{name}", *arguments, check=check, **server.environment)
                were_run.add(name)
            return server.runs()[-1]

        yield run


@pytest.fixture
def start_flow(clone, server):
    """Start a flow as a program that runs beside the test."""
    started = []

    def start(name, *arguments):
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", f"flows.{name}", *arguments],
                cwd=clone.folder,
                env={**os.environ, **server.environment, **warm.COLD},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
