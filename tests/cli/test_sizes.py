"""Sizes are checked before anything is read: no file of three gigabytes takes memory for long, whoever reads it.

The files are sparse: `truncate -s 3G` takes no room on the disk. A reader that reads one in spite of all takes as much
memory, which the process that reads tells of itself.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from handmade import random_codec, random_pixels, write_rows

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DamagedPartError, DataError
from ae_pipeline.files import read_small, sha256_json, write_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format.manifest import MANIFEST_NAME
from ae_pipeline.store.format.verified_file import VerifiedFile
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing.appending import append_samples

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_commands")]

HUGE = 3 << 30
# Runs a command of the command line, and says what it took beside that. Reading 3 GiB takes 3 GiB.
RUN = """
import resource, sys
from ae_pipeline.cli.main import app
from ae_pipeline.errors import exit_code_of
import ae_pipeline.store.care.verify, ae_pipeline.store.care.repair
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    code = exit_code_of(app)
except SystemExit as end:
    code = end.code
print("took", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, "ended", code)
"""
MOST_KIBIBYTES = 400 << 10


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A codec, two data sets, and a store of two snapshots."""
    folder = tmp_path_factory.mktemp("sizes")
    random_codec(folder / "codec")
    for number in range(2):
        write_rows(folder / f"{number}.parquet", random_pixels((20, 5, 4), "uint8", number), id=list(range(20)))
        sets = [SampleSet.open(folder / f"{number}.parquet")]
        append_samples(folder / "store", sets, folder / "codec", EncodeParams(device="cpu"), name="x", git={})
    return folder


@pytest.fixture
def place(made, tmp_path):
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def enlarge(path, size=HUGE):
    path.touch()
    os.truncate(path, size)


def run(cwd, *arguments):
    """Exit code and all output of a command, whose memory is held to little."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)], capture_output=True, text=True, check=True, cwd=cwd,
        timeout=100,
    )  # fmt: skip
    result, told = done.stdout.splitlines()[-1].split(), done.stdout + done.stderr
    assert int(result[1]) < MOST_KIBIBYTES, told
    return int(result[3]), told


@pytest.mark.parametrize("command", ["info", "decode", "verify", "repair", "append", "vacuum"])
def test_a_manifest_of_gigabytes_is_refused_before_it_is_read(command, place):
    enlarge(place / "store" / MANIFEST_NAME)
    more = {"decode": ["--out", "out"], "repair": ["--source", "0.parquet"], "append": ["0.parquet"]}
    code, told = run(place, command, "store", *more.get(command, []))
    assert code == 1
    assert "3221225472 bytes, expected at most 268435456" in told


def test_a_manifest_of_gigabytes_comes_back_from_the_data(place):
    before = (place / "store" / MANIFEST_NAME).read_bytes()
    enlarge(place / "store" / MANIFEST_NAME)
    sources = ["--source", "0.parquet", "--source", "1.parquet"]
    assert run(place, "repair", "store", *sources, "--accept-new-bytes", "--device", "cpu")[0] == 0
    after = (place / "store" / MANIFEST_NAME).read_bytes()
    assert json.loads(after)["parts"] == json.loads(before)["parts"]
    assert verify_store(place / "store").whole


@pytest.mark.parametrize(
    "name", ["_snapshots/1.json", "_snapshots/vacuumed.json", "_codec/codec.json", "_codec/weights.safetensors", "part"]
)
def test_verify_reads_no_file_of_gigabytes_into_memory(name, place):
    store = place / "store"
    name = LatentStore.open(store).manifest.parts[0].name if name == "part" else name
    enlarge(store / name)
    code, told = run(place, "verify", "store")
    assert code == 1
    assert name in told


@pytest.mark.parametrize("name", ["codec.json", "weights.safetensors"])
def test_a_codec_of_gigabytes_is_refused(name, place):
    enlarge(place / "codec" / name, 1 << 30)
    code, told = run(place, "encode", "0.parquet", "--codec", "codec", "--store", "new", "--device", "cpu")
    assert code == 1
    assert name in told


WORKSPACE = """
import resource, sys
from pathlib import Path
from ae_pipeline.errors import PipelineError
from ae_pipeline.evaluation.drift.reference import read_reference
from ae_pipeline.operation.inbox.files.ledger import Ledger
from ae_pipeline.params import load_params
from ae_pipeline.experiments.sweep.study import open_study
from ae_pipeline.evaluation.measures.metrics import METRICS
from ae_pipeline.files import HISTORY, read_csv
from ae_pipeline.operation.tracking.dvc_lock import read_stages
from ae_pipeline.operation.tracking.workspace import read_values
def study(path):
    with open_study(path, [], [], METRICS["mse"], grid=True):
        pass
