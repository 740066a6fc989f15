"""The wheel alone is enough: built from the files that git has, installed where nothing else of this checkout is seen.

The tests build on each other in the order of the file: `init`, `dvc repro`, a flow, an upgrade of the package. Every
command is run from nothing once; stages and what comes after begin with the libraries loaded, but for the package (see
warm.py).
"""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import warm
from clone import ROOT, SMALL, merge, ran
from guarding import Guard
from ready import copy_mlflow_database
from ruamel.yaml import YAML

import ae_pipeline
from ae_pipeline.cli.stages import CODE, STAGES
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.workspace.files import listed
from flows.dvc_tasks import stage_names

pytestmark = pytest.mark.slow
# What would show the checkout to the installed package, or lead its runs elsewhere.
HIDDEN = ("PYTHONPATH", "MLFLOW_TRACKING_URI", "PYTHONSAFEPATH")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Made as `python -m build` makes a release: of the source distribution, and that of the files that git has."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pack = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", pack, dist], cwd=source, capture_output=True, check=True)
    (packed,) = dist.iterdir()
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "-w", dist, packed], check=True)
    (made,) = dist.glob("*.whl")
    return made


class Installed:
    """A workspace, and the environment in which the wheel is; its other packages are those of this environment."""

    def __init__(self, wheel, folder):
        self.bin, self.folder = folder / "environment/bin", folder / "workspace"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.bin.parent], check=True)
        pip = [sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "-q"]
        subprocess.run([*pip, "--no-deps", "--no-index", "--no-compile", wheel], check=True)
        (self.packages,) = self.bin.parent.glob("lib/python*/site-packages")
        others = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
        # Folders in a .pth file are seen without their own: this checkout's editable installation is not.
        (self.packages / "others.pth").write_text("\n".join(sorted(others)) + "\n")
        self.environment = {key: value for key, value in os.environ.items() if key not in HIDDEN}
        self.environment["PATH"] = f"{self.bin}:{os.environ['PATH']}"

    def warm_up(self, folder):
        """Commands begin with the libraries from now on."""
        guard = Guard(folder)
        self.environment |= {**guard.environment, "PYTHONPATH": str(folder)}
        self.environment |= warm.environment(str(self.bin / "python"))

    def run(self, *command, check=True, cwd=None, **environment):
        done = subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=cwd or self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        assert not check or done.returncode == 0, output
        return output

    def dvc(self, *arguments, **options):
        return self.run("python", "-m", "dvc", *arguments, **options)

    def change(self, values):
        yaml, path = YAML(), self.folder / "params.yaml"
        tree = yaml.load(path)
        merge(tree, values)
        yaml.dump(tree, path)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    return Installed(wheel, tmp_path_factory.mktemp("installed"))


def test_the_wheel_has_the_package_with_all_its_files_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        originals = {f"ae_pipeline/workspace/originals/{path.as_posix()}": path for path in listed(ROOT)}
        for name, path in originals.items():
            assert archive.read(name) == (ROOT / path).read_bytes(), name
        (metadata,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ae_pipeline").rglob("*") if path.is_file()}
    assert names - originals.keys() == {name for name in package if "__pycache__" not in name}
    for line in ("Name: ae-pipeline", f"Version: {ae_pipeline.__version__}", "License-Expression: MIT"):
        assert line in metadata.splitlines()
    assert "Classifier: Typing :: Typed" in metadata
    assert "ae_pipeline/py.typed" in names


def test_init_makes_a_workspace_with_what_is_installed_alone(installed, tmp_path):
    script = "import ae_pipeline, sys; print(ae_pipeline.__file__, *sys.path, sep='\\n')"
    place, *seen = installed.run("python", "-c", script, cwd=tmp_path).splitlines()
    assert Path(place).is_relative_to(installed.packages)
    assert not [path for path in seen if Path(path) == ROOT]
    assert installed.run("ae-pipeline", "--version", cwd=tmp_path).strip() == ae_pipeline.__version__
    output = installed.run("ae-pipeline", "init", installed.folder, "--source", "synthetic", cwd=tmp_path)
    assert f"cd {installed.folder}" in output
    for path in set(listed(ROOT)) - {Path("params.yaml")}:
        assert (installed.folder / path).read_bytes() == (ROOT / path).read_bytes(), path
    assert installed.run("ae-pipeline", "check") == ""


def test_dvc_repro_runs_all_stages_there_and_then_the_look_at_the_code_alone(installed, tmp_path_factory):
    installed.change(SMALL)
    copy_mlflow_database(installed.folder / "mlruns/mlflow.db")
    assert ran(installed.dvc("repro", "download")) == [CODE, "download"]
    installed.warm_up(tmp_path_factory.mktemp("warm"))
    assert ran(installed.dvc("repro")) == [CODE, *STAGES[1:]]
    assert ran(installed.dvc("repro")) == [CODE]
    header = json.loads((installed.folder / "data/codec/codec.json").read_text())
    store = LatentStore.open(installed.folder / "data/latents/test")
    for versions in (header["provenance"]["versions"], store.manifest.written_by["versions"]):
        assert versions["ae-pipeline"] == ae_pipeline.__version__
    lines = installed.run("ae-pipeline", "summary").splitlines()
    assert lines[-1].split() == ["MLflow", "UI", "ae-pipeline", "mlflow-ui"]
    assert installed.run("ae-pipeline", "verify", "data/latents/test").splitlines()[-1].split() == ["result", "whole"]


def test_a_new_workspace_can_be_committed_and_gives_experiments(installed):
    for command in (
        ("add", "-A"),
        ("-c", "user.name=x", "-c", "user.email=x@localhost", "commit", "-q", "-m", "first"),
    ):
        subprocess.run(["git", *command], cwd=installed.folder, check=True)
    kept = subprocess.run(["git", "ls-files"], cwd=installed.folder, capture_output=True, text=True, check=True).stdout
    names = {path.as_posix() for path in listed(ROOT)}
    assert set(kept.splitlines()) == {*names, "dvc.lock"}
    output = installed.dvc("exp", "run", "-S", "evaluate.seed=3", "--name", "other")
    assert ran(output) == [CODE, "evaluate", "publish"]
    installed.dvc("checkout", "--force")
    subprocess.run(["git", "checkout", "-q", "--", "."], cwd=installed.folder, check=True)
    assert "other" in installed.dvc("exp", "show", "--csv")


@pytest.mark.server
def test_a_flow_runs_there(installed, server):
    installed.dvc("repro")
    installed.run("python", "-m", "flows.rebuild", **server.environment)
    run = server.runs()[-1]
    assert run.state.is_completed()
    tasks = [task.name for task in server.tasks(run)]
    assert tasks[: len(STAGES)] == stage_names(installed.folder) == list(STAGES)


def test_an_upgrade_of_the_package_runs_what_it_can_change(installed):
    def edit(name):
        with open(installed.packages / "ae_pipeline" / name, "a") as file:
            file.write("# Another release.\n")
        return ran(installed.dvc("repro"))

    installed.dvc("repro")
    assert edit("operation/monitoring.py") == [CODE]
    assert edit("experiments/front.py") == [CODE]
    assert edit("codec/arithmetic.py")[:5] == [CODE, "train", "evaluate", "encode", "decode"]
