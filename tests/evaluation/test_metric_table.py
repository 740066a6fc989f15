"""A metric that somebody adds to the table is everywhere: one is added here, and looked for in every place."""

import json
import shutil

import numpy as np
import pytest
from ready import copy_mlflow_database
from ruamel.yaml import YAML
from trainings import write_lock

from ae_pipeline.cli.stages import run_stage
from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import ConfigError, GateError
from ae_pipeline.evaluation.gate import check_gate
from ae_pipeline.evaluation.measures.metrics import METRICS, Metric
from ae_pipeline.experiments.sweep.results import summarise
from ae_pipeline.experiments.sweep.trial import Trial
from ae_pipeline.operation.champion.comparison import compare_codecs
from ae_pipeline.operation.tracking.publish import publish
from ae_pipeline.params import EncodeParams, GateParams, Params, load_params
from ae_pipeline.params.operation import PromotionParams


def largest(*, original, decoded):
    return np.abs(decoded - original).reshape(len(original), -1).max(axis=1).astype(np.float64)


@pytest.fixture(scope="module", autouse=True)
def added():
    """The one edit: a line in the table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, "largest", Metric("largest", "lower", "largest, of 1", 3, of_rows=largest))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def root(tiny_params, tmp_path_factory):
    """A workspace after all stages, with a limit on the new metric in the gate, the sweep, and a quick benchmark."""
    folder = tmp_path_factory.mktemp("table")
    copy_mlflow_database(folder / "mlruns/mlflow.db")
    tree = tiny_params.model_dump(mode="json")
    tree["train"]["epochs"] = 12  # another codec than tiny_codec
    tree["evaluate"]["gate"] |= {"beat_pca": False, "max_largest": 0.99}
    tree["sweep"] |= {"space": ["train.latent_size=2,6"], "seeds": 1, "max_largest": 0.95}
    tree["bench"] |= {"presets": ["small"], "image_effort": "fast", "single_files": 4, "pca_sizes": [6]}
    tree["bench"]["pca_levels"] = [16]
    YAML().dump(tree, folder / "params.yaml")
    params = load_params(folder / "params.yaml")
    for stage in ("download", "prepare", "train", "evaluate", "encode", "decode"):
        run_stage(stage, params, folder)
    write_lock(folder, "first")
    return folder


@pytest.fixture(scope="module")
def value(root):
    """What the metric is, computed here from the codec alone."""
    return mean_of(root / "data/codec", SampleSet.open(root / "data/prepared/test"))


def mean_of(folder, samples):
    codec, pixels = Codec.load(folder), samples.load().pixels
    apart = np.abs(codec.decode(codec.encode(pixels)) / 255.0 - pixels / 255.0)
    return pytest.approx(apart.reshape(len(pixels), -1).max(axis=1).mean(), rel=1e-5)


def read(root, name):
    return json.loads((root / "reports" / name).read_text())


@pytest.mark.slow
def test_evaluate_reports_it_beside_pca_and_by_class(root, value):
    metrics = read(root, "metrics.json")
    assert metrics["largest"] == value
    assert 0 < metrics["pca_largest"] < 1
    head, *lines = (root / "reports/tables/per_class.csv").read_text().splitlines()
    place = head.split(",").index("largest")
    rows = [(int(cells[1]), float(cells[place])) for cells in (line.split(",") for line in lines)]
    assert sum(count * mean for count, mean in rows) / sum(count for count, _ in rows) == value


@pytest.mark.slow
def test_the_gate_takes_a_limit_on_it_by_name(root, value):
    found = read(root, "metrics.json")
    check_gate(found, GateParams(beat_pca=False, max_largest=found["largest"] * 1.001))
    with pytest.raises(GateError, match=rf"largest is {found['largest']:.6g}, the gate asks for at most 0.01\."):
        check_gate(found, GateParams(beat_pca=False, max_largest=0.01))


@pytest.mark.slow
def test_the_gate_of_params_yaml_stops_the_stage(root, tmp_path):
    params = load_params(root / "params.yaml")
    strict = params.evaluate.model_copy(update={"gate": GateParams(beat_pca=False, max_largest=0.01)})
    copy = tmp_path / "copy"
    shutil.copytree(root / "data", copy / "data", symlinks=True)
    shutil.copytree(root / "reports", copy / "reports")
    with pytest.raises(GateError, match="largest is"):
        run_stage("evaluate", params.model_copy(update={"evaluate": strict}), copy)


@pytest.mark.parametrize("section", ["evaluate: {gate: {%s: 1}}", "sweep: {%s: 1}"])
@pytest.mark.parametrize("key", ["max_larges", "min_largest", "max_ssim", "largest"])
def test_a_limit_on_what_is_no_metric_is_refused_with_the_names_that_there_are(section, key, tmp_path):
    (tmp_path / "params.yaml").write_text(section % key)
    with pytest.raises(ConfigError, match=rf"{key}: unknown key \(known: .*max_mse.*min_ssim.*max_largest\)"):
        load_params(tmp_path / "params.yaml")


def test_a_limit_is_checked_as_a_number_and_may_be_null(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("evaluate: {gate: {min_ssim: high}}")
    with pytest.raises(ConfigError, match=r"evaluate.gate.min_ssim: Input should be a valid number, found 'high'"):
        load_params(path)
    path.write_text("evaluate: {gate: {min_ssim: null, min_r2: -1, max_mse: 2}}")
    limits = load_params(path).evaluate.gate.limits
    assert [(limit.key, limit.metric, limit.value) for limit in limits] == [("max_mse", "mse", 2), ("min_r2", "r2", -1)]


def test_a_metric_where_more_is_better_has_a_least_value():
    passing = {"mse": 0.01, "psnr": 20.0, "bits_per_row": 100.0, "ssim": 0.8}
    check_gate(passing, GateParams(beat_pca=False, min_ssim=0.8))
    with pytest.raises(GateError, match=r"ssim is 0.8, the gate asks for at least 0.81"):
        check_gate(passing, GateParams(beat_pca=False, min_ssim=0.81))
    with pytest.raises(GateError, match="ssim has no value for these rows; remove min_ssim"):
        check_gate({**passing, "ssim": None}, GateParams(beat_pca=False, min_ssim=0.1))


@pytest.mark.slow
def test_promotion_compares_it_and_tells(root, tiny_codec, value):
    test = SampleSet.open(root / "data/prepared/test")
    verdict = compare_codecs(tiny_codec, root / "data/codec", test, PromotionParams(), EncodeParams(device="cpu"))
    before, found = (json.loads(json.dumps(verdict.as_dict()))[name] for name in ("champion", "challenger"))
    assert (before["largest"], found["largest"]) == (mean_of(tiny_codec, test), value)
    (line,) = [line for line in verdict.as_markdown().splitlines() if line.startswith("| largest |")]
    assert line == f"| largest | {before['largest']:.6g} | {found['largest']:.6g} |"
    failed = compare_codecs(
        None,
        root / "data/codec",
        test,
        PromotionParams(),
        EncodeParams(device="cpu"),
        gate=GateParams(beat_pca=False, max_largest=0.01),
    )
    assert "largest is" in failed.reason


@pytest.mark.slow
def test_sweep_goes_by_it_and_reports_it_and_mlflow_has_it(root, ae, monkeypatch):
    import mlflow

    monkeypatch.chdir(root)
    code, out, err = ae("sweep")
    assert code == 0, err
    assert "smallest with largest at most 0.95: latent_size=" in out
    found = read(root, "sweep.json")
    assert found["max_largest"] == 0.95
    assert found["max_mse"] is None
    for setting, trial in zip(found["settings"], found["trials"], strict=True):
        assert setting["largest"] == trial["largest"] > trial["mse"] > 0
    best = min(found["settings"], key=lambda setting: setting["largest"])
    assert found["best"] == best["params"]
    text = (root / "reports/sweep.md").read_text()
    assert "| setting | bits per row | largest, of 1 | MSE | PSNR, dB | seeds | |" in text
    assert f"| {best['largest']:.4f} |" in text
    uri = f"sqlite:///{root}/mlruns/mlflow.db"
    client = mlflow.MlflowClient(uri, uri)
    runs = client.search_runs([client.get_experiment_by_name("ae-pipeline-sweep").experiment_id])
    logged = [run.data.metrics["largest"] for run in runs if "largest" in run.data.metrics]
    assert sorted(logged) == sorted(trial["largest"] for trial in found["trials"])
    (parent,) = [run for run in runs if "best_largest" in run.data.metrics]
    assert parent.data.metrics["best_largest"] == best["largest"]


def test_a_sweep_by_the_mse_reports_it_as_well():
    trials = [
        Trial({"train.latent_size": size}, 0, "finished", 1, 1.0, {"bits_per_row": 8 * size, "mse": 1 / size, **more})
        for size, more in ((2, {"largest": 0.5}), (4, {"largest": 0.25}))
    ]
    results = summarise(trials, None)
    assert results.best.describe() == (
        "latent_size=4: 32.0 bits per row, MSE 0.250000, PSNR 6.02 dB, largest 0.2500 of 1 (1 seed)"
    )


def test_where_more_is_better_a_sweep_looks_for_the_highest():
    def trial(size, ssim):
        metrics = {"bits_per_row": 8.0 * size, "mse": 1 / size, "ssim": ssim}
        return Trial({"train.latent_size": size}, 0, "finished", 1, 1.0, metrics)

    results = summarise([trial(2, 0.5), trial(4, 0.9), trial(8, 0.7)], 0.8, "ssim")
    assert [item.setting["train.latent_size"] for item in results.front] == [2, 4]
    assert results.smallest.setting == results.best.setting == {"train.latent_size": 4}
    assert "SSIM 0.90000, MSE 0.250000" in results.best.describe()


def test_one_tolerance_at_most(tmp_path):
    for text, why in (
        ("{max_mse: 1, max_largest: 1}", "a sweep has one tolerance, found max_mse, max_largest"),
        ("{max_bits_per_row: 9}", "max_bits_per_row is no tolerance"),
    ):
        (tmp_path / "params.yaml").write_text(f"sweep: {text}")
        with pytest.raises(ConfigError, match=why):
            load_params(tmp_path / "params.yaml")


@pytest.mark.slow
def test_the_benchmark_has_a_column_of_it(root, ae, monkeypatch):
    monkeypatch.chdir(root)
    code, _, err = ae("bench", "--rows", "60")
    assert code == 0, err
    rows = {row["name"]: row for row in read(root, "bench.json")["rows"]}
    assert rows["zstd 19"]["largest"] == 0
    own = rows["small (list)"]
    (folder,) = (root / "data/.work/benchmark").glob("small-*")
    pixels = SampleSet.open(root / "data/prepared/test").load().pixels[:60]
    codec = Codec.load(folder)
    apart = np.abs(codec.decode(codec.encode(pixels)) / 255.0 - pixels / 255.0).reshape(60, -1).max(axis=1)
    assert own["largest"] == pytest.approx(apart.mean(), rel=1e-5)
    text = (root / "reports/bench.md").read_text()
    heads = "| | bits per row | with codec | MSE | PSNR, dB | SSIM | largest, of 1 | encode, rows/s | decode, rows/s |"
    assert heads in text
    (line,) = [line for line in text.splitlines() if line.startswith("| **small (list)** |")]
    assert f"| {own['largest']:.3f} |" in line


@pytest.mark.slow
def test_mlflow_and_the_flows_table_have_it(root, value, monkeypatch):
    import mlflow

    from flows import artifacts

    done = publish(load_params(root / "params.yaml"), root)
    uri = f"sqlite:///{root}/mlruns/mlflow.db"
    assert mlflow.MlflowClient(uri, uri).get_run(done.run_id).data.metrics["largest"] == value
    tables = []
    monkeypatch.setattr(artifacts, "create_table_artifact", lambda rows, *_: tables.append(rows))
    metrics = read(root, "metrics.json")
    artifacts.metrics_table({**metrics, "largest": 2 * metrics["largest"]}, metrics)
    (line,) = [row for row in tables[0] if row["metric"] == "largest"]
    assert (line["now"], line["last run"]) == tuple(float(f"{n * metrics['largest']:.5g}") for n in (1, 2))


def test_without_a_place_in_reports_it_is_in_metrics_json_alone():
    assert [name for name, metric in METRICS.items() if "sweep" in metric.reports] == ["mse", "psnr", "largest"]
    of_clips = ["segmental_snr", "log_mel_distance"]
    assert [name for name, metric in METRICS.items() if "promotion" in metric.reports] == ["mse", *of_clips, "largest"]
    assert [name for name, metric in METRICS.items() if "bench" in metric.reports] == [
        "mse",
        "psnr",
        "ssim",
        "cosine",
        "recall_at_10",
        "snr",
        *of_clips,
        "picture_psnr",
        "picture_ssim",
        "largest",
    ]


def test_params_without_other_limits_are_as_they_were():
    assert set(Params().evaluate.gate.model_dump()) == {"max_mse", "min_psnr", "max_bits_per_row", "beat_pca"}
    assert [limit.key for limit in Params().sweep.limits] == []
