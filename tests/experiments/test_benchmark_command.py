"""The benchmark's presets, and the command as a whole."""

import json
from dataclasses import replace

import pytest
from clone import ROOT, read_yaml
from ruamel.yaml import YAML
from test_benchmark import FAST
from test_benchmark_curves import BITS, curve_of

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import ConfigError
from ae_pipeline.experiments.benchmark.ours import TRAINING_CODE
from ae_pipeline.experiments.benchmark.points import OURS
from ae_pipeline.experiments.benchmark.report import draw, format_report
from ae_pipeline.experiments.benchmark.run import rows_measured
from ae_pipeline.experiments.presets import (
    FOR_OTHERS,
    FOR_VECTORS,
    TILES,
    WITHIN_A_BOUND,
    preset_names,
    preset_params,
    suiting,
)
from ae_pipeline.params import Params, load_params

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("names", [FOR_OTHERS[:3], FOR_OTHERS[3:], FOR_VECTORS])
def test_presets_that_belong_together_are_three_points_of_one_curve(names):
    found = [preset_params(name) for name in names]
    assert len({(params.model.name, params.train.neighbour_weight) for params in found}) == 1
    assert sorted(found, key=lambda params: -params.train.rate_weight) == found
    assert sorted(found, key=lambda params: params.train.latent_size) == found


@pytest.mark.parametrize(
    ("shape", "dtype", "rows"),
    [
        ((28, 28), "uint8", 10_000),
        ((64, 64, 3), "uint8", 2730),
        ((8192, 8192, 3), "uint8", 1),
        ((784,), "float32", 10_000),
        ((12_288,), "float32", 5461),
    ],
)
def test_rows_are_as_many_as_memory_and_patience_are_for(shape, dtype, rows):
    assert rows_measured(SampleSpec(shape, dtype), 10_000) == rows


def test_every_preset_is_measured_on_the_rows_that_it_suits():
    kinds = [((256,), "audio"), ((28, 28), "image"), ((64, 64, 3), "image"), ((32, 32), TILES)]
    found = [*suiting((256,)), *(name for shape, kind in kinds for name in suiting(shape, kind))]
    assert sorted([*found, *WITHIN_A_BOUND]) == preset_names()
    assert {preset_params(name).model.dense.linear_path for name in suiting((256,))} == {True}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_written_into_params_yaml_and_nothing_else_changes(ae, name, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    before = load_params(path)
    code, out, error = ae("preset", name, "--params", path)
    assert code == 0, error
    assert load_params(path) == preset_params(name, before)
    assert "The quality gate there (evaluate.gate) is unchanged: max_mse 0.0052." in out
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)  # as PyYAML reads: 8e-05 is a text there
    assert yaml.load(path)["train"]["rate_weight"] == preset_params(name, before).train.rate_weight
    code, _, error = ae("preset", "huge", "--params", path)
    assert (code, "expected one of balanced, bold, compact, compact_balanced," in error) == (1, True)


@pytest.mark.parametrize("name", preset_names())
def test_presets_keep_what_the_workspace_says_of_everything_else(name):
    base = Params.model_validate({"source": {"name": "idx"}, "train": {"device": "cpu"}, "paths": {"raw": "here"}})
    chosen = preset_params(name, base)
    assert (chosen.source.name, chosen.train.device, chosen.paths.raw) == ("idx", "cpu", "here")


def test_a_trained_preset_is_known_by_the_code_that_trains():
    (listed,) = [item for item in read_yaml(ROOT / "dvc.yaml")["stages"]["train"]["params"] if isinstance(item, dict)]
    named = {name.removeprefix("ae_pipeline/").split("/")[0] for name in listed["code.json"]}
    assert named - {"cli"} <= set(TRAINING_CODE)


@pytest.fixture(scope="module")
def workspace(synthetic_prepared, tmp_path_factory):
    """A workspace with prepared data, in which the benchmark is quick."""
    root = tmp_path_factory.mktemp("bench")
    (root / "data").mkdir()
    (root / "data" / "prepared").symlink_to(synthetic_prepared)
    values = {"source": {"name": "synthetic"}, "train": {"device": "cpu"}, "encode": {"device": "cpu"}}
    YAML().dump({**values, "bench": FAST.model_dump()}, root / "params.yaml")
    return root


