"""training/ranks.py, launching.py: several processes train one codec, alike to the bit, and none outlives another."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import torch
import warm
from handmade import write_rows
from test_checkpoints import merged

from ae_pipeline.cli.stages import run_stage
from ae_pipeline.codec.header import read_header
from ae_pipeline.errors import ConfigError, WorkerError
from ae_pipeline.files import HISTORY, read_csv
from ae_pipeline.params import Params
from ae_pipeline.training import build, ranks

pytestmark = pytest.mark.slow

# 96 train rows, so that every batch is shared out evenly.
PARAMS = {
    "model": {"name": "dense", "dense": {"hidden_sizes": [8], "hidden_norm": "none", "latent_norm": "none"}},
    "train": {
        "latent_size": 3, "epochs": 4, "batch_size": 16, "learning_rate": 0.01, "device": "cpu", "autocast": False,
        "rate_weight": 1e-4, "weight_decay": 0.01,
    },
}  # fmt: skip


def workspace(folder, rows=96):
    random = np.random.default_rng(0)
    factors = random.random((rows + 32, 3)) @ random.random((3, 36)) / 3
    pixels = (factors * 255).astype(np.uint8).reshape(-1, 6, 6)
    write_rows(folder / "data/prepared/train/0.parquet", pixels[:rows], id=list(range(rows)))
    write_rows(folder / "data/prepared/validation/0.parquet", pixels[rows:], id=list(range(32)))
    return folder


# A rank leaves in a file what it ended with, before the first one goes on alone.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_post_hook
from ae_pipeline.cli.stages import run_stage
from ae_pipeline.errors import exit_code_of
from ae_pipeline.params import Params
from ae_pipeline.training import build, ranks

folder, fit, steps = Path(sys.argv[1]), build.fit, []

def noting(model, *others):
    fitted = fit(model, *others)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    losses = [[epoch.train_loss, epoch.validation_loss] for epoch in fitted.history]
    save_file(state, folder / f"rank-{ranks.rank()}", {"losses": json.dumps(losses)})
    return fitted

def die(*_):
    steps.append(1)
    if ranks.rank() == 1 and len(steps) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

build.fit = noting
register_optimizer_step_post_hook(die)
sys.exit(exit_code_of(lambda: run_stage("train", Params.model_validate(json.loads(sys.argv[2])), folder)))
"""


