"""The DVC pipeline in a temporary clone, on the synthetic source, logged to a real MLflow store of its own.

The tests build on each other in the order of the file, as a day of work would: every `dvc repro` costs seconds.
"""

import json

import pytest
from clone import SMALL, ran
from documents import blocks, not_in
from handmade import bytes_of

from ae_pipeline.cli.stages import CODE, STAGES
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.provenance import CODE_FILE
from ae_pipeline.store.latent_store import LatentStore

pytestmark = pytest.mark.slow

EPOCHS = SMALL["train"]["epochs"]


@pytest.fixture
def runs(clone):
    """Runs and the version that is challenger, as MLflow has them now."""

    def read():
        import mlflow

        uri = f"sqlite:///{clone.folder}/mlruns/mlflow.db"
        client = mlflow.MlflowClient(uri, uri)
        experiment = client.get_experiment_by_name("ae-pipeline")
        found = client.search_runs([experiment.experiment_id])
        return found, client.get_model_version_by_alias("synthetic-ae", "challenger")

    return read


def test_a_first_repro_runs_all_stages_and_ends_logged(clone, runs):
    _, output = clone.dvc("repro")
    assert ran(output) == [CODE, *STAGES]
    assert "Traceback" not in output
    (shown,) = [block.commands()[0][1] for block in blocks("README.md", "console") if "$ make run" in block.text]
    assert not_in(shown, output + clone.run("ae-pipeline", "summary")[1]) == []
    found, challenger = runs()
    assert [run.info.status for run in found] == ["FINISHED"]
    assert found[0].info.artifact_uri.startswith(f"file://{clone.folder}/mlruns/artifacts/")
    assert str(challenger.version) == "1"
    assert challenger.run_id == found[0].info.run_id
    assert clone.dvc("status", "dvc.yaml")[1].split() == [f"{CODE}:", "always", "changed"]


def test_the_run_says_what_the_files_say(clone, runs):
    (run,), _ = runs()
    metrics = json.loads((clone.folder / "reports/metrics.json").read_text())
    for name, value in metrics.items():
        assert value is None or run.data.metrics[name] == pytest.approx(value), name
    assert run.data.params["train.latent_size"] == "6"
    assert run.data.params["model.dense.hidden_sizes"] == "[48]"
    codec = json.loads((clone.folder / "data/codec/codec.json").read_text())
    assert run.data.tags["codec_fingerprint"] == codec["fingerprint"]
    assert run.data.tags["data_digest"] == SampleSet.open(clone.folder / "data/prepared/train").digest
    assert codec["provenance"]["git"]["commit"] == run.data.tags["git_commit"]
    assert codec["provenance"]["git"]["dirty"] is False


def test_stores_decode_and_the_round_trip_agrees_with_them(clone):
    report = json.loads((clone.folder / "reports/round_trip.json").read_text())
    for name in ("train", "validation", "test"):
        store = LatentStore.open(clone.folder / "data/latents" / name)
        assert store.manifest.totals.rows == report[name]["rows"]
        assert SampleSet.open(clone.folder / "data/decoded" / name).rows == report[name]["rows"]
        assert store.manifest.source.name == f"synthetic/{name}"
    assert report["test"]["mse"] == pytest.approx(
        json.loads((clone.folder / "reports/metrics.json").read_text())["mse"]
    )


def test_the_summary_shows_the_table_and_the_places(clone):
    _, output = clone.run("ae-pipeline", "summary")
    words = ("train", "validation", "test", "ratio", "data/latents", "reports/pictures", "make mlflow-ui")
    for word in (*words, "answering each value's mean has MSE 0.0", "so r2 is 0.", "values that vary come back worse"):
        assert word in output
    _, output = clone.run("ae-pipeline", "summary", "--json")
    assert json.loads(output)["data_sets"]["test"]["rows"] == 300


def test_a_second_repro_looks_at_the_code_and_runs_nothing_else(clone, runs):
    assert ran(clone.dvc("repro")[1]) == [CODE]
    assert clone.git("check-ignore", CODE_FILE)[1].split() == [CODE_FILE]
    assert len(runs()[0]) == 1
    clone.commit("first results")


def test_a_change_of_the_gate_re_evaluates_and_updates_the_same_run(clone, runs):
    clone.change({"evaluate": {"gate": {"max_mse": 0.04}}})
    assert ran(clone.dvc("repro")[1]) == [CODE, "evaluate"]
    found, challenger = runs()
    assert len(found) == 1
    assert str(challenger.version) == "1"


