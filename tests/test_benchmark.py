"""The benchmark's parts: curves, mosaics, counting, presets, and the command as a whole."""

import json
import lzma
import math
import sys

import numpy as np
import pytest
from handmade import encode, random_pixels, write_rows
from ruamel.yaml import YAML
from test_benchmark_verdict import point
from test_wiring import ROOT, read_yaml

from ae_pipeline.benchmark.bd_rate import bd_rate, savings
from ae_pipeline.benchmark.curves import cost, front
from ae_pipeline.benchmark.image_codecs import measure_image_codecs, shared_prefix, why_no_images
from ae_pipeline.benchmark.image_formats import FORMATS, decode_image, encode_image
from ae_pipeline.benchmark.lossless import measure_lossless
from ae_pipeline.benchmark.mosaic import Grid
from ae_pipeline.benchmark.ours import TRAINING_CODE
from ae_pipeline.benchmark.pca import codec_bytes, column_bits, measure_pca
from ae_pipeline.benchmark.points import OURS, take_rows
from ae_pipeline.benchmark.presets import preset_names, preset_params
from ae_pipeline.benchmark.report import draw, format_report
from ae_pipeline.benchmark.run import _fitting
from ae_pipeline.codec import Codec
from ae_pipeline.codec_header import Scaling
from ae_pipeline.errors import ConfigError
from ae_pipeline.metrics import psnr_of
from ae_pipeline.params import EncodeParams, Params, load_params
from ae_pipeline.params_benchmark import BenchParams
from ae_pipeline.pixels import SampleSpec
from ae_pipeline.samples import SampleSet
from ae_pipeline.store.layouts import LAYOUTS

CPU = EncodeParams(device="cpu")
BYTES = Scaling(offset=0.0, scale=255.0)
FAST = BenchParams(presets=["balanced"], image_effort="fast", single_files=20, pca_sizes=[2, 6, 500], pca_levels=[16])


def rows_of(tmp_path, pixels):
    samples = write_rows(tmp_path / "rows.parquet", pixels, id=list(range(len(pixels))))
    return take_rows(samples, len(pixels), BYTES, tmp_path / "taken")


@pytest.fixture
def synthetic(synthetic_prepared, tmp_path):
    return take_rows(SampleSet.open(synthetic_prepared / "test"), 150, BYTES, tmp_path / "taken")


# Curves and BD-rate.


def curve_of(family, bits, codec_bytes=0):
    return [point(family, b, mse, codec_bytes, str(b)) for b, mse in zip(bits, (0.02, 0.01, 0.004, 0.001), strict=True)]


BITS = [50.0, 90.0, 200.0, 400.0]


def test_the_front_has_no_point_that_another_one_beats():
    points = [*curve_of("a", BITS), point("a", 95.0, 0.01), point("a", 60.0, 0.03), point("a", 50.0, 0.05)]
    assert front(points, lambda found: found.bits_per_row) == points[:4]


def test_half_the_bits_everywhere_is_a_bd_rate_of_minus_one_half():
    halved = curve_of("b", [bits / 2 for bits in BITS])
    change, low, high = bd_rate(curve_of("a", BITS), halved, math.inf)
    assert change == pytest.approx(-0.5)
    assert (low, high) == pytest.approx((10 * math.log10(50), 30))
    assert bd_rate(halved, curve_of("a", BITS), math.inf)[0] == pytest.approx(1.0)


def test_a_setting_that_a_mixture_beats_does_not_bend_the_curve():
    """Between two settings in bits and error: what mixing them beats changes nothing."""
    anchor = [point("a", bits, error) for bits, error in ((100.0, 1e-1), (10_000.0, 1e-3))]
    family = [point("b", 60.0, 8e-3), point("b", 300.0, 2e-3)]
    between = [point("b", 180.0, error) for error in (7e-3, 5.01e-3, 2.5e-3)]  # the line is at 5e-3
    rates = [bd_rate(anchor, [*family, more], math.inf)[0] for more in between]
    without = bd_rate(anchor, family, math.inf)[0]
    assert rates[:2] == [without, without]
    assert rates[2] < without
    assert bd_rate([*family, between[0]], anchor, math.inf) == bd_rate(family, anchor, math.inf)


