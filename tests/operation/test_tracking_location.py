"""A store that was moved or copied with its checkout: it finds its own files, and writes nowhere else."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from trainings import NAME, write_lock

from ae_pipeline.codec.header import read_header
from ae_pipeline.errors import TrackingError
from ae_pipeline.operation.champion.moves import champion_version, compare, history, promote
from ae_pipeline.operation.tracking.connection import connect, experiment_names, fetch_codec, relocate_store
from ae_pipeline.operation.tracking.location import settle_location
from ae_pipeline.operation.tracking.publish import publish

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_commands")]


@pytest.fixture(scope="module")
def built(published, tmp_path_factory):
    """A checkout with three published trainings, the second of which is champion; made once, and left alone."""
    root, params = published
    mine = tmp_path_factory.mktemp("built with ü") / "checkout"
    shutil.copytree(root, mine, ignore=shutil.ignore_patterns("mlruns"))
    shutil.copytree(root / "as_published", mine / "mlruns")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        promote(params, mine, "2", "start", "me")
    assert addresses(mine, mine.as_uri()) == 10
    return mine, params


@pytest.fixture(autouse=True)
def default_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def original(built, tmp_path):
    """A checkout of its own for each test, in a place that later is somewhere else."""
    root = tmp_path / "original"
    shutil.copytree(built[0], root, symlinks=True)
    history(built[1], root)
    return root, built[1]


def addresses(root, prefix):
    """How many values in the database hold a text."""
    with sqlite3.connect(root / "mlruns/mlflow.db") as connection:
        return sum(prefix in line and "dataset_source" not in line and "/data/prepared" not in line
                   for line in connection.iterdump())  # fmt: skip


def files(root):
    return {path.relative_to(root): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def train_again(root):
    """Another training, as far as MLflow is concerned."""
    write_lock(root, "trained-in-the-copy")


def works(root, params, tmp_path):
    """Everything that needs artifacts, in a checkout that came from elsewhere."""
    assert champion_version(params, root) == "2"
    assert compare(params, root).champion == "2"
    fetched = fetch_codec(f"models:/{NAME}@challenger", params, root, tmp_path / "fetched")
    assert read_header(fetched).fingerprint == read_header(root / "data/codec").fingerprint
    train_again(root)
    done = publish(params, root)
    assert (done.outcome, done.version) == ("created", "4")
    promote(params, root, "4", "new", "me")
    with connect(params, root) as (client, _):
        uri = client.get_run(done.run_id).info.artifact_uri
    assert uri.startswith((root / "mlruns/artifacts").as_uri())
    assert fetch_codec(f"models:/{NAME}@champion", params, root, tmp_path / "again").is_dir()


def test_a_checkout_that_was_moved(original, tmp_path, capsys):
    root, params = original
    moved = tmp_path / "another place" / "moved"
    moved.parent.mkdir()
    root.rename(moved)
    works(moved, params, tmp_path)
    assert not root.exists()
    assert addresses(moved, root.as_uri()) == 0
    assert capsys.readouterr().err.count("lead to its own folder now") == 1


def test_a_copy_never_writes_into_the_original(original, tmp_path):
    root, params = original
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, symlinks=True)
    before = files(root)
    works(copy, params, tmp_path)
    assert files(root) == before
    # And it needs nothing of it.
    shutil.rmtree(root)
    assert fetch_codec(f"models:/{NAME}/1", params, copy, tmp_path / "old").is_dir()


def test_the_commands_work_in_a_moved_checkout(original, tmp_path):
    """As people do it: mv, then `ae-pipeline` with --model, in processes of their own."""
    root, _ = original
    moved = root.rename(tmp_path / "moved")
    command = [sys.executable, "-m", "ae_pipeline"]
    encode = [*command, "encode", "data/prepared/test", "--model", f"models:/{NAME}@champion", "--store", "out"]
    done = subprocess.run(encode, cwd=moved, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "note: " in done.stderr
    assert (moved / "out/_manifest.json").exists()
    done = subprocess.run([*command, "tracking", "relocate"], cwd=moved, capture_output=True, text=True, check=True)
    assert "nothing to do" in done.stdout


def test_files_that_are_only_in_the_former_place_stop_it_until_they_are_copied(original, tmp_path):
    root, params = original
    restored = tmp_path / "restored"
    (restored / "mlruns").mkdir(parents=True)
    shutil.copy(root / "mlruns/mlflow.db", restored / "mlruns")
    before, database = files(root), (restored / "mlruns/mlflow.db").read_bytes()
    for act in (lambda: champion_version(params, restored), lambda: history(params, restored)):
        with pytest.raises(TrackingError, match=r"files that lie elsewhere: .*`ae-pipeline tracking relocate`"):
            act()
    assert (restored / "mlruns/mlflow.db").read_bytes() == database
    assert "6 folder(s) were copied here" in relocate_store(params, restored)
    assert files(root) == before
    shutil.rmtree(root)
    assert fetch_codec(f"models:/{NAME}@champion", params, restored, tmp_path / "fetched").is_dir()
    assert "nothing to do" in relocate_store(params, restored)


def test_a_crash_in_the_middle_changes_nothing_or_everything(original, tmp_path):
    root, params = original
    moved = root.rename(tmp_path / "moved")
    killed = (
        "import os, signal, sqlite3, sys\n"
        "from functools import partial\n"
        "from pathlib import Path\n"
        "from ae_pipeline.operation.tracking import location\n"
        "class Dying(sqlite3.Connection):\n"
        "    updates = 0\n"
        "    def execute(self, query, *values):\n"
        "        self.updates += query.startswith('UPDATE')\n"
        "        if self.updates == 5:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().execute(query, *values)\n"
        "sqlite3.connect = partial(sqlite3.connect, factory=Dying)\n"
        "location.settle_location(Path(sys.argv[1]), ('ae-pipeline',))\n"
    )
    before = addresses(moved, root.as_uri())
    done = subprocess.run([sys.executable, "-c", killed, moved / "mlruns/mlflow.db"], check=False)
    assert done.returncode == -9
    assert addresses(moved, root.as_uri()) == before == 10
    assert champion_version(params, moved) == "2"
    assert addresses(moved, root.as_uri()) == 0


def test_two_processes_that_come_first_after_a_move(original, tmp_path):
    root, _ = original
    moved = root.rename(tmp_path / "moved")
    command = [sys.executable, "-m", "ae_pipeline", "history"]
    both = [subprocess.Popen(command, cwd=moved, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)]  # fmt: skip
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sum(err.count("lead to its own folder now") for _, err in told) == 1


def test_what_is_not_ours_and_other_stores_are_left_alone(original, tmp_path, monkeypatch):
    root, params = original
    elsewhere = (tmp_path / "elsewhere").as_uri()
    with connect(params, root) as (client, uri):
        client.create_experiment("somebody's", elsewhere)
        client.create_experiment("in a bucket", "s3://bucket/artifacts")
    moved = root.rename(tmp_path / "moved")
    assert champion_version(params, moved) == "2"
    with connect(params, moved) as (client, _):
        assert client.get_experiment_by_name("somebody's").artifact_location == elsewhere
        assert client.get_experiment_by_name("in a bucket").artifact_location == "s3://bucket/artifacts"
    # A store that was named is where its owner says: nothing in it is changed.
    again = moved.rename(tmp_path / "again")
    uri = f"sqlite:///{again}/./mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert champion_version(params, again) == "2"
    assert addresses(again, moved.as_uri()) == 10
    with pytest.raises(TrackingError, match="only the store in mlruns can be relocated"):
        relocate_store(params, again)


def test_a_database_without_tables_is_left_to_mlflow(tiny_params, tmp_path):
    database = Path(tmp_path / "mlruns/mlflow.db")
    settle_location(database, experiment_names(tiny_params))
    assert not database.parent.exists()
    database.parent.mkdir()
    database.touch()
    settle_location(database, experiment_names(tiny_params))
    with connect(tiny_params, tmp_path):
        pass
    assert "nothing to do" in relocate_store(tiny_params, tmp_path)
