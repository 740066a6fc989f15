"""Small real things that many tests share, built once per session: a prepared data set, parameters, a trained codec."""

# ruff: noqa: E402 (the environment is read when torch is imported)
import os

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

from pathlib import Path

import pytest
import torch
from handmade import random_codec

from ae_pipeline.codec_building import build_codec
from ae_pipeline.params import Params
from ae_pipeline.preparation import write_splits
from ae_pipeline.samples import SampleSet
from ae_pipeline.sources import build_source
from ae_pipeline.sources.mirrors import MIRROR_VARIABLE, fetch_verified, local_mirror
from ae_pipeline.sources.mnist import PINS

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


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
            "model": {"name": "dense", "dense": {"hidden_sizes": [32], "activation": "relu"}},
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
def mnist_raw(tmp_path_factory) -> Path:
    """The four verified IDX files of MNIST, uncompressed; from a local mirror only."""
    mirror = os.environ.get(MIRROR_VARIABLE) or str(SHARED_DATA)
    if not Path(mirror).is_dir():
        pytest.skip(f"real MNIST is not here: set {MIRROR_VARIABLE} to a folder with its files, or add {SHARED_DATA}")
    raw = tmp_path_factory.mktemp("mnist-raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MIRROR_VARIABLE, mirror)
        fetch_verified(PINS, local_mirror("mnist"), raw, "the mirror that the tests use does not hold MNIST")
    return raw
