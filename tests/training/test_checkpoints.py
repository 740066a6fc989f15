"""training/checkpoints.py: a training that was killed goes on, to the codec of one that nothing stopped."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import warm
from handmade import flip_bit, random_pixels, write_rows
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from ae_pipeline.cli.stages import run_stage
from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.params import Params
from ae_pipeline.params.operation import CheckpointParams
from ae_pipeline.training.build import build_codec, open_checkpoints
from ae_pipeline.training.checkpoints import NAME, Checkpoints, read_tree, write_tree

SUPPORT = Path(__file__).parents[1] / "support"
OPTIONS = {"hidden_sizes": [8], "dropout": 0.1}
# An epoch of 50 rows in batches of 16 has four steps, the last one with two rows.
BASE = {
    "model": {"name": "dense", "dense": OPTIONS},
    "train": {
        "latent_size": 3,
        "epochs": 20,
        "batch_size": 16,
        "learning_rate": 0.01,
        "device": "cpu",
        "autocast": False,
    },
    "checkpoint": {"minutes": 1e-9},
}
# name: what differs from BASE, rows, and the most steps between two deaths.
CASES = {
    "all of it, saved at each step": (
        {
            "train": {
                "autocast": "auto", "rate_weight": 1e-4, "noise_std": 0.05, "mirror": True, "patience": 0,
                "weight_decay": 0.01,
            },
        },
        ("uint8", (6, 6)),
        20,
    ),
    "streamed, stopped early, saved every third epoch": (
        {
            "train": {
                "data": "stream", "optimizer": "adadelta", "learning_rate": 1.0, "schedule": "constant", "ema": 0.0,
                "patience": 3, "loss": "bce",
            },
            "checkpoint": {"minutes": None, "epochs": 3},
        },
        ("uint8", (6, 6)),
        40,
    ),
    "vectors that begin as the KLT": (
        {
            "model": {"dense": {"linear_path": True, "output_activation": "linear", "latent_norm": "none"}},
            "train": {"rate_weight": 1e-4, "rate_latents": "rounded", "epochs": 10},
        },
        ("float32", (12,)),
        15,
    ),
    "a model that watches its batches": (
        {"model": {"name": "conv1d", "conv1d": {"step": 4, "encoder_channels": [4], "decoder_channels": [4]}},
         "train": {"epochs": 6}},
        ("float32", (16,)),
        10,
    ),
    "networks of a context codec, side by side": (
        {"codec": {"family": "context", "max_error": 9}, "train": {"epochs": 6}},
        ("uint8", (7, 6)),
        20,
    ),
}  # fmt: skip


def merged(one, other):
    return {
        key: merged(one.get(key, {}), other[key]) if isinstance(other.get(key), dict) else other.get(key, one.get(key))
        for key in {**one, **other}
    }


def workspace(folder, dtype="uint8", shape=(6, 6)):
    """Prepared rows with something to learn: products of few factors, in two shards."""
    random = np.random.default_rng(0)
    rows = random.random((70, 3)) @ random.random((3, *shape)).reshape(3, -1) / 3
    pixels = (rows.reshape(70, *shape) * (255 if dtype == "uint8" else 1)).astype(dtype)
    for name, part in {"train/0": pixels[:30], "train/1": pixels[30:50], "validation/0": pixels[50:]}.items():
        write_rows(folder / f"data/prepared/{name}.parquet", part, id=list(range(len(part))))
    return folder


def train(folder, values=None):
    """What the stage leaves: the codec's fingerprint. The codec goes, as DVC removes what it is going to make."""
    run_stage("train", Params.model_validate(merged(BASE, values or {})), folder)
    header = read_header(folder / "data/codec")
    (folder / "data/codec").rename(folder / f"codec-{len(list(folder.iterdir()))}")
    return header.fingerprint


