"""A training that is killed at any step in which it changes the disk goes on, and ends as one that nothing stopped."""

import shutil

import numpy as np
import pytest
from handmade import bytes_of, write_rows
from killing import killed_at_every_step

TRAIN = """
from ae_pipeline.cli.stages import run_stage
from ae_pipeline.params import Params

PARAMS = Params.model_validate({
    "model": {"name": "dense", "dense": {"hidden_sizes": [4]}},
    "train": {"latent_size": 2, "epochs": 1, "batch_size": 16, "device": "cpu"},
    "checkpoint": {"minutes": None, "epochs": 1},
})

def run(folder):
    run_stage("train", PARAMS, folder)
"""


@pytest.mark.slow
def test_a_training_that_is_killed_at_any_step(tmp_path):
    template, names = tmp_path / "template", {}
    random = np.random.default_rng(0)
    pixels = (random.random((40, 2)) @ random.random((2, 9)) * 127).astype(np.uint8).reshape(40, 3, 3)
    write_rows(template / "data/prepared/train/0.parquet", pixels[:30], id=list(range(30)))
    write_rows(template / "data/prepared/validation/0.parquet", pixels[30:], id=list(range(10)))
    exec(compile(TRAIN, "script", "exec"), names)
    whole = shutil.copytree(template, tmp_path / "whole")
    names["run"](whole)
    wanted = bytes_of(whole)
    was_taken_up = []
    for folder in killed_at_every_step(TRAIN, template, tmp_path / "killed"):
        was_taken_up.append((folder / "data/.work/training/checkpoint.safetensors").exists())
        # DVC removes what a stage is going to make.
        shutil.rmtree(folder / "data/codec", ignore_errors=True)
        (folder / "reports/history.csv").unlink(missing_ok=True)
        names["run"](folder)
        left = [name for name in bytes_of(folder) if name.endswith(".tmp")]  # of reports/, by a process that is gone
        assert {name: value for name, value in bytes_of(folder).items() if name not in left} == wanted
        assert not [name for name in left if ".work" in name]
    assert True in was_taken_up
    assert False in was_taken_up