def started_ranks(folder, values, dies_at=0):
    """Two ranks, started with the environment that torchrun gives; their exit codes and what they printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in "01":
        environment = {
            **os.environ, **warm.environment(), "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        command = [sys.executable, "-c", SCRIPT, str(folder), json.dumps(values), str(dies_at)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, **pipes))
    outputs = [process.communicate(timeout=60) for process in started]
    return [process.returncode for process in started], outputs


def train_in_ranks(folder, values):
    """What each of two ranks ended with: weights and losses."""
    codes, outputs = started_ranks(folder, values)
    assert codes == [0, 0], outputs
    assert [bool(out) for out, _ in outputs] == [True, False]
    return [(folder / f"rank-{rank}").read_bytes() for rank in (0, 1)]


def losses_of(folder):
    return np.array([[line[name] for name in HISTORY] for line in read_csv(folder / "reports/history.csv", HISTORY)])


def test_ranks_agree_bit_for_bit_and_reach_what_one_process_reaches(tmp_path):
    alone = workspace(tmp_path / "alone")
    # The latents' noise is drawn otherwise by several.
    values = merged(PARAMS, {"train": {"rate_weight": 0.0}})
    run_stage("train", Params.model_validate(values), alone)
    together = workspace(tmp_path / "together")
    one, other = train_in_ranks(together, values)
    assert one == other
    np.testing.assert_allclose(losses_of(together), losses_of(alone), rtol=1e-4)
    headers = [read_header(folder / "data/codec") for folder in (alone, together)]
    assert [header.provenance["machine"].get("processes") for header in headers] == [None, 2]
    assert not (together / "data/.work").exists()


def test_ranks_agree_with_all_that_is_drawn_and_averaged_and_after_one_of_them_was_killed(tmp_path):
    values = merged(
        PARAMS,
        {
            "model": {"dense": {"hidden_norm": "batch", "latent_norm": "batch", "dropout": 0.1}},
            "train": {"noise_std": 0.05, "data": "stream", "ema": 0.2, "patience": 0},
            "checkpoint": {"minutes": 1e-9},
        },
    )
    whole, again = (workspace(tmp_path / name, rows=90) for name in ("whole", "again"))
    one, other = train_in_ranks(whole, values)
    assert one == other
    codes, outputs = started_ranks(again, values, dies_at=15)
    assert codes == [1, -signal.SIGKILL]
    (line,) = outputs[0][1].splitlines()
    assert re.fullmatch(
        r"error: another process of this training is gone \(.*\); run the same command again: it goes on .*", line
    )
    assert not (again / "data/codec").exists()
    assert train_in_ranks(again, values) == [one, one]
    assert read_header(again / "data/codec").fingerprint == read_header(whole / "data/codec").fingerprint


def test_processes_listen_on_loopback_and_all_end_with_one_that_is_killed(tmp_path, capfd):
    folder = workspace(tmp_path)
    values = merged(PARAMS, {"train": {"processes": 2, "epochs": 100_000, "patience": 0}, "checkpoint": {"epochs": 1}})
    seen = []

    def kill():
        until((folder / "data/.work/training/checkpoint.safetensors").exists)
        seen.extend(rank for rank in psutil.Process().children() if "ae_pipeline.cli.stages.train" in rank.cmdline())
        connections = [connection for rank in seen for connection in rank.net_connections()]
        addresses.update(one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN)
        killed.append(time.monotonic())
        seen[-1].kill()

    addresses, killed = set(), []
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(WorkerError, match=r"^process 2 of the 2 that train was ended by SIGKILL, .* on from the last"):
        run_stage("train", Params.model_validate(values), folder)
    killer.join()
    assert time.monotonic() - killed[0] < 30
    assert addresses <= {"127.0.0.1", "::1"}
    assert len(seen) == 2
    assert not [rank for rank in seen if rank.is_running()]
    out, error = capfd.readouterr()
    assert out.count("epoch 1/100000 ") == 1
    assert error == ""
    assert not (folder / "data/codec").exists()
    assert not list((folder / "data").glob(".codec*"))


def until(is_so):
    end = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_torchrun_and_the_setting_train_the_same_codec(tmp_path):
    folder = workspace(tmp_path)
    (folder / "params.yaml").write_text(json.dumps(merged(PARAMS, {"train": {"epochs": 1}})))
    command = ["torch.distributed.run", "--nproc-per-node", "2", "-m", "ae_pipeline", "stage", "train"]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env={**os.environ, **warm.COLD},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/1 ") == 1
    by_torchrun = read_header(folder / "data/codec").fingerprint
    (folder / "data/codec").rename(folder / "by_torchrun")
    run_stage("train", Params.model_validate(merged(PARAMS, {"train": {"epochs": 1, "processes": 2}})), folder)
    assert read_header(folder / "data/codec").fingerprint == by_torchrun


def test_a_process_without_a_gpu_of_its_own_is_told(monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with (
        pytest.raises(
            ConfigError, match=r"process 2 of this machine finds no CUDA device of its own, there are 1; set"
        ),
        ranks.joined(torch.device("cuda")),
    ):
        pytest.fail("it trains")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"compile": True}, "train.compile: true is for one process, found 2; set it to false"),
        ({"batch_size": 3}, "train.batch_size 3 is shared out among 2 processes, .* set it to at least 4"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(knobs, message, monkeypatch):
    monkeypatch.setattr(ranks, "count", lambda: 2)
    with pytest.raises(ConfigError, match=message):
        build._refuse_what_ranks_cannot(Params.model_validate({"train": knobs}))