import optuna, sqlalchemy
readers = {
    "metrics.json": read_values, "round_trip.json": read_values, "history.csv": lambda path: read_csv(path, HISTORY),
    "drift_reference.json": read_reference, "params.yaml": load_params,
    "dvc.lock": lambda path: read_stages(path.parent), "optuna.db": study,
    "ledger.json": lambda path: Ledger(path, "inbox"),
}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, read in readers.items():
    try:
        read(Path(name))
    except PipelineError as error:
        print(error)
print("took", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_no_file_of_a_workspace_of_gigabytes_is_read(tmp_path):
    refused = ["metrics.json", "round_trip.json", "history.csv", "drift_reference.json", "params.yaml", "dvc.lock"]
    # SQLite does not read what is no page of its own; a ledger is a cache.
    for name in (*refused, "optuna.db", "ledger.json"):
        enlarge(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", WORKSPACE], capture_output=True, text=True, check=True, timeout=100, cwd=tmp_path
    )
    *lines, last = done.stdout.splitlines()
    assert int(last.split()[1]) < 50 << 10
    for line, name in zip(lines, refused, strict=False):
        assert name in line
        assert "it has 3,221,225,472 bytes, expected at most" in line


def test_what_is_small_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_small(tmp_path / "a", 5) == b"12345"
    with pytest.raises(ValueError, match="it has 5 bytes, expected at most 4"):
        read_small(tmp_path / "a", 4)


def test_a_footer_that_says_to_be_gigabytes_is_refused_in_data_and_in_stores(place):
    path = place / "0.parquet"
    enlarge(path)
    with open(path, "r+b") as file:
        file.seek(HUGE - 8)
        file.write((HUGE - 100).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(DataError, match="its footer has 3,221,225,372 bytes, at most 268,435,456 are allowed"):
        SampleSet.open(path)


def test_a_piece_of_gigabytes_is_refused_before_it_is_read(place):
    """A manifest that agrees with its digest may still ask for anything."""
    store = LatentStore.open(place / "store")
    part = store.manifest.parts[0]
    enlarge(store.path / part.name, 1 << 30)
    values = json.loads((store.path / MANIFEST_NAME).read_bytes())
    values["parts"][0] |= {"bytes": 1 << 30, "pieces": [f"{(1 << 30) - 100}:{'0' * 32}", f"100:{'0' * 32}"]}
    values.pop("digest")
    write_json(store.path / MANIFEST_NAME, {**values, "digest": sha256_json(values)})
    with pytest.raises(DamagedPartError, match="has 1073741724 bytes in one piece, at most 553648128 are allowed"):
        list(LatentStore.open(store.path).scan())
    code, told = run(place, "verify", "store")
    assert code == 1
    assert "were changed" in told


def test_a_repair_without_data_leaves_a_manifest_of_gigabytes_alone(place):
    enlarge(place / "store" / MANIFEST_NAME)
    done = repair_store(place / "store", [], git={})
    assert MANIFEST_NAME in done.failed
    assert (place / "store" / MANIFEST_NAME).stat().st_size == HUGE


def test_a_chunk_of_gigabytes_in_a_store_without_pieces_is_refused_before_it_is_read(tmp_path):
    golden = Path(__file__).parents[1] / "golden" / "store-v1"
    shutil.copytree(golden, tmp_path / "store")
    store = LatentStore.open(tmp_path / "store")
    file = VerifiedFile(store.storage, store.manifest.parts[0])
    file._part = replace(file._part, bytes=HUGE)
    with pytest.raises(ValueError, match="in one piece"):
        file.read(HUGE - 1)


def test_weights_of_gigabytes_in_a_store_are_refused_by_the_manifest_before_they_are_read(ae, place, tmp_path):
    store = place / "store"
    enlarge(store / "_codec" / "weights.safetensors")
    code, _, err = ae("decode", store, "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (1, 1)
    assert "weights.safetensors has 3,221,225,472 bytes, more than the whole codec" in err
    assert "run `ae-pipeline repair --codec` with a copy" in err
    assert ae("repair", store, "--codec", place / "codec")[0] == 0
    assert ae("decode", store, "--out", tmp_path / "out")[0] == 0