def test_a_change_of_the_training_trains_and_makes_a_second_version(clone, runs):
    clone.change({"train": {"epochs": EPOCHS + 2}})
    assert ran(clone.dvc("repro")[1]) == [CODE, "train", "evaluate", "encode", "decode", "publish"]
    found, challenger = runs()
    assert len(found) == 2
    assert str(challenger.version) == "2"
    assert "train.epochs" in clone.dvc("params", "diff")[1]
    assert "mse" in clone.dvc("metrics", "diff")[1]


def test_changing_back_restores_from_the_cache_and_finds_the_first_run(clone, runs):
    clone.change({"train": {"epochs": EPOCHS}})
    _, output = clone.dvc("repro")
    assert "is cached - skipping run, checking out outputs" in output
    assert "train" not in ran(output)
    found, challenger = runs()
    assert len(found) == 2
    assert str(challenger.version) == "1"


def test_a_failed_gate_stops_with_the_numbers_and_nothing_after_it_runs(clone):
    clone.change({"evaluate": {"gate": {"max_mse": 1e-9}}})
    code, output = clone.dvc("repro", check=False)
    assert code != 0
    assert "error: the codec does not pass evaluate.gate: mse is 0.0" in output
    assert "Traceback" not in output
    assert "encode" not in ran(output)
    clone.change({"evaluate": {"gate": {"max_mse": 0.04}}})
    clone.dvc("repro")


def test_what_a_failed_run_left_is_neither_published_nor_summed_up(clone, runs):
    before = runs()
    clone.change({"train": {"epochs": EPOCHS + 3}, "evaluate": {"gate": {"max_mse": 1e-9}}})
    assert clone.dvc("repro", check=False)[0] != 0
    for command in ("publish", "summary"):
        code, output = clone.run("ae-pipeline", command, check=False)
        assert code == 1
        assert "error: stage `evaluate` has not succeeded since data/codec was made" in output
    assert [run.info.run_id for run in runs()[0]] == [run.info.run_id for run in before[0]]
    clone.change({"train": {"epochs": EPOCHS}, "evaluate": {"gate": {"max_mse": 0.04}}})
    code, output = clone.run("ae-pipeline", "summary", check=False)
    assert code == 1
    assert "run `dvc repro`" in output
    clone.dvc("repro")
    assert runs()[1].version == before[1].version
    clone.run("ae-pipeline", "summary")


def test_with_the_server_away_everything_but_publish_is_done(clone):
    clone.change({"train": {"seed": 5}})
    away = "http://127.0.0.1:9"
    code, output = clone.dvc("repro", check=False, MLFLOW_TRACKING_URI=away)
    assert code != 0
    assert ran(output)[-1] == "publish"
    assert f"error: MLflow at {away} failed" in output
    assert "ae-pipeline publish" in output
    assert "Traceback" not in output
    assert LatentStore.open(clone.folder / "data/latents/test").manifest.totals.rows == 300
    _, output = clone.run("ae-pipeline", "publish", "--json")
    assert json.loads(output)["outcome"] == "created"


def test_experiments_take_a_parameter_and_are_listed(clone):
    clone.dvc("repro")
    clone.commit("seed 5")
    clone.dvc("exp", "run", "-S", "train.latent_size=4", "--name", "four")
    _, output = clone.dvc("exp", "show", "--csv")
    assert "four" in output
    assert "metrics.json:mse" in output.splitlines()[0].replace("reports/", "") or "mse" in output.splitlines()[0]
    metrics = json.loads((clone.folder / "reports/metrics.json").read_text())
    assert metrics["latent_bits_per_row"] < 4 * 8


def test_the_queue_takes_every_combination_as_the_guide_says(clone):
    sizes = ("-S", "train.latent_size=4,5", "-S", "quantiser.levels=8,16")
    clone.dvc("exp", "run", "--queue", *sizes, "-S", "evaluate.gate.max_mse=null", "-S", "tracking.registered_model=x")
    assert clone.dvc("queue", "status")[1].count("Queued") == 4
    clone.dvc("queue", "remove", "--queued")