@pytest.mark.slow
def test_trainings_that_are_killed_at_random_moments_end_with_the_codec_of_one_that_is_not(tmp_path):
    cases = []
    for number, (name, (changes, rows, steps)) in enumerate(CASES.items()):
        folder = workspace(tmp_path / str(number), *rows)
        cases.append({
            "name": name, "folder": str(folder), "params": merged(BASE, changes), "seed": number, "steps": steps
        })  # fmt: skip
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    script = f"import sys; sys.path[:0] = [{str(SUPPORT)!r}]\nfrom killed_trainings import *\nmain(Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "cases.json"],
        capture_output=True, text=True, check=False, env={**os.environ, **warm.environment()},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [case["name"] for case in found] == list(CASES)
    for case, result in zip(cases, found, strict=True):
        folder = Path(case["folder"])
        whole, again = (read_header(folder / name) for name in ("whole", "data/codec"))
        assert result["deaths"] >= 2
        assert again.fingerprint == whole.fingerprint, case["name"]
        assert (folder / "reports/history.csv").read_bytes() == (folder / "whole.csv").read_bytes()
        assert again.provenance["metrics"] == whole.provenance["metrics"]
        assert again.provenance.get("integers") == whole.provenance.get("integers")
        assert not (folder / "data/.work").exists()
    assert re.search(r"training goes on from epoch \d+ of \d+, \d steps of which are done, saved at ", done.stdout)
    assert "that round the network to integers" in done.stdout


class StoppedError(Exception):
    """A training that was cut off."""


@contextmanager
def cut_off(steps):
    """The training in the block ends, by an error, after so many steps."""
    made = []

    def count(*_):
        made.append(1)
        if len(made) == steps:
            raise StoppedError

    hook = register_optimizer_step_post_hook(count)
    try:
        with pytest.raises(StoppedError):
            yield
    finally:
        hook.remove()


@pytest.fixture
def stopped(tmp_path):
    """A workspace whose training was cut off in its second epoch, and the path of its checkpoint."""
    folder = workspace(tmp_path)
    with cut_off(7):
        train(folder, SHORT)
    return SimpleNamespace(folder=folder, checkpoint=folder / "data/.work/training" / NAME)


