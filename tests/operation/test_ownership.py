"""A stage ends with its DVC, a workspace has one runner, and results are those of dvc.lock. Real `dvc repro`s.

The tests build on each other in the order of the file.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import warm
from clone import Clone, ran
from prefect_server import until

from ae_pipeline.cli.stages import STAGES
from ae_pipeline.operation.ownership import REBUILD, hold

pytestmark = pytest.mark.slow

# Python runs a module of this name at its start: the stage called HELD waits, at its work, while there is a file.
HOLD = """
import os, pathlib, sys, time
held = pathlib.Path(os.environ["HELD"])
def wait():
    if held.exists():
        held.with_suffix(".reached").write_text(str(os.getpid()))
        while held.exists():
            time.sleep(0.05)
def note(event, arguments):
    # The stage's own module is loaded when it is at work.
    if event == "open" and "/stages/" in str(arguments[0]) and f"/{held.stem}." in str(arguments[0]):
        wait()
if sys.orig_argv[-2:] == ["stage", held.stem]:
    wait() if os.environ.get("AT_START") else sys.addaudithook(note)
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory, guard):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "DVC_STAGE", "AE_PIPELINE_RUNNER"):
            patch.delenv(name, raising=False)
        for name, value in {**guard.environment, **warm.environment()}.items():
            patch.setenv(name, value)
        clone = Clone(tmp_path_factory.mktemp("clone"))
        clone.take_what_was_built()
        yield clone


