"""`ae-pipeline check` and the start of `train`: what can be known before training is said before it, all at once."""

import gzip
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from handmade import write_rows
from ruamel.yaml import YAML

from ae_pipeline.cli.preflight import preflight
from ae_pipeline.cli.stages import run_stage
from ae_pipeline.data.idx import describe_idx, write_idx
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import ConfigError, WorkspaceError
from ae_pipeline.params import MNIST_MAX_MSE, Params, load_params
from ae_pipeline.provenance import code_digests
from ae_pipeline.sources import build_source
from ae_pipeline.training.outlook import check_fits, look_ahead, size_warnings

PARAMS = Path(__file__).parents[2] / "params.yaml"
_PATH = {"linear_path": True, "latent_norm": "none", "output_activation": "linear"}
LINEAR = {"name": "dense", "dense": _PATH}
SYNTHETIC = {"source": {"name": "synthetic", "synthetic": {"train_rows": 300, "test_rows": 60}}}


def params_of(*trees):
    merged = {}
    for tree in trees:
        for section, values in tree.items():
            merged[section] = {**merged.get(section, {}), **values}
    return Params.model_validate(merged)


@pytest.fixture
def check(ae, tmp_path, monkeypatch):
    """`ae-pipeline check` of these sections of params.yaml, in an empty checkout."""
    monkeypatch.chdir(tmp_path)

    def run(**tree):
        YAML().dump(tree, tmp_path / "params.yaml")
        return ae("check")

    return run


def idx_folder(folder, *, shape=(6, 5), rows=40, **changes):
    """MNIST's four names; `changes` replace a file's bytes, or leave it out with None."""
    folder.mkdir()
    for prefix in ("train", "t10k"):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", np.zeros((rows, *shape), np.uint8))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.zeros(rows, np.uint8))
    for name, change in changes.items():
        path = next(folder.glob(name.replace("_", "-") + "*"))
        path.unlink() if change is None else path.write_bytes(change(path.read_bytes()))
    return folder


