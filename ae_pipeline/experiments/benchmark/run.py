"""The whole benchmark: everything measured on the same rows, judged, and written to reports/bench.*."""

import os
import platform
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ae_pipeline.codec.context.options import why_not
from ae_pipeline.codec.devices import cpu_count
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import open_split
from ae_pipeline.errors import ConfigError
from ae_pipeline.experiments.benchmark.curves import savings
from ae_pipeline.experiments.benchmark.image_codecs import measure_image_codecs, why_no_images
from ae_pipeline.experiments.benchmark.lossless import measure_lossless
from ae_pipeline.experiments.benchmark.ours import layouts_of, measure_preset, trained_codec
from ae_pipeline.experiments.benchmark.pca import measure_pca
from ae_pipeline.experiments.benchmark.points import LOG_MEL, RECALL, Point, Rows, Tell, snr_quality, take_rows
from ae_pipeline.experiments.benchmark.sound_codecs import measure_sound_codecs
from ae_pipeline.experiments.benchmark.vector_codes import measure_vector_codes
from ae_pipeline.experiments.benchmark.verdict import judge
from ae_pipeline.experiments.benchmark.whole_pictures import tile_of
from ae_pipeline.experiments.presets import TILES, preset_params, suiting
from ae_pipeline.files import finished_file, make_folder, write_json
from ae_pipeline.models import build_model
from ae_pipeline.params import BENCHMARKS, Params
from ae_pipeline.provenance import git_state, library_versions, machine
from ae_pipeline.store.format.layouts import STREAM
from ae_pipeline.training.batches import fit_scaling

# All rows are held in memory, several times. Image codecs that try hard take a second and more for each million values
# and setting: ten thousand pictures of 64 x 64 in colour would be hours.
_MOST_BYTES, _MOST_OF_PICTURES = 256 << 20, 32 << 20


