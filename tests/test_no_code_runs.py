"""Files from strangers hold data: a live pickle in the place of any of them, or inside one, never runs."""

import ast
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from clone import NO_MODEL_CODE
from handmade import encode, random_codec, random_pixels, write_rows
from inboxes import put, run, settle

from ae_pipeline.cli import main
from ae_pipeline.codec_header import HEADER_NAME, WEIGHTS_NAME
from ae_pipeline.errors import PipelineError
from ae_pipeline.idx import write_idx
from ae_pipeline.params import load_params
from ae_pipeline.samples import SampleSet
from ae_pipeline.sources.idx import IdxSource
from ae_pipeline.store.decoding import load_store_codec
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.manifest import CODEC_FOLDER, MANIFEST_NAME
from ae_pipeline.store.verifying import verify_store

ROOT = Path(__file__).parents[1]


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    """The file that exists when code has run; at the end of a test it must not."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


def write_pickle(path, mark):
    path.write_bytes(pickle.dumps(Payload(mark)))


def write_torch(path, mark):
    torch.save(Payload(mark), path)


def write_numpy(path, mark):
    with path.open("wb") as file:
        np.save(file, np.array([Payload(mark)], dtype=object), allow_pickle=True)


def write_parquet(path, mark):
    """A Parquet file like the one that is there, whose columns say that a pickle tells their type."""
    table = pq.read_table(path) if pq_readable(path) else pa.table({"pixels": [b""]})
    told = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickled(mark)}
    fields = [field.with_metadata(told) for field in table.schema]
    schema = pa.schema(fields, {**(table.schema.metadata or {}), b"PANDAS": pickled(mark)})
    pq.write_table(table.cast(schema), path)


def pq_readable(path):
    return path.read_bytes()[:4] == b"PAR1"


def pickled(mark):
    return pickle.dumps(Payload(mark))


PLANTS = [write_pickle, write_torch, write_numpy, write_parquet]


@pytest.mark.parametrize("plant", [write_pickle, write_torch, write_numpy])
def test_the_payloads_are_live(plant, tmp_path):
    plant(tmp_path / "planted", tmp_path / "ran")
    if plant is write_numpy:
        np.load(tmp_path / "planted", allow_pickle=True)
    elif plant is write_torch:
        torch.load(tmp_path / "planted", weights_only=False)
    else:
        pickle.loads((tmp_path / "planted").read_bytes())
    assert (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    random_codec(folder / "codec")
    samples = write_rows(folder / "rows" / "0.parquet", random_pixels((30, 5, 4), "uint8"), id=list(range(30)))
    encode(samples, folder / "codec", folder / "store")
    write_idx_set(folder / "idx")
    return folder


def write_idx_set(folder):
    folder.mkdir()
    for prefix in ("train", "t10k"):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", random_pixels((9, 5, 4), "uint8"))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.arange(9, dtype=np.uint8))


@pytest.fixture
def copied(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "made"))


def read_store(folder):
    store = LatentStore.open(folder / "store")
    verify_store(folder / "store")  # says what is damaged, whatever it is
    list(store.scan())
    return load_store_codec(store)


def read_idx(folder):
    source = IdxSource(folder=str(folder / "idx"))
    (folder / "raw").mkdir()
    source.fetch(folder / "raw")
    for split in ("train", "test"):
        list(source.load(folder / "raw", split).batches(4))


LOADERS = {
    f"store/{MANIFEST_NAME}": read_store,
    f"store/{CODEC_FOLDER}/{HEADER_NAME}": read_store,
    f"store/{CODEC_FOLDER}/{WEIGHTS_NAME}": read_store,
    "store/part-*.parquet": read_store,
    "rows/0.parquet": lambda folder: SampleSet.open(folder / "rows").load(),
    "idx/train-images-idx3-ubyte": read_idx,
    "idx/t10k-labels-idx1-ubyte": read_idx,
}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
@pytest.mark.parametrize("name", LOADERS)
def test_no_loader_runs_what_is_planted(name, plant, copied, mark):
    (path,) = copied.glob(name)
    plant(path, mark)
    if name == "rows/0.parquet" and plant is write_parquet:
        assert SampleSet.open(copied / "rows").load().pixels.shape == (30, 5, 4)  # only what Arrow calls the types
        return
    with pytest.raises(PipelineError) as caught:
        LOADERS[name](copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".parquet", ".png", ".jpg", "-images-idx3-ubyte", ".npy", ".pkl", ".pt"])
@pytest.mark.parametrize("plant", PLANTS[:3], ids=lambda plant: plant.__name__)
def test_no_file_of_an_inbox_runs_and_the_others_are_taken(plant, suffix, made, tmp_path, mark):
    put(tmp_path / "data/inbox/good.parquet", 1)
    plant(tmp_path / f"data/inbox/bad{suffix}", mark)
    settle(tmp_path / "data/inbox")
    done = run(tmp_path, made / "codec")
    assert list(done.files) == ["good.parquet"]
    assert list(done.quarantined) == [f"bad{suffix}"]


@pytest.mark.parametrize(
    "text",
    [
        "train: !!python/object/apply:pathlib.Path.touch [{mark}]",
        "train: !!python/object/apply:os.system ['touch {mark}']",
        "!!python/object/apply:os.system ['touch {mark}']",
    ],
)
def test_parameters_run_nothing(text, tmp_path, mark):
    path = tmp_path / "params.yaml"
    path.write_text(text.format(mark=mark))
    with pytest.raises(PipelineError, match=r"params\.yaml"):
        load_params(path)


@pytest.mark.parametrize("command", [["decode", "{}", "--out", "{}/../out"], ["verify", "{}"], ["info", "{}"]])
def test_commands_end_in_one_line(command, copied, mark, capsys, monkeypatch):
    write_pickle(copied / "store" / MANIFEST_NAME, mark)
    monkeypatch.setattr(sys, "argv", ["ae-pipeline", *(word.format(copied / "store") for word in command)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "Traceback" not in capsys.readouterr().err


FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "runpy"}
FORBIDDEN_CALLS = {"eval", "exec", "load_model", "load_pyfunc", "unsafe_load", "full_load", "read_pickle", "__import__"}


@pytest.mark.parametrize("package", ["ae_pipeline", "flows"])
def test_nothing_of_ours_calls_what_could_run_a_file(package):
    found = []
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
            found += [f"{path.name}:{node.lineno} imports {name}" for name in names if name in FORBIDDEN_MODULES]
            if isinstance(node, ast.Call):
                found += [f"{path.name}:{node.lineno} {reason}" for reason in forbidden_call(node)]
    assert found == []


def forbidden_call(call):
    function = ast.unparse(call.func)
    name = function.split(".")[-1]
    # A model's own `eval()` takes no argument.
    if name in FORBIDDEN_CALLS and (isinstance(call.func, ast.Name) or name not in ("eval", "exec")):
        yield f"calls {function}"
    options = {option.arg: ast.unparse(option.value) for option in call.keywords}
    if function == "torch.load" or options.get("allow_pickle") == "True" or options.get("weights_only") == "False":
        yield f"calls {function} with {options}"


def test_the_switch_of_the_clones_bites():
    """Every command that tests run in a clone, flows and publishing included, runs with it."""
    code = "import mlflow; mlflow.pyfunc.load_model('models:/x/1')"
    environment = {**os.environ, **NO_MODEL_CODE, "MLFLOW_TRACKING_URI": "sqlite://"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "RuntimeError: an MLflow model loader was called" in done.stderr