SHORT = {"train": {"epochs": 2}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The fingerprint of what nothing stopped and nothing saved."""
    never = {"checkpoint": {"minutes": None, "epochs": None}}
    return train(workspace(tmp_path_factory.mktemp("whole")), merged(SHORT, never))


def test_one_line_says_where_a_training_goes_on(stopped, whole, capsys):
    assert train(stopped.folder, SHORT) == whole
    lines = [line for line in capsys.readouterr().out.splitlines() if "goes on" in line]
    assert len(lines) == 1
    where = r"training goes on from epoch 2 of 2, 2 steps of which are done, saved at \S+ \S+ UTC in .*/checkpoint"
    assert re.fullmatch(rf"{where}\.safetensors", lines[0])
    assert not (stopped.folder / "data/.work").exists()


@pytest.mark.parametrize("harm", ["a bit", "cut short", "another file"])
def test_a_damaged_or_foreign_checkpoint_is_said_to_be_and_the_training_begins_anew(stopped, whole, harm, capsys):
    if harm == "a bit":
        flip_bit(stopped.checkpoint, stopped.checkpoint.stat().st_size // 2)
    elif harm == "cut short":
        stopped.checkpoint.write_bytes(stopped.checkpoint.read_bytes()[:-100])
    else:
        save_file({"weights": torch.zeros(3)}, stopped.checkpoint)
    assert train(stopped.folder, SHORT) == whole
    said = capsys.readouterr()
    assert f"warning: {stopped.checkpoint} is damaged and is removed: " in said.err
    assert said.err.count("the training begins anew") == 1
    assert "goes on" not in said.out


@pytest.mark.parametrize(
    ("values", "name"),
    [({"train": {"epochs": 2, "learning_rate": 0.02}}, "train.learning_rate"), (SHORT, "validation data")],
)
def test_a_checkpoint_of_other_data_or_settings_is_removed_and_what_differs_is_named(stopped, values, name, capsys):
    if values is SHORT:
        path = stopped.folder / "data/prepared/validation/0.parquet"
        write_rows(path, random_pixels((20, 6, 6), "uint8"), id=list(range(20)))
    with cut_off(1):
        train(stopped.folder, values)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "another training" in line]
    assert f"(epoch 2 of 2, 2 steps of which are done; other: {name}) and is removed" in line


def test_how_often_it_is_saved_does_not_matter(stopped, whole):
    assert train(stopped.folder, merged(SHORT, {"checkpoint": {"minutes": 60.0}})) == whole


def test_another_kind_of_machine_goes_on_and_says_so(tmp_path):
    one, other = ({"cpu": cpu, "threads": 2} for cpu in ("AVX2", "AVX512"))
    first = Checkpoints(tmp_path, {}, CheckpointParams(epochs=1), one)
    first.follow("part", Part())
    first.step(epoch_ended=True)
    (line,) = Checkpoints(tmp_path, {}, machine=other).warnings
    assert "begun on another kind of machine (cpu AVX2, threads 2; now cpu AVX512, threads 2)" in line


def test_a_disk_that_takes_no_checkpoint_does_not_end_the_training(tmp_path, whole, capsys):
    folder = workspace(tmp_path)
    params = Params.model_validate(merged(BASE, SHORT))
    checkpoints = open_checkpoints(folder / "work", *splits(folder), params)
    (folder / "work" / NAME / "in the way").mkdir(parents=True)
    header, _ = build_codec(*splits(folder), params, folder / "codec", {}, lambda epoch: None, checkpoints)
    assert header.fingerprint == whole
    assert "warning: the training goes on, but could not be saved: Is a directory" in capsys.readouterr().err


def splits(folder):
    return [SampleSet.open(folder / "data/prepared" / name) for name in ("train", "validation")]


class Part:
    """A part of a training that is a number."""

    where = "nowhere"

    def __init__(self, value=0):
        self.value = value

    def state(self):
        return {"value": self.value}

    def restore(self, state):
        self.value = state["value"]


@pytest.mark.parametrize(
    ("minutes", "epochs", "saved"),
    [(None, None, []), (2.0, None, [3, 6, 9]), (None, 2, [4, 8]), (2.0, 1, [2, 4, 6, 8])],
)
def test_it_is_saved_after_minutes_and_after_epochs(tmp_path, minutes, epochs, saved):
    now = 0.0
    every = CheckpointParams(minutes=minutes, epochs=epochs)
    checkpoints, part = Checkpoints(tmp_path, {}, every, clock=lambda: now), Part()
    checkpoints.follow("part", part)
    found = []
    for step in range(1, 10):  # a step takes 50 s, an epoch two steps
        now, part.value = now + 50, step
        checkpoints.step()
        if step % 2 == 0:
            checkpoints.step(epoch_ended=True)
        if (tmp_path / NAME).exists():
            found.append(read_tree(tmp_path / NAME)["parts"]["part"]["value"])
    assert sorted(set(found)) == saved


def test_what_was_chosen_once_stays_chosen(tmp_path):
    first = Checkpoints(tmp_path, {}, CheckpointParams(epochs=1))
    assert [first.settled("precision", lambda: True), first.settled("precision", lambda: False)] == [True, True]
    first.follow("part", Part(7))
    first.step(epoch_ended=True)
    again, part = Checkpoints(tmp_path), Part()
    assert again.settled("precision", lambda: pytest.fail("chosen again"))
    assert again.follow("part", part)
    assert not again.follow("later", Part())
    assert part.value == 7


TREE = {
    "tensors": {
        0: torch.arange(6.0).reshape(2, 3),
        1: {"step": torch.tensor(3.0), "bytes": torch.tensor([7], dtype=torch.uint8)},
    },
    "none": None,
    "list": [0.1, float("inf"), {"deep": torch.zeros(0)}],
}


def test_a_tree_comes_back_bit_for_bit(tmp_path):
    write_tree(tmp_path / "tree", TREE)
    found = read_tree(tmp_path / "tree")
    assert torch.equal(found["tensors"][0], TREE["tensors"][0])
    assert found["tensors"][1]["step"].shape == ()
    assert found["tensors"][1]["bytes"].dtype == torch.uint8
    assert found["none"] is None
    assert found["list"][:2] == TREE["list"][:2]
    assert found["list"][2]["deep"].shape == (0,)


def test_no_changed_bit_of_a_tree_is_missed(tmp_path):
    path = tmp_path / "tree"
    write_tree(path, TREE)
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        flip_bit(path, position, position % 8)
        with pytest.raises(ValueError, match=r"it cannot be read|its digest is not that of its contents"):
            read_tree(path)
        path.write_bytes(whole)
    for length in range(0, len(whole), 50):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="it cannot be read"):
            read_tree(path)