@pytest.fixture
def start_held(clone, tmp_path):
    """Start `dvc repro` in which a stage waits at its work; gives the command and the stage's process."""
    (tmp_path / "sitecustomize.py").write_text(HOLD)
    started = []

    def start(stage, *command, **environment):
        held = tmp_path / f"{stage}.held"
        held.touch()
        process = subprocess.Popen(
            command or ("dvc", "repro"),
            cwd=clone.folder,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
                "HELD": str(held),
                **environment,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        reached = held.with_suffix(".reached")
        until(lambda: reached.exists() and reached.read_text(), 90)
        started.extend([process, found := psutil.Process(int(reached.read_text()))])
        reached.unlink()
        return process, found, held

    yield start
    for one in started:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            one.kill()


def has_ended(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_ends_with_its_dvc_and_the_next_repro_finishes_the_work(clone, start_held, stage, number):
    again = ("dvc", "repro", "-f", "-s", stage)
    dvc, process, held = start_held(stage, *again)
    dvc.send_signal(number)
    dvc.wait(20)
    until(lambda: has_ended(process), 10)
    held.unlink()
    _, output = clone.run(*again)
    assert ran(output) == [stage]


def test_a_stage_ends_with_its_dvc_also_with_a_shell_between_them(clone, start_held, tmp_path):
    """As with shells that do not become the command that they are told to run."""
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\n/bin/sh "$@"\nexit $?\n')
    shell.chmod(0o755)
    dvc, process, _ = start_held("evaluate", "dvc", "repro", "-f", "-s", "evaluate", SHELL=str(shell))
    assert process.parent().pid != dvc.pid
    dvc.kill()
    dvc.wait()
    until(lambda: has_ended(process), 10)
    clone.dvc("repro")


def test_a_stage_whose_dvc_ends_before_it_began_does_not_begin(clone, start_held):
    dvc, process, held = start_held("evaluate", "dvc", "repro", "-f", "-s", "evaluate", AT_START="1")
    dvc.kill()
    dvc.wait()
    held.unlink()
    until(lambda: has_ended(process), 30)
    assert not (clone.folder / "reports/metrics.json").exists()
    clone.dvc("repro")


def test_an_orphan_that_was_stopped_cannot_write_over_a_newer_run(clone, start_held):
    clone.dvc("repro")
    clone.commit("list")
    dvc, orphan, held = start_held("evaluate", "dvc", "repro", "-f", "-s", "evaluate")
    orphan.suspend()
    dvc.kill()
    dvc.wait()
    clone.change({"encode": {"layout": "binary"}})
    _, output = clone.dvc("repro")
    assert f"note: stage `evaluate`, process {orphan.pid}, " in output
    assert "it is ended" in output
    assert has_ended(orphan)
    held.unlink()
    clone.run("ae-pipeline", "summary")


def test_one_that_nobody_ended_ends_itself_when_it_is_continued(clone, start_held):
    """Everything is restored from DVC's cache, so no stage runs that could end it."""
    clone.dvc("repro")
    newer = (clone.folder / "reports/metrics.json").read_bytes()
    clone.change({"encode": {"layout": "list"}})
    dvc, orphan, held = start_held("evaluate", "dvc", "repro", "-f", "-s", "evaluate")
    orphan.suspend()
    dvc.kill()
    dvc.wait()
    clone.change({"encode": {"layout": "binary"}})
    _, output = clone.dvc("repro", "--single-item", *STAGES)  # not `code`, which always runs
    assert ran(output) == []
    held.unlink()
    orphan.resume()
    until(lambda: has_ended(orphan), 30)
    assert (clone.folder / "reports/metrics.json").read_bytes() == newer
    clone.run("ae-pipeline", "summary")


def test_two_runners_exclude_each_other_whoever_started_them(clone, start_held):
    dvc, process, held = start_held("evaluate", "dvc", "repro", "-f", "-s", "evaluate")
    code, output = clone.run(sys.executable, "-m", "ae_pipeline", "stage", "decode", check=False)
    assert code == 1
    assert output.startswith(
        f"error: {clone.folder} is being rebuilt by stage `evaluate`, process {process.pid}, since "
    )
    assert output.strip().endswith(f"Run it again when that one has ended, or end it (`kill {process.pid}`)")
    process.suspend()
    until(lambda: process.status() == psutil.STATUS_STOPPED, 10)
    _, output = clone.run(sys.executable, "-m", "ae_pipeline", "stage", "decode", check=False)
    assert f"`kill -CONT {process.pid}`" in output
    process.resume()
    held.unlink()
    assert dvc.wait(60) == 0
    with hold(clone.folder, REBUILD, "flow run brave-lion, process 12"):
        code, output = clone.dvc("repro", "-f", "-s", "evaluate", check=False)
        assert code != 0
        assert "is being rebuilt by flow run brave-lion, process 12; this run is refused" in output
    clone.dvc("repro")


def test_results_that_are_not_those_of_dvc_lock_are_refused_until_the_next_repro(clone):
    clone.dvc("repro")
    clone.run("ae-pipeline", "promote", "1", "--why", "to have one")
    files = {
        "reports/metrics.json": "evaluate",
        "reports/round_trip.json": "decode",
        "reports/history.csv": "train",
        "reports/tables/per_class.csv": "evaluate",
        "data/codec/codec.json": "train",
        "data/latents/test/_manifest.json": "encode",
    }
    for name, stage in files.items():
        path = clone.folder / name
        path.write_bytes(path.read_bytes() + b"\n")
        for command in ("summary", "publish"):
            code, output = clone.run("ae-pipeline", command, check=False)
            assert (code, output.count("\n")) == (1, 1)
            assert f"is not what stage `{stage}` made last (dvc.lock)" in output
        clone.dvc("repro")
        clone.run("ae-pipeline", "summary")
    part = next((clone.folder / "data/prepared/test").glob("*.parquet"))
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    part.write_bytes(content)
    for command in (["compare"], ["compare", "--promote"]):
        code, output = clone.run("ae-pipeline", *command, check=False)
        assert (code, output.count("\n")) == (1, 1)
        assert "data/prepared is not what stage `prepare` made last (dvc.lock)" in output
    clone.dvc("repro")
    clone.run("ae-pipeline", "compare")


def test_what_checkout_and_experiments_leave_is_taken(clone):
    clone.change({"encode": {"layout": "binary", "row_group_rows": 500}})
    clone.dvc("repro")
    clone.commit("results")
    clone.dvc("exp", "run", "-S", "encode.layout=list", "--name", "other")
    clone.run("ae-pipeline", "summary")
    clone.git("checkout", "-q", "--", ".")
    clone.dvc("checkout", "dvc.yaml")
    clone.dvc("repro")
    clone.run("ae-pipeline", "summary")