def test_bd_rate_is_the_area_between_straight_lines_over_what_both_cover():
    """Two points each: lines in log10(bits) over PSNR, whose mean difference is that in the middle."""
    anchor = [point("a", 100.0, 1e-1), point("a", 10_000.0, 1e-3)]  # 10 to 30 dB: log10 is 1 + psnr / 10
    tested = [point("b", 1000.0, 1e-2), point("b", 10_000.0, 1e-4)]  # 20 to 40 dB: log10 is 2 + psnr / 20
    change, low, high = bd_rate(anchor, tested, math.inf)
    assert (low, high) == pytest.approx((20, 30))
    assert change == pytest.approx(10 ** ((2 + 25 / 20) - (1 + 25 / 10)) - 1)


@pytest.mark.parametrize(
    "tested",
    [curve_of("b", BITS)[:1], [], [point("b", 1.0, 0.5), point("b", 2.0, 0.4)], [point("b", 9.0, 0.0)] * 2],
    ids=["one point", "none", "no quality in common", "lossless"],
)
def test_there_is_no_bd_rate_without_two_curves_over_the_same_qualities(tested):
    assert bd_rate(curve_of("a", BITS), tested, math.inf) is None


def test_savings_are_told_with_the_codec_and_without():
    points = [*curve_of(OURS, BITS, 1000), *curve_of("PCA", BITS), point("zstd", 900.0, 0.0)]
    without, counted = savings(points, 100)
    assert (without.anchor, without.with_codec, without.change) == ("PCA", False, pytest.approx(0, abs=1e-12))
    assert (counted.with_codec, counted.change > 0.1) == (True, True)


def test_a_curve_costs_no_more_than_the_next_better_point_and_is_not_extended():
    points = curve_of("a", BITS)
    between = cost(points, 22.0, math.inf)
    assert (between.worse.bits_per_row, between.point.bits_per_row) == (90.0, 200.0)
    assert 90 < between.bits < 200
    assert cost(points, 5.0, math.inf).bits == 50
    assert cost(points, 30.1, math.inf) is None
    assert cost(points, None, math.inf) is None
    assert cost([*points, point("a", 900.0, 0.0)], 30.1, math.inf).bits == 900


def test_between_settings_that_are_far_apart_rows_are_divided():
    points = [point("a", bits, mse, 0, str(bits)) for bits, mse in ((50.0, 0.01), (200.0, 0.002))]  # 7 dB
    found = cost(points, psnr_of(0.004), math.inf)
    assert found.bits == pytest.approx(50 + 0.75 * 150)
    assert (found.point, found.worse) == (points[1], points[0])


def test_less_than_half_a_decibel_in_common_is_no_bd_rate():
    anchor = [point("a", 100.0, 1e-2), point("a", 200.0, 1e-3)]  # 20 to 30 dB
    tested = [[point("b", 100.0, 10 ** -(start / 10)), point("b", 200.0, 1e-4)] for start in (29.6, 29.4)]
    assert [bd_rate(anchor, points, math.inf) is None for points in tested] == [True, False]


# Counting.


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("most_side", [8192, 20, 3])
def test_a_mosaic_gives_every_image_back(channels, most_side):
    images = random_pixels((23, 5, 4, *channels), "uint8")
    grid = Grid.of(23, 5, 4, most_side)
    assert max(grid.lines * 5, grid.columns * 4) <= max(most_side, 5)
    back = []
    for start in range(0, 23, grid.images):
        picture = grid.join(images[start : start + grid.images])
        assert picture.shape[2:] == channels
        back.append(grid.cut(picture, images.shape[1:]))
    assert (np.concatenate(back)[:23] == images).all()


def test_a_shared_prefix_is_that_of_all_files():
    assert shared_prefix([b"headABC", b"headAx", b"headB"]) == 4
    assert shared_prefix([b"head", b"head"]) == shared_prefix([b"head", b"header"]) == 4
    assert shared_prefix([b"a", b"b"]) == shared_prefix([b"alone"]) == 0


