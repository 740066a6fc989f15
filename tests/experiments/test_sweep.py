"""`ae-pipeline sweep` on a few hundred MNIST rows, with a real MLflow store: the tests build on each other, in the
order of the file, as a user's day would."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
from handmade import write_rows
from ready import copy_mlflow_database
from ruamel.yaml import YAML

from ae_pipeline.cli.stages import run_stage
from ae_pipeline.experiments.sweep.runs import PARENT_TAG, STATE_TAG, SWEEP_TAG
from ae_pipeline.operation.tracking.orphans import CLOSED_TAG
from ae_pipeline.params import Params, load_params

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_commands")]

SIZES = ("--set", "train.latent_size=2,8", "--seeds", "2")

# Ends the process by a signal after so many epochs; otherwise `ae-pipeline` as it is.
STOPPED = """
import os, signal, sys
from ae_pipeline.cli.main import main
from tqdm import tqdm
epochs = []
def show(self, what):
    epochs.append(what)
    if len(epochs) == {epochs}:
        os.kill(os.getpid(), signal.{signal})
tqdm.set_postfix_str = show
sys.argv = {arguments}
main()
"""


@pytest.fixture(scope="module")
def root(shuffled_mnist, tmp_path_factory):
    """A workspace with 600 train and 200 validation rows, and a params.yaml with comments."""
    folder = tmp_path_factory.mktemp("sweep")
    copy_mlflow_database(folder / "mlruns/mlflow.db")
    for split, rows in (("train", slice(0, 600)), ("validation", slice(600, 800))):
        images = shuffled_mnist[0][rows]
        write_rows(folder / "data/prepared" / split / "part-00000.parquet", images, id=list(range(len(images))))
    (folder / "params.yaml").write_text(
        "# Sizes\n"
        "model: {dense: {hidden_sizes: [16]}}   # narrow\n"
        "train:\n"
        "  latent_size:   28   # to be chosen\n"
        "  epochs: 4\n"
        "  batch_size: 16\n"
        "  learning_rate: 4e-3\n"
        "  device: cpu\n"
        "quantiser: {levels: 16}\n"
        "encode: {device: cpu}\n"
    )
    return folder


@pytest.fixture(autouse=True)
def in_root(request, monkeypatch):
    if "root" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("root"))
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def runs(root):
    """The run of the first study, and the runs of all trials."""

    def read():
        import mlflow

        uri = f"sqlite:///{root}/mlruns/mlflow.db"
        client = mlflow.MlflowClient(uri, uri)
        found = client.search_runs([client.get_experiment_by_name("ae-pipeline-sweep").experiment_id])
        parents = {run.info.run_id: run for run in reversed(found) if SWEEP_TAG in run.data.tags}
        children = [run for run in found if run.info.run_id not in parents]
        assert {run.data.tags[PARENT_TAG] for run in children} <= parents.keys()
        return next(iter(parents.values())), children

    return read


def stopped(root, name, epochs, *arguments):
    code = STOPPED.format(epochs=epochs, signal=name, arguments=["ae-pipeline", "sweep", *arguments])
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)


def report(root):
    return json.loads((root / "reports/sweep.json").read_text())


def statuses(children):
    return sorted(run.info.status for run in children)


def test_ctrl_c_in_a_trial_ends_with_a_plain_line_and_its_run_is_closed(root, runs):
    done = stopped(root, "SIGINT", 1, *SIZES)
    assert done.returncode == 130
    assert "run the same command again to go on" in done.stderr
    assert "Traceback" not in done.stderr
    parent, children = runs()
    assert parent.info.status == "KILLED"
    assert statuses(children) == ["KILLED"]


def test_kill_9_in_the_second_trial_leaves_the_first(root, runs):
    assert stopped(root, "SIGKILL", 5, *SIZES).returncode == -signal.SIGKILL
    parent, children = runs()
    assert parent.info.status == "RUNNING"
    assert statuses(children) == ["FINISHED", "KILLED", "RUNNING"]


def test_the_same_command_goes_on_with_what_is_missing(root, runs, ae):
    (first,) = [run for run in runs()[1] if run.info.status == "FINISHED"]
    code, out, err = ae("sweep", *SIZES)
    assert code == 0, err
    assert err.count("bits per row") == 3
    assert "knee: none" in out  # two points have none
    parent, children = runs()
    assert parent.info.status == "FINISHED"
    assert statuses(children) == ["FINISHED"] * 4 + ["KILLED"] * 2
    assert first.info.run_id in [run.info.run_id for run in children]
    (closed,) = [run for run in children if "ended without closing it" in run.data.tags.get(CLOSED_TAG, "")]
    assert STATE_TAG not in closed.data.tags


def test_the_report_says_what_the_runs_say(root, runs):
    found, (parent, children) = report(root), runs()
    assert [(trial["params"]["train.latent_size"], trial["seed"]) for trial in found["trials"]] == [
        (2, 0), (8, 0), (2, 1), (8, 1),
    ]  # fmt: skip
    finished = {
        (run.data.params["train.latent_size"], run.data.params["train.seed"]): run.data.metrics
        for run in children
        if run.info.status == "FINISHED"
    }
    for trial in found["trials"]:
        metrics = finished[str(trial["params"]["train.latent_size"]), str(trial["seed"])]
        for name in ("bits_per_row", "mse", "psnr", "seconds"):
            assert metrics[name] == pytest.approx(trial[name])
        assert trial["state"] == "finished"
    small, large = found["settings"]
    assert small["bits_per_row"] < large["bits_per_row"]
    assert small["mse_interval"][0] < small["mse"] < small["mse_interval"][1]
    assert parent.data.tags["best"] == "latent_size=8"
    assert parent.data.metrics["best_mse"] == pytest.approx(large["mse"])
    artifacts = root / "mlruns/artifacts" / parent.info.run_id / "artifacts"
    assert {path.name for path in artifacts.iterdir()} == {"sweep.json", "sweep.md", "sweep.png"}


def test_a_finished_sweep_trains_nothing_and_logs_nothing_twice(root, runs, ae):
    before = report(root)
    code, _, err = ae("sweep", *SIZES)
    assert (code, "bits per row" in err) == (0, False)
    assert report(root) == before
    assert len(runs()[1]) == 6


def test_more_values_train_only_what_is_new(root, runs, ae):
    code, out, err = ae("sweep", "--set", "train.latent_size=2,4,8", "--seeds", "2", "--json")
    assert code == 0
    assert err.count("bits per row") == 2
    assert json.loads(out) == report(root)
    assert len(report(root)["trials"]) == 6
    assert len(runs()[1]) == 8


def test_an_impossible_tolerance_names_the_best_that_was_found(root, ae):
    before = (root / "params.yaml").read_bytes()
    code, out, err = ae("sweep", *SIZES, "--max-mse", "1e-6", "--write-params")
    assert code == 1
    assert "error: no setting has an MSE of at most 1e-06; the best found is latent_size=8" in err
    assert "smallest with MSE at most 1e-06: none" in out
    assert (root / "params.yaml").read_bytes() == before


def test_what_is_chosen_is_written_and_nothing_else(root, ae):
    before = (root / "params.yaml").read_text()
    small, large = report(root)["settings"]
    tolerance = (small["mse"] + large["mse"]) / 2
    assert ae("sweep", *SIZES, "--max-mse", tolerance, "--write-params")[0] == 0
    assert report(root)["smallest_within"] == {"train.latent_size": 8}
    assert (root / "params.yaml").read_text() == before.replace("latent_size:   28  ", "latent_size:   8  ")
    assert load_params(root / "params.yaml").train.latent_size == 8


def test_values_of_every_kind_are_written_in_place(root, ae):
    psnr = report(root)["settings"][0]["psnr"] - 3
    options = ("--set", "model.dense.hidden_sizes=[],[16, 8]", "--set", "model.dense.activation=relu,tanh")
    before = (root / "params.yaml").read_text()
    text = before.replace("{hidden_sizes: [16]}", "{hidden_sizes: [16], activation: silu}")
    (root / "params.yaml").write_text(text)
    assert ae("sweep", *options, "--seeds", "1", "--min-psnr", psnr, "--write-params")[0] == 0
    chosen = report(root)["smallest_within"]
    hidden = json.dumps(chosen["model.dense.hidden_sizes"])
    expected = f"{{hidden_sizes: {hidden}, activation: {chosen['model.dense.activation']}}}"
    assert (root / "params.yaml").read_text() == text.replace("{hidden_sizes: [16], activation: silu}", expected)
    (root / "params.yaml").write_text(before)


def test_what_cannot_win_is_stopped_and_what_cannot_be_trained_is_left_out(root, runs, ae):
    rates = "train.learning_rate=0.004,0.0001,1.0e+30"
    code, _, err = ae("sweep", "--set", rates, "--seeds", "2")
    assert code == 0, err
    good, slow, wild, again = report(root)["trials"]
    assert [trial["state"] for trial in (good, slow, wild, again)] == ["finished", "stopped", "failed", "finished"]
    assert (slow["epochs"], slow["mse"]) == (3, None)
    assert slow["reason"].startswith("behind learning_rate=0.004 after epoch 3")
    assert "learning_rate" in wild["reason"]
    assert "seed 1: stopped" not in (root / "reports/sweep.md").read_text()  # not tried further
    states = {run.data.params["train.learning_rate"]: run for run in runs()[1]}
    assert states["0.0001"].info.status == "KILLED"
    assert states["0.0001"].data.tags[CLOSED_TAG] == slow["reason"]
    assert states["1e+30"].info.status == "FAILED"


def test_what_was_stopped_for_a_setting_is_trained_where_that_is_not_asked_for(root, ae):
    assert ae("sweep", "--set", "train.learning_rate=0.0001,1.0e+30", "--seeds", "1")[0] == 0
    assert [trial["state"] for trial in report(root)["trials"]] == ["finished", "failed"]


def test_ranges_are_searched_by_optuna_and_more_trials_go_on(root, ae):
    space = ("--set", "train.latent_size=2..16", "--set", "quantiser.levels=8,16", "--seeds", "2")
    assert ae("sweep", *space, "--trials", "2")[0] == 0
    first = report(root)["trials"]
    assert ae("sweep", *space, "--trials", "3")[0] == 0
    trials = report(root)["trials"]
    assert trials[:4] == first
    assert [trial["seed"] for trial in trials] == [0, 1] * 3
    settings = [trial["params"] for trial in trials[::2]]
    assert settings == [trial["params"] for trial in trials[1::2]]
    assert len({json.dumps(setting) for setting in settings}) == 3
    for setting in settings:
        assert 2 <= setting["train.latent_size"] <= 16
        assert setting["quantiser.levels"] in (8, 16)


def test_a_space_with_fewer_settings_than_trials_comes_to_an_end(root, ae):
    code, _, err = ae("sweep", "--set", "train.latent_size=2..3", "--seeds", "1", "--trials", "5")
    assert (code, len(report(root)["trials"])) == (0, 2)
    assert "Optuna found no more than 2 settings" in err


def test_with_mlflow_away_the_sweep_is_done_and_logged_by_the_next_one(root, runs, ae, monkeypatch):
    space = ("--set", "train.latent_size=7", "--seeds", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, out, err = ae("sweep", *space)
    assert code == 1
    assert "lowest MSE: latent_size=7" in out
    assert "the sweep goes on without MLflow" in err
    assert "error: MLflow at http://127.0.0.1:9 failed" in err
    (trial,) = report(root)["trials"]
    assert trial["state"] == "finished"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    code, _, err = ae("sweep", *space)
    assert (code, "bits per row" in err) == (0, False)
    logged = [run for run in runs()[1] if run.data.params["train.latent_size"] == "7"]
    assert statuses(logged) == ["FINISHED"]


def test_after_the_time_nothing_begins_and_the_rest_is_counted(root, ae):
    code, out, _ = ae("sweep", "--set", "train.latent_size=5,6", "--seeds", "1", "--timeout", "0")
    assert code == 0
    assert "the time was over with 2 trials to go" in out
    assert report(root)["trials"] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "train.latent_siz=8"], "train.latent_siz is no parameter"),
        (["--set", "train.latent_size=0,8"], "train.latent_size=0 does not go: train.latent_size: Input should be"),
        (["--set", "train.latent_size"], "expected PATH=V1,V2,..."),
        (["--set", "train.latent_size=8,8"], "has a value twice"),
        (["--set", "train.latent_size=4,4..8"], "mixes values and a range"),
        (["--set", "train.latent_size=[8"], "cannot read the values of"),
        (["--set", "train.latent_size=2..8"], "say with --trials how many"),
        (["--set", "train.latent_size=8..2", "--trials", "2"], "is no range"),
        (["--set", "train.latent_size=2", "--set", "train.latent_size=4"], "is given twice"),
        (["--set", "train.seed=1,2"], "--seeds says how often"),
        (["--set", "prepare.seed=1,2"], "prepare.seed cannot be swept"),
        (["--set", "model.conv.channels=[8],[16]"], "has no effect: model.name is dense"),
        (["--max-mse", "0.01", "--min-psnr", "20"], "give one of them"),
        (["--max-mse", "-1"], "sweep.max_mse: Input should be greater than 0"),
    ],
)
def test_a_mistake_is_one_line_before_any_training(root, ae, options, words):
    code, out, err = ae("sweep", *options)
    assert (code, out) == (1, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_check_finds_a_mistake_in_the_space(root, ae):
    before = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(before + "sweep: {space: ['train.latent=3']}\n")
    code, _, err = ae("check")
    (root / "params.yaml").write_text(before)
    assert (code, "train.latent is no parameter" in err) == (1, True)


def test_encode_leaves_the_sweeps_database_and_the_benchmarks_codecs(
    tiny_params, synthetic_prepared, tiny_codec, tmp_path
):
    shutil.copytree(synthetic_prepared, tmp_path / "data/prepared")
    shutil.copytree(tiny_codec, tmp_path / "data/codec")
    work = tmp_path / "data/.work"
    long_made = [work / "sweep/0/optuna.db", work / "benchmark/small-0/codec.json"]
    for file in [*long_made, work / "left/over"]:
        file.parent.mkdir(parents=True)
        file.touch()
    run_stage("encode", tiny_params, tmp_path)
    assert all(file.exists() for file in long_made)
    assert {path.name for path in work.iterdir()} == {"sweep", "benchmark"}


def test_a_file_that_shares_values_is_not_written(tmp_path):
    from ae_pipeline.errors import ConfigError
    from ae_pipeline.experiments.sweep.choice import write_choice

    path = tmp_path / "params.yaml"
    text = "train: {latent_size: &size 8, epochs: *size}\n"
    path.write_text(text)
    with pytest.raises(ConfigError, match="shared by & and"):
        write_choice(path, {"train.latent_size": 4})
    with pytest.raises(ConfigError, match=r"has no quantiser\.levels, train\.seed; add it there"):
        write_choice(path, {"quantiser.levels": 4, "train.epochs": 2, "train.seed": 3})
    assert path.read_text() == text
    assert YAML(typ="safe", pure=True).load(text)["train"]["epochs"] == 8
    assert Params().train.latent_size == 28


def test_ends_of_lines_and_links_stay_what_they_are(tmp_path):
    from ae_pipeline.experiments.sweep.choice import write_choice

    text = b"train:\r\n  latent_size: 8  # eight\r\n\n"
    (tmp_path / "real.yaml").write_bytes(text)
    (tmp_path / "params.yaml").symlink_to("real.yaml")
    write_choice(tmp_path / "params.yaml", {"train.latent_size": 16})
    assert (tmp_path / "real.yaml").read_bytes() == text.replace(b"size: 8", b"size: 16")
    assert (tmp_path / "params.yaml").is_symlink()