@pytest.fixture
def bench(ae, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    return lambda *arguments: ae("bench", *arguments)


def test_the_command_writes_table_report_and_picture_and_a_second_run_does_not_train(bench, workspace):
    code, out, error = bench("--rows", "60")
    assert (code, "epoch 1/" in error, "epoch" in out) == (0, True, False), error
    result = json.loads((workspace / "reports" / "bench.json").read_text())
    assert result["row_counts"] == {"measured": 60, "train": 540, "validation": 60, "test": 150}
    assert {"balanced (list)", "zstd 19", "JPEG q1, files"} <= {row["name"] for row in result["rows"]}
    assert result["verdict"]["choices"][0]["preset"].startswith("balanced")
    assert result["verdict"]["summary"] in out
    text = (workspace / "reports" / "bench.md").read_text()
    assert all(row["name"] in text for row in result["rows"])
    assert (workspace / "reports" / "bench.png").read_bytes().startswith(b"\x89PNG")
    again = bench("--rows", "60", "--json")
    assert (again[0], "epoch" in again[2]) == (0, False)
    same = {row["name"]: row["bits_per_row"] for row in json.loads(again[1])["rows"]}
    assert same == {row["name"]: row["bits_per_row"] for row in result["rows"]}


def test_codecs_of_other_inputs_make_room_and_those_of_other_presets_stay(bench, workspace):
    work = workspace / "data" / ".work" / "benchmark"
    former, other = (work / f"{name}-0123456789abcdef" for name in ("balanced", "balanced-wide"))
    for folder in (former, other):
        folder.mkdir(parents=True)
    assert bench("--rows", "60")[0] == 0
    assert (former.exists(), other.exists()) == (False, True)


def test_a_kept_codec_that_is_damaged_is_trained_again(bench, workspace):
    (weights,) = (workspace / "data" / ".work" / "benchmark").glob("balanced-[0-9a-f]*/weights.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    code, _, error = bench("--rows", "60")
    assert (code, "epoch 1/" in error, len(weights.read_bytes())) == (0, True, len(whole))


def test_a_preset_that_there_is_not_is_told_before_any_work(bench):
    code, _, error = bench("--preset", "huge")
    assert code == 1
    assert error.startswith("error: no preset 'huge'; expected one of balanced, bold, compact, compact_balanced,")
    with pytest.raises(ConfigError):
        preset_params("../params")


def test_without_prepared_data_the_error_says_what_is_missing(ae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("{}")
    for command in ("bench", "sweep"):
        code, _, error = ae(command)
        assert code == 1
        assert error.startswith(f"error: no data in {tmp_path / 'data/prepared/train'}; run `dvc repro prepare` first")


def test_a_stage_that_has_run_says_how_to_run_it_again(ae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("{source: {name: synthetic}}")
    assert ae("stage", "download")[0] == 0
    code, _, error = ae("stage", "download")
    assert code == 1
    assert "data/raw exists already" in error
    assert "`dvc repro --force --single-item code download`" in error


def test_the_stage_of_the_benchmark_is_no_part_of_the_pipeline_and_its_values_exist():
    entry = read_yaml(ROOT / "bench" / "dvc.yaml")["stages"]["bench"]
    assert entry["cmd"] == "python -m ae_pipeline bench"
    values = read_yaml(ROOT / "params.yaml")
    assert {"code.json": ["ae_pipeline"]} in entry["params"]
    assert {name.split(".")[0] for name in entry["params"] if isinstance(name, str)} <= set(values)
    assert "bench" not in read_yaml(ROOT / "dvc.yaml")["stages"]


def test_a_report_is_made_of_any_result():
    """Rows that are no images, one curve, nothing lossless."""
    rows = [found.as_dict() for found in (*curve_of(OURS, BITS, 1000), *curve_of("PCA", BITS))]
    result = {
        "data_set": "made up",
        "samples": "float32 7",
        "row_counts": {"measured": 100, "train": 1000},
        "date": "2026-01-01",
        "machine": {"processor": "p", "cpus": 1, "threads": 1, "cuda": None, "load": 0.0, "versions": {}},
        "verdict": {"summary": "Use it.", "choices": [], "limit": None},
        "bd_rate": [
            {"anchor": "PCA", "with_codec": True, "change": -0.25, "psnr_from": 20.0, "psnr_to": 30.0},
            {"anchor": "JPEG files", "with_codec": True, "change": None, "psnr_from": None, "psnr_to": None},
        ],
        "left_out": ["JPEG: no images"],
        "rows": rows,
    }
    text = format_report(result)
    assert "| PCA | counted | -25% | 20.0 to 30.0 dB |" in text
    assert "- JPEG: no images" in text
    assert [axis.get_title() for axis in draw(result).axes] == ["without codec", "with codec, shared by 100 rows"]


def test_in_the_picture_every_codec_of_ours_has_its_number_at_its_place():
    near = [
        replace(found, name=f"{name} (list)", setting="list")
        for found, name in zip(curve_of(OURS, BITS, 1000), "abcd", strict=True)
    ]
    result = {
        "data_set": "x",
        "samples": "x",
        "row_counts": {"measured": 9},
        "rows": [found.as_dict() for found in near],
    }
    figure = draw(result)
    assert "autoencoder: 1 a, 2 b, 3 c, 4 d" in figure.get_suptitle()
    for axis, key in zip(figure.axes, ("bits_per_row", "bits_per_row_with_codec"), strict=True):
        places = {text.get_text(): text.xy for text in axis.texts}
        assert places == {str(n): (getattr(found, key), found.psnr) for n, found in enumerate(near, 1)}