@pytest.mark.parametrize(("shape", "dtype"), [((8,), "uint8"), ((8, 8, 2), "uint8"), ((8, 8), "float32")])
def test_rows_that_are_no_images_are_told_and_left_out(shape, dtype, tmp_path):
    assert why_no_images(SampleSpec((8, 8, 3), "uint8")) is None
    points, left_out = measure_image_codecs(rows_of(tmp_path, random_pixels((4, *shape), dtype)), FAST)
    assert points == []
    assert SampleSpec(shape, dtype).describe() in left_out[0]


def test_presets_for_images_are_left_out_of_other_rows_before_any_training():
    presets = {name: preset_params(name) for name in preset_names()}
    fit, (reason, *_) = _fitting(presets, SampleSpec((12,), "uint8"))
    assert set(fit) == {"small", "balanced", "fine"}
    assert reason.startswith("preset compact: model.name: patches needs samples of shape height x width")
    with pytest.raises(ConfigError, match=r"none of the presets compact is for samples of uint8 12: .*choose others"):
        _fitting({"compact": presets["compact"]}, SampleSpec((12,), "uint8"))


def test_a_codec_that_is_not_installed_is_told_and_left_out(synthetic, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    monkeypatch.setitem(sys.modules, "brotli", None)
    (why,) = [form.missing() for form in FORMATS if form.plugin]
    assert "ae-pipeline[alternatives]" in why
    points, (left_out,) = measure_lossless(synthetic)
    assert left_out.startswith("brotli:")
    assert "brotli" not in {found.family for found in points}


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_image_codecs_count_what_pillow_writes(form, channels, tmp_path):
    if form.missing():
        pytest.skip(form.missing())
    smooth = np.linspace(0, 255, 30 * 12 * 10 * max(1, *channels, 1)).astype(np.uint8).reshape(30, 12, 10, *channels)
    rows = rows_of(tmp_path, smooth)
    points, _ = measure_image_codecs(rows, FAST)
    families = {f"{form.name} {kind}" for kind in ("mosaic", "files", "files, header once")}
    found = [each for each in points if each.family in families]
    assert {each.family for each in found} == families
    settings = {setting.name: setting for setting in form.settings("fast", channels != (3,))}
    for each in found:
        if each.family.endswith("files"):
            chosen = rows.pixels[np.linspace(0, 29, 20).round().astype(int)]
            files = [encode_image(image, form, settings[each.setting]) for image in chosen]
            assert each.bits_per_row == 8 * sum(map(len, files)) / 20
            back = np.stack([decode_image(file, form, grey=channels != (3,)) for file in files]).reshape(chosen.shape)
            assert each.mse == pytest.approx(((back / 255 - chosen / 255) ** 2).mean(), rel=1e-4, abs=1e-12)
        if settings[each.setting].lossless:
            assert (each.mse, each.psnr) == (0, None)


def test_lossless_streams_are_those_of_the_raw_rows_and_come_back(synthetic):
    points = {found.name: found for found in measure_lossless(synthetic)[0]}
    raw = synthetic.pixels.tobytes()
    assert points["xz 9e"].bits_per_row == 8 * len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)) / 150
    assert {found.mse for found in points.values()} == {0}
    assert {"zstd", "xz", "Parquet"} <= {found.family for found in points.values()}