def rows_measured(spec: SampleSpec, asked: int) -> int:
    """Rows that are measured of those `asked` for: at least one, and no more than memory and patience are for."""
    most = _MOST_OF_PICTURES if why_no_images(spec) is None else _MOST_BYTES
    return max(1, min(asked, most // spec.nbytes))


def run_benchmark(params: Params, root: Path, tell: Tell = lambda point: None) -> dict[str, Any]:
    """paths.prepared -> bench.json, bench.md and bench.png in paths.reports; returns what bench.json holds.

    `tell` is called with every point. Raises ConfigError for a preset that there is not, and what training raises.
    """
    given = {name: preset_params(name, params) for name in params.bench.presets or ()}
    prepared = root / params.paths.prepared
    sets = {name: open_split(prepared, name) for name in ("train", "validation", "test")}
    kind = sets["train"].kind
    named = kind.name if kind else None
    named = TILES if tile_of(sets["train"]) else named
    suit = suiting(sets["train"].spec.shape, named)
    asked = given or {name: preset_params(name, params) for name in suit}
    work = root / params.paths.work / BENCHMARKS
    make_folder(work)
    git = git_state(root)
    presets, unfit = _fitting(asked, sets["train"].spec)
    codecs = {
        name: trained_codec(name, chosen, sets["train"], sets["validation"], work, git)
        for name, chosen in presets.items()
    }
    most = rows_measured(sets["test"].spec, params.bench.max_rows)
    with tempfile.TemporaryDirectory() as folder:
        rows = take_rows(sets["test"], most, fit_scaling(sets["train"]), Path(folder))
        points, left_out = measure(rows, sets["train"], codecs, params, tell)
        mean_mse, rows_per_second = rows.mean_mse, rows.rows_per_second
        found = rows.samples.measure_range()
    useful = better_than_mean(points, mean_mse)
    by_recall, by_ear = RECALL.of(useful), LOG_MEL.of(useful)
    if rows.are_sound:
        useful = snr_quality(mean_mse).of(useful)
    result = {
        "data_set": params.source.name,
        "samples": rows.samples.spec.describe(),
        "row_counts": {"measured": len(rows), **{name: samples.rows for name, samples in sets.items()}},
        "date": datetime.now(UTC).date().isoformat(),
        "machine": _machine(),
        "git": git,
        "image_effort": params.bench.image_effort,
        "mean_mse": mean_mse,
        "rows_per_second": rows_per_second,
        "warnings": found.warnings("the test split", rows.scaling.offset, rows.scaling.scale),
        "verdict": asdict(judge(useful, len(rows), params.bench.image_effort)),
        "bd_rate": [asdict(saving) for saving in savings(useful, len(rows))],
        "verdict_by_recall": asdict(judge(by_recall, len(rows))) if by_recall else None,
        "bd_rate_by_recall": [asdict(saving) for saving in savings(by_recall, len(rows))],
        "verdict_by_log_mel_distance": asdict(judge(by_ear, len(rows))) if by_ear else None,
        "bd_rate_by_log_mel_distance": [asdict(saving) for saving in savings(by_ear, len(rows))],
        "left_out": [*unfit, *left_out],
        "pictures": _pictures(rows),
        "rows": [point.as_dict() for point in points],
    }
    write_reports(root / params.paths.reports, result)
    return result


def _pictures(rows: Rows) -> dict[str, int] | None:
    """What the rows are tiles of, in numbers."""
    whole = rows.pictures
    return None if whole is None else {"pictures": len(whole.pictures), "pixels": whole.pixels, "tile": whole.tile}


def better_than_mean(points: list[Point], mean_mse: float) -> list[Point]:
    """Points with a quality to be compared at: the others know nothing of the rows. Lossless ones always have one."""
    return [point for point in points if point.mse < mean_mse or point.mse == 0]


def _fitting(presets: dict[str, Params], spec: SampleSpec) -> tuple[dict[str, Params], list[str]]:
    """The presets whose networks are for such samples, and why the others are not. Raises ConfigError if none is."""
    fit, unfit = {}, []
    for name, params in presets.items():
        if params.codec.family == "context":
            if reason := why_not(spec):
                unfit.append(f"preset {name}: {reason}")
            else:
                fit[name] = params
            continue
        try:
            with torch.device("meta"):
                build_model(params.model.name, spec.shape, params.train.latent_size, params.model.options)
        except ConfigError as error:
            unfit.append(f"preset {name}: {error}")
        else:
            fit[name] = params
    if not fit:
        raise ConfigError(
            f"none of the presets {', '.join(presets)} is for samples of {spec.describe()}: {'; '.join(unfit)}; choose "
            "others (--preset, or bench.presets in params.yaml)"
        )
    return fit, unfit


def measure(
    rows: Rows, train: SampleSet, codecs: dict[str, Path], params: Params, tell: Tell = lambda point: None
) -> tuple[list[Point], list[str]]:
    """Every point of the table, and what was left out, with the reason; `codecs` are folders, by the preset's name."""
    points = []
    for name, codec in codecs.items():
        points += measure_preset(name, codec, rows, params.encode)
    lossless, no_lossless = measure_lossless(rows)
    points += lossless
    for point in points:
        tell(point)
    pca = measure_pca(
        rows, train, params.bench, params.encode, tell, [name for name in layouts_of(codecs.values()) if name != STREAM]
    )
    points, left_out = [*points, *pca], no_lossless
    if rows.are_sound:
        others, no_others = measure_sound_codecs(rows, tell)
    else:
        others, no_others = measure_image_codecs(rows, params.bench, tell)
    if rows.are_vectors:
        codes, no_codes = measure_vector_codes(rows, train, params.bench, params.encode.row_group_rows, tell)
        others, no_others = [*others, *codes], [*no_others, *no_codes]
    return [*points, *others], [*left_out, *no_others]


def write_reports(reports: Path, result: dict[str, Any]) -> None:
    """bench.json, and the table and the picture of it."""
    from ae_pipeline.evaluation.pictures import save_figure
    from ae_pipeline.experiments.benchmark.report import draw, format_report  # matplotlib is not needed to start

    write_json(reports / "bench.json", result)
    with finished_file(reports / "bench.md") as temporary:
        temporary.write_text(format_report(result), encoding="utf-8")
    save_figure(draw(result), reports / "bench.png")


def _machine() -> dict[str, Any]:
    """What speeds depend on."""
    return {
        **machine(),
        "processor": _processor(),
        "cpus": cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": round(os.getloadavg()[0], 1),
        "versions": {**library_versions(), **_codec_versions()},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _codec_versions() -> dict[str, str]:
    """Versions of the alternatives, as far as they are here."""
    from importlib.metadata import PackageNotFoundError, version

    from PIL import features

    found = {name: features.version(name) for name in ("libjpeg_turbo", "webp", "avif")}
    for package in ("pillow", "brotli", "pillow-jxl-plugin", "faiss-cpu", "soundfile", "soxr"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return {name: number for name, number in found.items() if number}