def test_plots_show_draws_a_page_with_every_picture(clone):
    clone.dvc("plots", "show")
    page = (clone.folder / "dvc_plots/index.html").read_text()
    for name in ("learning curves", "error by class", "rate and distortion", "reconstructions.png"):
        assert name in page
    _, output = clone.dvc("metrics", "show")
    assert "psnr" in output


def test_a_wrong_params_yaml_lists_all_mistakes_at_once(clone):
    before = (clone.folder / "params.yaml").read_text()
    clone.change({"train": {"epochs": "many", "latent_siz": 3}, "quantiser": {"levels": 1}})
    code, output = clone.run("ae-pipeline", "stage", "train", check=False)
    (clone.folder / "params.yaml").write_text(before)
    assert code == 1
    for word in ("train.epochs", "train.latent_siz", "quantiser.levels", "3 problem(s)"):
        assert word in output
    assert "Traceback" not in output


def test_an_edit_in_a_room_runs_the_stages_that_the_room_can_change(clone):
    def edit(name):
        with open(clone.folder / "ae_pipeline" / name, "a") as file:
            file.write("# A remark.\n")
        return ran(clone.dvc("repro")[1])

    clone.dvc("repro")
    lock = (clone.folder / "dvc.lock").read_bytes()
    for name in ("operation/monitoring.py", "experiments/sweep/choice.py", "cli/main.py", "store/care/verify.py"):
        assert edit(name) == [CODE]
    # What they make is the same, byte for byte: `publish` may have nothing to do.
    assert edit("codec/arithmetic.py")[:5] == [CODE, "train", "evaluate", "encode", "decode"]
    clone.git("checkout", "--", "ae_pipeline")
    (clone.folder / "dvc.lock").write_bytes(lock)
    assert ran(clone.dvc("repro")[1]) == [CODE]


# Python runs a module of this name at its start. It notes the parts that get their names, and kills at a wanted one.
WATCH = """
import os, signal, sys
if sys.orig_argv[-2:] in (["stage", "encode"], ["stage", "train"]):
    def note(event, arguments):
        name = os.path.basename(arguments[1]) if event == "os.rename" else ""
        if name.startswith("part-") or name == "codec":
            with open(os.environ["NOTED"], "a") as file:
                print(arguments[1], file=file)
            if os.environ["KILL_AT"] and os.environ["KILL_AT"] in str(arguments[1]):
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(note)
"""


def test_a_killed_encode_goes_on_with_the_next_repro(clone, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    noted = tmp_path / "noted"

    def encode(*options, kill_at="", **others):
        noted.write_text("")
        environment = {"PYTHONPATH": str(tmp_path), "NOTED": str(noted), "KILL_AT": kill_at}
        code, output = clone.dvc("repro", *options, "encode", **environment, **others)
        return code, output, noted.read_text().splitlines()

    clone.change({"encode": {"row_group_rows": 77}})
    code, output, parts = encode(kill_at=".test.", check=False)
    assert code != 0
    assert ran(output) == [CODE, "encode"]
    assert len(parts) == 3 + 1 + 1  # of train and validation all; the only one of test was in flight
    assert not (clone.folder / "data/latents").exists()
    _, output, parts = encode()
    assert ran(output) == [CODE, "encode"]
    assert len(parts) == 1
    resumed = bytes_of(clone.folder / "data/latents")
    assert not (clone.folder / "data/.work").exists()
    _, _, parts = encode("--force", "--single-item")
    assert len(parts) == 5
    assert bytes_of(clone.folder / "data/latents") == resumed


def test_a_killed_training_goes_on_with_the_next_repro_to_the_same_codec(clone, tmp_path):
    codec = clone.folder / "data/codec/codec.json"
    clone.dvc("repro", "train")
    wanted = json.loads(codec.read_text())["fingerprint"]
    clone.change({"checkpoint": {"epochs": 5}})
    assert ran(clone.dvc("repro", "train")[1]) == [CODE]
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    environment = {"PYTHONPATH": str(tmp_path), "NOTED": str(tmp_path / "noted")}
    force = ("repro", "--force", "--single-item", "train")
    code, _ = clone.dvc(*force, check=False, KILL_AT="data/codec", **environment)
    assert code != 0
    assert not codec.exists()
    _, output = clone.dvc(*force)  # without force DVC takes the first one from its cache
    assert f"training goes on from epoch 11 of {EPOCHS}, saved at " in output
    assert json.loads(codec.read_text())["fingerprint"] == wanted
    assert not (clone.folder / "data/.work").exists()