def test_pca_loses_what_the_other_components_hold_and_pays_for_its_basis_once(synthetic, synthetic_prepared):
    train = SampleSet.open(synthetic_prepared / "train")
    points, left_out = measure_pca(synthetic, train, FAST, CPU)
    assert left_out == []
    known, x = (flat.reshape(len(flat), -1) / 255 for flat in (train.load().pixels, synthetic.pixels))
    components = np.linalg.svd(known - known.mean(axis=0), full_matrices=False)[2]
    lost = {}
    for found in points:
        size = int(found.setting.split()[0])
        kept = components[:size]
        projected = ((x - known.mean(axis=0)) @ kept.T @ kept + known.mean(axis=0)).clip(0, 1)
        lost.setdefault(size, []).append(found.mse - ((projected - x) ** 2).mean())
        assert found.codec_bytes == codec_bytes(size, 144) == 144 * size + 2 * 144 + 12 * size
        assert found.measured_rows == 150
        assert found.store_bits_per_row > found.bits_per_row
    # 500 are cut to the 144 that there are; the quantiser takes its share, the finest one hardly any.
    assert set(lost) == {2, 6, 144}
    assert min(map(min, lost.values())) > -2e-5
    assert max(map(min, lost.values())) < 1e-3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_column_in_memory_takes_what_it_takes_in_a_store(layout, tiny_codec, synthetic, tmp_path):
    store = encode(synthetic.samples, tiny_codec, tmp_path / "store", layout=layout)
    latents = Codec.load(tiny_codec).encode(synthetic.pixels)
    assert column_bits(latents, layout, 10_000) == 8 * store.latent_bytes() / 150


def test_fewer_rows_are_the_first_ones(synthetic_prepared, tmp_path):
    samples = SampleSet.open(synthetic_prepared / "test")
    rows = take_rows(samples, 40, BYTES, tmp_path / "rows")
    whole = samples.load()
    assert (rows.pixels == whole.pixels[:40]).all()
    assert rows.samples.load().attributes.equals(whole.attributes.slice(0, 40))


# Presets and the command.


def test_the_presets_are_three_points_of_one_curve():
    dense = [name for name in preset_names() if preset_params(name).model.name == "dense"]
    weights = {name: preset_params(name).train.rate_weight for name in dense}
    sizes = {name: preset_params(name).train.latent_size for name in dense}
    assert sorted(weights, key=weights.get, reverse=True) == ["small", "balanced", "fine"]
    assert sorted(sizes, key=sizes.get) == ["small", "balanced", "fine"]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_written_into_params_yaml_and_nothing_else_changes(ae, name, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    before = load_params(path)
    code, out, error = ae("preset", name, "--params", path)
    assert code == 0, error
    assert load_params(path) == preset_params(name, before)
    assert "evaluate.gate there asks for max_mse 0.0052" in out
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)  # as PyYAML reads: 8e-05 is a text there
    assert yaml.load(path)["train"]["rate_weight"] == preset_params(name).train.rate_weight
    code, _, error = ae("preset", "huge", "--params", path)
    assert (code, "expected one of balanced, compact, compact_balanced," in error) == (
        1,
        True,
    )


@pytest.mark.parametrize("name", preset_names())
def test_presets_keep_what_the_workspace_says_of_everything_else(name):
    base = Params.model_validate({"source": {"name": "idx"}, "train": {"device": "cpu"}, "paths": {"raw": "here"}})
    chosen = preset_params(name, base)
    assert (chosen.source.name, chosen.train.device, chosen.paths.raw) == ("idx", "cpu", "here")


def test_a_trained_preset_is_known_by_the_code_that_trains():
    listed = {dep for dep in read_yaml(ROOT / "dvc.yaml")["stages"]["train"]["deps"] if dep.startswith("ae_pipeline/")}
    named = {dep.removeprefix("ae_pipeline/").removesuffix(".py").split("/")[0] for dep in listed}
    assert named - {"stages"} <= set(TRAINING_CODE)


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
    assert error.startswith("error: no preset 'huge'; expected one of balanced, compact, compact_balanced,")
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
    assert "`dvc repro --force --single-item download`" in error


def test_the_stage_of_the_benchmark_is_no_part_of_the_pipeline_and_its_values_exist():
    entry = read_yaml(ROOT / "bench" / "dvc.yaml")["stages"]["bench"]
    assert entry["cmd"] == "python -m ae_pipeline bench"
    values = read_yaml(ROOT / "params.yaml")
    assert {name.split(".")[0] for name in entry["params"]} <= set(values)
    assert "bench" not in read_yaml(ROOT / "dvc.yaml")["stages"]


def test_a_report_is_made_of_any_result():
    """Rows that are no images, one curve, nothing lossless."""
    rows = [vars(found) for found in (*curve_of(OURS, BITS, 1000), *curve_of("PCA", BITS))]
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