def test_the_defaults_are_fine_and_say_nothing(ae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(PARAMS, "params.yaml")
    assert ae("check") == (0, "", "")
    assert load_params(tmp_path / "params.yaml").evaluate.gate.max_mse == MNIST_MAX_MSE


def test_check_loads_neither_torch_nor_mlflow(tmp_path):
    shutil.copy(PARAMS, tmp_path / "params.yaml")
    script = (
        "import sys; sys.argv = ['ae-pipeline', 'check']\n"
        "from ae_pipeline.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'torch', 'mlflow', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# IDX files.


def test_an_idx_folder_that_is_not_there_is_an_error(check):
    code, _, err = check(source={"name": "idx"})
    assert code == 1
    assert "error: no folder data/idx; set source.idx.folder" in err


FEW = struct.pack(">HBBI", 0, 8, 1, 3) + b"abc"
HEAD = struct.pack(">HBB3I", 0, 8, 3, 40, 6, 5)
BAD_FILES = {
    "no test images": ({"t10k_images": None}, "no test images in "),
    "not IDX": ({"train_images": lambda now: b"<!DOCTYPE html>"}, "is not an IDX file"),
    "cut off": ({"train_images": lambda now: now[:-3]}, "expected 1216 for shape [40, 6, 5]"),
    "cut off in its header": ({"t10k_images": lambda now: now[:9]}, "is truncated in its header"),
    "other shape": ({"t10k_images": lambda now: HEAD[:8] + struct.pack(">2I", 5, 6) + now[16:]}, "differ in shape"),
    "other type": (
        {"t10k_images": lambda now: now[:2] + b"\x09" + now[3:]},
        "differ in type: {'train': 'uint8', 'test",
    ),
    "too few labels": ({"train_labels": lambda now: FEW}, "one label for each of 40"),
    "not gzip": ({"train_images": lambda now: b"\x1f\x8bxx"}, "is truncated or damaged"),
    "gzipped, too few labels": ({"train_labels": lambda now: gzip.compress(FEW)}, "one label for each of 40"),
}


@pytest.mark.parametrize(("changes", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_idx_files_that_download_would_refuse_are_refused_before(check, tmp_path, changes, words):
    idx_folder(tmp_path / "mine", **changes)
    code, _, err = check(source={"name": "idx", "idx": {"folder": "mine"}})
    assert code == 1
    assert words in err
    assert err.count("error: ") == 1


def test_good_idx_files_pass_gzipped_or_not(check, tmp_path):
    folder = idx_folder(tmp_path / "mine", t10k_images=gzip.compress)
    assert check(source={"name": "idx", "idx": {"folder": "mine"}}, train={"latent_size": 4})[::2] == (0, "")
    dtype, shape = describe_idx(folder / "t10k-images-idx3-ubyte")
    assert (dtype, shape) == (np.uint8, (40, 6, 5))
    announced = build_source(params_of({"source": {"name": "idx", "idx": {"folder": str(folder)}}}).source).announce()
    assert (announced.spec.shape, announced.train_rows, announced.test_rows) == ((6, 5), 40, 40)


@pytest.mark.parametrize("changed", [False, True])
def test_a_folder_that_is_gone_is_no_error_where_its_files_are_in_the_workspace(check, tmp_path, changed):
    """DVC would not run `download` again, unless its code or the source's name or options changed."""
    (tmp_path / "data/raw").mkdir(parents=True)
    code = {"ae_pipeline/sources/idx": code_digests()["ae_pipeline/sources/idx"]}
    folder = "mine" if changed else "gone"
    used = {"params.yaml": {"source.name": "idx", "source.idx": {"folder": folder}}, "code.json": code}
    YAML().dump({"stages": {"download": {"params": used}}}, tmp_path / "dvc.lock")
    assert check(source={"name": "idx", "idx": {"folder": "gone"}})[0] == int(changed)
    for other in ({"ae_pipeline/sources/idx": "0" * 64}, {"ae_pipeline/sources/gone": "0" * 64}, 1):
        YAML().dump({"stages": {"download": {"params": {**used, "code.json": other}}}}, tmp_path / "dvc.lock")
        assert check(source={"name": "idx", "idx": {"folder": "gone"}})[0] == 1


def test_an_option_that_came_with_a_later_version_makes_no_other_source(check, tmp_path):
    (tmp_path / "data/raw").mkdir(parents=True)
    code = {"ae_pipeline/sources/files": code_digests()["ae_pipeline/sources/files"]}
    former = {"path": "gone", "kind": "vector", "test_fraction": 0.1}
    used = {"params.yaml": {"source.name": "files", "source.files": former}, "code.json": code}
    YAML().dump({"stages": {"download": {"params": used}}}, tmp_path / "dvc.lock")
    assert check(source={"name": "files", "files": former}, model=LINEAR)[0] == 0
    assert check(source={"name": "files", "files": {**former, "group": "speaker"}}, model=LINEAR)[0] == 1


# Settings that do not go together.


def test_what_would_fail_in_several_stages_is_said_in_one_line(check, tmp_path):
    wide = {"train_rows": 1, "test_rows": 10, "height": 100, "width": 100}
    (tmp_path / "reports").write_text("a file")
    code, _, err = check(source={"name": "synthetic", "synthetic": wide}, model=LINEAR)
    assert code == 1
    assert "paths.reports" in err
    assert "begins as PCA with all components, which rows of more than 8192 values do not get" in err
    assert "leaves 1 to train and 0 to validate" in err
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(check, tmp_path):
    (tmp_path / "data").mkdir(mode=0o500)
    code, _, err = check(**SYNTHETIC)
    assert code == 1
    assert "paths.raw" in err
    assert "give permission" in err


def test_a_device_that_is_not_here_is_an_error(check):
    import torch

    missing = "mps" if torch.cuda.is_available() else "cuda"
    code, _, err = check(train={"device": missing}, encode={"device": missing}, **SYNTHETIC)
    assert code == 1
    assert f"train.device: device {missing} is not available on this machine" in err
    assert "encode.device" in err


def test_the_gates_limit_for_mnist_is_warned_of_with_other_data(check):
    gate = {"gate": {"max_mse": MNIST_MAX_MSE}}
    code, _, err = check(evaluate=gate, **SYNTHETIC)
    assert code == 0
    assert "warning: evaluate.gate.max_mse: 0.0052 is the limit for MNIST, but source.name is synthetic" in err
    assert check(evaluate={"gate": {"max_mse": 0.005}}, **SYNTHETIC) == (0, "", "")
    assert check(evaluate=gate, source={"name": "mnist"}) == (0, "", "")


def test_vectors_and_a_network_for_pictures_are_named_before_anything_is_read(check, tmp_path):
    np.save(tmp_path / "vectors.npy", np.zeros((20, 16), np.float32))
    source = {"name": "files", "files": {"path": "vectors.npy", "kind": "vector"}}
    code, _, err = check(source=source, model={"name": "patches"})
    assert code == 1
    assert "model.name: patches takes pictures, but source.files.kind is vector; set it to dense" in err
    assert check(source=source, model={"name": "dense"})[0] == 0


def test_latents_that_take_more_than_the_samples_are_warned_of(check):
    small = {"name": "synthetic", "synthetic": {"height": 4, "width": 4}}
    code, _, err = check(source=small, train={"latent_size": 40})
    assert code == 0
    assert "is 160 bits per row, not less than the 128 of the samples (uint8 4x4)" in err


def test_latents_of_as_many_numbers_as_a_row_are_warned_of_for_floats_too():
    floats, params = (
        SampleSpec((16,), "float32"),
        params_of({"train": {"latent_size": 16}, "quantiser": {"levels": 16}}),
    )
    (warning,) = size_warnings(params, floats)
    assert "train.latent_size 16 is not below the 16 values of a row (float32 16)" in warning
    assert not list(size_warnings(params, SampleSpec((17,), "float32")))


@pytest.mark.parametrize(
    ("stage", "folder", "before"), [("prepare", "raw", "download"), ("train", "prepared", "prepare")]
)
def test_a_stage_says_which_one_has_to_run_before_it(tmp_path, stage, folder, before):
    words = rf"data/{folder} is missing, which stage `{before}` makes; run `dvc repro {stage}`"
    with pytest.raises(WorkspaceError, match=words):
        run_stage(stage, Params(), tmp_path)


def test_a_disk_that_is_too_small_is_warned_of(check, tmp_path):
    large = {"name": "synthetic", "synthetic": {"train_rows": 10**9, "height": 1000, "width": 1000}}
    gate = {"gate": {"beat_pca": False}}
    code, _, err = check(source=large, evaluate=gate)
    assert code == 0
    assert "the stages may need 6000003.0 GB for raw, prepared, decoded and DVC's cache of them" in err
    for place in ("raw", "prepared", "decoded"):
        (tmp_path / "data" / place).mkdir(parents=True)
    assert check(source=large, evaluate=gate)[2] == ""


@pytest.mark.parametrize(
    ("shape", "dtype", "tree", "words"),
    [
        ((9,), "uint8", {"model": {"name": "patches"}}, "patches needs samples of shape height x width"),
        ((2, 3, 4, 5), "uint8", {"model": {"name": "conv"}}, "conv needs samples of shape height x width"),
        (
            (9,),
            "int16",
            {"train": {"arithmetic": "integer"}},
            "arithmetic: integer is for uint8 samples, found int16 9",
        ),
        ((8193,), "uint8", {"model": LINEAR}, "begins as PCA with all components, which rows of more than 8192 values"),
        ((8192,), "uint8", {"model": LINEAR}, None),
        ((8193,), "uint8", {}, None),
        ((4, 4, 3), "float32", {"model": {"name": "patches"}}, None),
    ],
)
def test_samples_that_do_not_fit_the_settings(shape, dtype, tree, words):
    from ae_pipeline.data.pixels import SampleSpec

    if words is None:
        check_fits(params_of(tree), SampleSpec(shape, dtype))
    else:
        with pytest.raises(ConfigError, match=words):
            check_fits(params_of(tree), SampleSpec(shape, dtype))


def test_a_source_that_cannot_tell_is_not_asked_further(tmp_path, monkeypatch):
    from ae_pipeline.sources.base import Source
    from ae_pipeline.sources.synthetic import Synthetic

    monkeypatch.setattr(Synthetic, "announce", Source.announce)
    assert preflight(params_of(SYNTHETIC), tmp_path) == []


# The start of `train`.


def prepared(root, **pixels):
    for split, rows in pixels.items():
        write_rows(root / "data/prepared" / split / "part-00000.parquet", rows, id=list(range(len(rows))))


def correlated(rows, values=20, rank=5, scale=40.0):
    random = np.random.default_rng(rows)
    basis = np.random.default_rng(0).normal(0, scale, (rank, values))
    return np.clip(random.normal(0, 1, (rows, rank)) @ basis + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("values", [20, 3000])
def test_what_the_mean_and_pca_reach_is_that_of_numpy(values, tmp_path):
    """Also for rows of more values than there are rows."""
    pixels = correlated(400, values)
    train = write_rows(tmp_path / "train.parquet", pixels)
    outlook = look_ahead(train, params_of({"train": {"latent_size": 3}}))
    x = pixels / 255.0 - (pixels / 255.0).mean(axis=0)
    singular = np.linalg.svd(x, compute_uv=False)
    assert outlook.mean_mse == pytest.approx(np.square(x).mean())
    assert outlook.pca_mse == pytest.approx(np.square(singular[3:]).sum() / x.size, rel=1e-3)
    assert look_ahead(train, params_of({"train": {"latent_size": 101}})).pca_mse is None  # 4 rows for each, at least


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({"max_mse": 0.5}, "this limit holds nothing back"),
        ({"min_psnr": 3.0}, "this limit holds nothing back"),
        ({"max_mse": 1e-5}, "seldom below a fifth of that"),
        ({"min_psnr": 50.0}, "seldom below a fifth of that"),
        ({"max_mse": 0.02}, None),
        ({}, None),
    ],
)
def test_limits_out_of_reach_and_without_effect_are_warned_of(gate, words, tmp_path):
    train = write_rows(tmp_path / "train.parquet", correlated(300))
    outlook = look_ahead(train, params_of({"train": {"latent_size": 3}, "evaluate": {"gate": gate}}))
    assert (words is None) == (outlook.warnings == [])
    assert words is None or words in outlook.warnings[0]
    assert ("evaluate.gate asks for at most" in outlook.describe()) == bool(gate)


def test_train_says_so_before_its_first_epoch(tmp_path, capsys):
    prepared(tmp_path, train=correlated(300), validation=correlated(50))
    tree = {"train": {"latent_size": 3, "epochs": 1, "device": "cpu"}, "evaluate": {"gate": {"max_mse": 1e-5}}}
    run_stage("train", params_of(tree), tmp_path)
    out, err = capsys.readouterr()
    assert "before training: answering each value's mean has mse 0." in out
    assert out.index("before training") < out.index("ended after 1 epoch")
    assert "warning: evaluate.gate asks for an mse of at most 1e-05, but PCA" in err


def test_train_refuses_what_evaluate_would_and_trains_nothing(tmp_path):
    prepared(tmp_path, train=np.zeros((10, 9000), np.uint8), validation=np.zeros((4, 9000), np.uint8))
    with pytest.raises(
        ConfigError, match=r"more than 8192 values do not get, but samples are uint8 9000; set it to false"
    ):
        run_stage("train", params_of({"model": LINEAR, "train": {"device": "cpu"}}), tmp_path)
    assert not (tmp_path / "data/codec").exists()


def test_rows_that_are_all_the_same_are_called_that_before_training(tmp_path):
    same = write_rows(tmp_path / "same.parquet", np.full((40, 4, 4), 77, np.uint8), id=list(range(40)))
    assert "the rows of the train split are all the same" in look_ahead(same, params_of({})).warnings[-1]
    pixels = np.full((40, 4, 4), 77, np.uint8)
    pixels[3, 2, 1] += 1
    other = write_rows(tmp_path / "other.parquet", pixels, id=list(range(40)))
    assert not any("all the same" in warning for warning in look_ahead(other, params_of({})).warnings)
