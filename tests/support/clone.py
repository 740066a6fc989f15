"""A checkout of this repository in a temporary folder, with a small configuration, in which `dvc` really runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ready import copy_mlflow_database, shared
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
# Trains in two seconds and beats PCA.
SMALL = {
    "source": {"name": "synthetic", "synthetic": {"train_rows": 1200, "test_rows": 300}},
    "prepare": {"rows_per_shard": 500},
    "model": {"name": "dense", "dense": {"hidden_sizes": [48]}},
    "train": {
        "latent_size": 6,
        "epochs": 12,
        "batch_size": 64,
        "learning_rate": 0.005,
        "weight_decay": 0.0,
        "rate_weight": 0.0,
        "device": "cpu",
    },
    "quantiser": {"levels": 16},
    "encode": {"layout": "list", "device": "cpu"},
    "evaluate": {"gate": {"max_mse": 0.05, "beat_pca": False}},
}


def read_yaml(path):
    return YAML(typ="safe", pure=True).load(path.read_text())


class Clone:
    """Commands run in the folder with this environment's python and tools, and an own MLflow store, still empty."""

    def __init__(self, folder):
        self.folder = folder
        files = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.split("\0")  # fmt: skip
        for name in files:
            if name and name != "dvc.lock" and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        self.change(SMALL)
        copy_mlflow_database(folder / "mlruns/mlflow.db")
        self.git("init", "-q")
        self.git("config", "user.name", "test")
        self.git("config", "user.email", "test@localhost")
        self.commit("start")

    def run(self, *command, check=True, **environment):
        done = subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            env=self.environment(**environment),
        )
        output = done.stdout + done.stderr
        assert not check or done.returncode == 0, output
        return done.returncode, output

    @staticmethod
    def environment(**more):
        return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **more}

    def take_what_was_built(self):
        """Put here what all stages but `publish` make, as if they had run here: DVC finds them up to date."""
        built = shared("built", _build)
        for name in (".dvc/cache", "data", "reports"):
            shutil.copytree(built / name, self.folder / name, dirs_exist_ok=True)
        for name in ("dvc.lock", "code.json"):
            shutil.copyfile(built / name, self.folder / name)

    def dvc(self, *arguments, **options):
        return self.run("dvc", *arguments, **options)

    def git(self, *arguments):
        return self.run("git", *arguments)

    def mlflow(self):
        """A client of its MLflow store, which it makes if there is none."""
        import mlflow

        uri = f"sqlite:///{self.folder}/mlruns/mlflow.db"
        return mlflow.MlflowClient(uri, uri)

    def schedule(self, **seconds):
        """Have deployments run every so many seconds, by name; the others never run by themselves."""
        path, yaml = self.folder / "prefect.yaml", YAML()
        tree = yaml.load(path)
        for deployment in tree["deployments"]:
            every = seconds.get(deployment["name"])
            deployment["schedules"] = [{"interval": every}] if every else []
        yaml.dump(tree, path)

    def commit(self, message):
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def change(self, values):
        """Set values in params.yaml, given as nested sections."""
        path = self.folder / "params.yaml"
        yaml = YAML()
        tree = yaml.load(path)
        merge(tree, values)
        yaml.dump(tree, path)


def _build(folder):
    folder.mkdir()
    Clone(folder).dvc("repro", "decode")


def merge(tree, values):
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            merge(tree[key], value)
        else:
            tree[key] = value


def ran(output):
    """Names of the stages that DVC ran, in order."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
