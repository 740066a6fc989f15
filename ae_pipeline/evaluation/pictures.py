"""Pictures of an evaluation (matplotlib) and the tables behind them (CSV, also for `dvc plots`)."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter

from ae_pipeline.errors import printable
from ae_pipeline.evaluation.drift.measure import Drift
from ae_pipeline.evaluation.drift.reference import DriftReference
from ae_pipeline.evaluation.evaluate import Evaluation, Pictured, family, rate_distortion
from ae_pipeline.evaluation.measures.metrics import Metrics
from ae_pipeline.files import finished_file, write_csv

_BLUE, _ORANGE, _GREY = "#2463a8", "#d9730d", "#8a8a8a"
_BINS = 60
# From one picture to the next, in widths of a picture.
_SPREAD = 1.06
# More bars than these are not told apart; the table has all.
_MOST_CLASSES = 60
_LONGEST_NAME = 30


def write_tables(folder: Path, evaluation: Evaluation) -> None:
    """per_class.csv, error_histogram.csv and rate_distortion.csv; of records with several rows also records.parquet."""
    # Without labels one line for all rows, so that `dvc plots` finds its table.
    write_csv(folder / "per_class.csv", evaluation.per_class() or [evaluation.means_of("all", slice(None))])
    counts, edges = np.histogram(evaluation.rows.values["mse"], _BINS)
    write_csv(
        folder / "error_histogram.csv",
        [{"mse": float(edge), "rows": int(count)} for edge, count in zip(edges, counts, strict=False)],
    )
    write_csv(folder / "rate_distortion.csv", rate_distortion(evaluation.metrics))
    if evaluation.rows.records is not None:
        with finished_file(folder / "records.parquet") as temporary:
            pq.write_table(evaluation.rows.records.table, temporary)


def write_pictures(folder: Path, evaluation: Evaluation, history: list[dict[str, float]] | None) -> None:
    """One PNG per question; docs/your-data.md names them."""
    if evaluation.pictured[0].original.ndim in (3, 4):
        save_figure(_reconstructions(evaluation.pictured), folder / "reconstructions.png")
    if evaluation.sounds:
        from ae_pipeline.evaluation.measures.records.sound_pictures import draw_sounds

        save_figure(draw_sounds(evaluation.sounds), folder / "sounds.png")
    if evaluation.metrics.get("recall_at_10") is not None:
        save_figure(_neighbours(evaluation.metrics), folder / "neighbours.png")
    if evaluation.rows.by_value is not None:
        save_figure(_error_by_value(evaluation.rows.by_value, evaluation.value_names), folder / "error_by_value.png")
    save_figure(_error_histogram(evaluation), folder / "error_histogram.png")
    classes = evaluation.per_class()
    if 0 < len(classes) <= _MOST_CLASSES:
        save_figure(_per_class(classes, family(evaluation.metrics)), folder / "per_class_error.png")
    if history:
        save_figure(_learning_curves(history), folder / "learning_curves.png")
    save_figure(_rate_distortion(evaluation.metrics), folder / "rate_distortion.png")


def draw_drift(reference: DriftReference, errors: np.ndarray, drift: Drift) -> Figure:
    """Error of each row, its distribution function and every latent dimension's drift, beside what was expected.

    `errors` are the batch's, float32 (n,), as `drift.read_errors` gives them. A batch has drifted if its curve in the
    middle leaves the band, or the line on the right is above the dashed one.
    """
    figure = Figure(figsize=(15, 4.2), layout="constrained", dpi=110)
    histogram, distribution, dimensions = figure.subplots(1, 3)
    figure.suptitle(drift.describe(), fontsize=10, color=_ORANGE if drift.drifted else _BLUE)
    _drift_of_errors(histogram, distribution, reference, errors, drift)
    dimensions.bar(np.arange(len(drift.dimensions)), drift.dimensions, color=_BLUE, alpha=0.6)
    dimensions.axhline(drift.latent_drift, color=_ORANGE, label=f"latent_drift: their mean, {drift.latent_drift:.3f}")
    limit = f"threshold of the mean, {drift.latent_threshold:.3f}"
    dimensions.axhline(drift.latent_threshold, color=_GREY, linestyle="--", label=limit)
    # Room for the legend above the highest bar.
    dimensions.set_ylim(0, 1.3 * max(*drift.dimensions, drift.latent_threshold))
    dimensions.legend(fontsize=8, loc="upper right")
    label(dimensions, "Drift of each latent", "latent dimension", "Kolmogorov-Smirnov distance")
    return figure


def _drift_of_errors(
    histogram: Any, distribution: Any, reference: DriftReference, errors: np.ndarray, drift: Drift
) -> None:
    known = np.array(reference.error_edges)
    shares = np.cumsum(reference.error_counts)[1::2] / reference.train_rows
    finite = errors[np.isfinite(errors)]
    low = float(max(min(known[0], finite.min(initial=np.inf)), 1e-6))  # a logarithm needs more than 0
    high = float(max(known[-1], finite.max(initial=0.0), 2 * low))
    bins = np.geomspace(low, high, _BINS)
    expected = np.interp(bins, known, shares, left=0.0, right=1.0)
    expected[0] = 0.0
    histogram.stairs(np.diff(expected), bins, fill=True, color=_GREY, alpha=0.5, label="train rows")
    found = np.histogram(np.clip(finite, low, high), bins)[0] / len(errors)
    histogram.stairs(found, bins, color=_ORANGE, linewidth=1.5, label=f"batch, {drift.rows:,} rows")
    label(histogram, "Error of each row", "MSE (values in [0, 1])", "share of rows")
    around = [np.clip(shares + sign * drift.error_threshold, 0, 1) for sign in (-1, 1)]
    distribution.fill_between(known, *around, step="post", color=_GREY, alpha=0.3, label="within the threshold")
    distribution.step(known, shares, where="post", color=_GREY, label="train rows")
    steps = np.arange(1, len(errors) + 1) / len(errors)
    distribution.step(np.sort(errors), steps, where="post", color=_ORANGE, label="batch")
    label(distribution, f"error_drift {drift.error_drift:.3f}", "MSE (values in [0, 1])", "share of rows at most this")
    for axis in (histogram, distribution):
        axis.set_xscale("log")
        axis.set_xlim(low, high)
        axis.legend(fontsize=8)


def _reconstructions(groups: list[Pictured]) -> Figure:
    columns = len(groups[0].ids)
    figure = Figure(figsize=(1.05 * columns + 1.2, 3.6 * len(groups)), layout="constrained", dpi=110)
    for group, part in zip(groups, figure.subfigures(len(groups), 1, squeeze=False)[:, 0], strict=True):
        part.suptitle(f"{group.title} rows", fontsize=11, fontweight="bold")
        original, decoded, changed = part.subplots(3, 1)
        difference = group.decoded - group.original
        _side_by_side(original, "original", _drawable(group.original), (0, 1), "gray")
        _side_by_side(decoded, "decoded", _drawable(group.decoded), (0, 1), "gray")
        difference = difference.mean(-1) if difference.ndim == 4 else difference
        middles = _side_by_side(changed, "difference", difference, (-1, 1), "RdBu")
        original.xaxis.tick_top()
        original.set_xticks(middles, [f"id {row_id}" for row_id in group.ids], fontsize=7)
        changed.set_xticks(middles, [f"MSE {mse:.4f}" for mse in group.mse], fontsize=7)
    return figure


def _side_by_side(axis: Any, name: str, images: np.ndarray, limits: tuple[int, int], colours: str) -> np.ndarray:
    """Draw images, (n, h, w) or (n, h, w, 3), in one row; returns the middle of each on the axis of x.

    An axis for each would take longer to draw than all the rest of the report.
    """
    height, width = images.shape[1:3]
    lefts = np.arange(len(images)) * width * _SPREAD
    for left, image in zip(lefts, images, strict=True):
        extent = (left, left + width, height, 0)
        axis.imshow(np.clip(image, *limits), cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent)
    axis.set(xlim=(0, lefts[-1] + width), ylim=(height, 0), xticks=[], yticks=[], facecolor="0.85")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_ylabel(name, fontsize=9)
    return lefts + width / 2


def _drawable(images: np.ndarray) -> np.ndarray:
    """Three channels are red, green and blue; of any other number the mean is drawn in grey."""
    return images.mean(-1) if images.ndim == 4 and images.shape[-1] != 3 else images


def _error_histogram(evaluation: Evaluation) -> Figure:
    figure, axis = new_figure("Error of each row", "MSE (values in [0, 1])", "rows")
    own = evaluation.rows.values["mse"]
    pca = evaluation.pca_rows.values["mse"] if evaluation.pca_rows is not None else None
    # The axis ends where all but 1 in 200 rows of the worse one lie; the last bin holds the rest.
    top = float(np.quantile(own if pca is None else np.concatenate([own, pca]), 0.995)) or 1.0
    bins = np.linspace(0, top, _BINS)
    name = family(evaluation.metrics)
    axis.hist(np.minimum(own, top), bins, color=_BLUE, alpha=0.8, label=f"{name}, mean {own.mean():.5f}")
    if pca is not None:
        axis.hist(np.minimum(pca, top), bins, color=_ORANGE, alpha=0.5, label=f"PCA, mean {pca.mean():.5f}")
    axis.legend()
    return figure


def _per_class(classes: list[dict[str, Any]], name: str) -> Figure:
    figure, axis = new_figure("Error by class", "label", "MSE (values in [0, 1])")
    place = np.arange(len(classes))
    axis.bar(place - 0.2, [line["mse"] for line in classes], 0.4, color=_BLUE, label=name)
    if "pca_mse" in classes[0]:
        axis.bar(place + 0.2, [line["pca_mse"] for line in classes], 0.4, color=_ORANGE, label="PCA")
    axis.set_xticks(place, [str(line["label"]) for line in classes])
    axis.legend()
    return figure


def _learning_curves(history: list[dict[str, float]]) -> Figure:
    figure, axis = new_figure("Learning curves", "epoch", "loss")
    epochs = [line["epoch"] for line in history]
    axis.plot(epochs, [line["train_loss"] for line in history], color=_GREY, label="train_loss")
    axis.plot(epochs, [line["validation_loss"] for line in history], color=_BLUE, label="validation_loss")
    best = min(history, key=lambda line: line["validation_loss"])
    axis.plot(best["epoch"], best["validation_loss"], "o", color=_BLUE, label=f"best: epoch {best['epoch']:.0f}")
    axis.set_yscale("log")
    axis.legend()
    return figure


def _rate_distortion(metrics: Metrics) -> Figure:
    figure, axis = new_figure("What a row costs", "bits per row", "MSE (values in [0, 1])")
    _points(figure, axis, metrics, "mse")
    axis.set_ylim(bottom=0)
    return figure


def _neighbours(metrics: Metrics) -> Figure:
    """The picture of `_rate_distortion` for vectors: what a search finds, instead of the error."""
    figure, axis = new_figure("What a search still finds", "bits per row", "recall at 10")
    _points(figure, axis, metrics, "recall_at_10")
    axis.set_ylim(0, 1.02)
    return figure


def _points(figure: Figure, axis: Any, metrics: Metrics, quality: str) -> None:
    """The codec, PCA and zstd: bits on x, a quality on y, each with its codec and without."""
    for point, colour in zip(rate_distortion(metrics), (_BLUE, _ORANGE), strict=False):
        parts, whole, reached = point["bits_per_row"], point["bits_per_row_with_codec"], point[quality]
        axis.plot(parts, reached, "o", color=colour, label=f"{point['name']}: Parquet parts")
        axis.plot(
            whole,
            reached,
            "s",
            mfc="none",
            color=colour,
            label=f"{point['name']}: with codec, {metrics['rows']:,} rows",
        )
        axis.plot([parts, whole], [reached, reached], ":", color=colour, linewidth=1)
    zstd = metrics["zstd_bits_per_row"]
    axis.axvline(zstd, color=_GREY, linestyle="--", label=f"lossless: zstd of the raw rows ({zstd:.0f})")
    scale_bits(axis)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)  # points may lie anywhere


def _error_by_value(by_value: np.ndarray, names: Sequence[str] = ()) -> Figure:
    """Which values of a vector come back: each one's error (2, values) beside what it varies by, the largest first.

    `names` are those of columns that a vector was made of.
    """
    what = "columns" if names else "values of a vector"
    figure, axis = new_figure("Error of each value", f"{what}, by deviation", "in units of the scaling")
    order = np.argsort(-by_value[1], kind="stable")
    error, deviation = by_value[:, order]
    place = np.arange(len(error))
    # More names than these cannot be told apart; every so many-th column has its own.
    named = place[:: -(-len(place) // _MOST_CLASSES)] if names else place[:0]
    if len(named):
        axis.set_xticks(named, [_shortened(names[order[number]]) for number in named], rotation=90, fontsize=7)
    axis.fill_between(place, deviation, step="mid", color=_GREY, alpha=0.4, label="standard deviation: what there is")
    axis.step(place, error, where="mid", color=_BLUE, label="root mean squared error: what is lost")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)
    return figure


def _shortened(name: str) -> str:
    """A column's name on a picture: as it is, for matplotlib reads formulas between dollars, and not too long."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\u2026"
    return printable(short).replace("$", r"\$")


def new_figure(title: str, x: str, y: str, size: tuple[float, float] = (7, 4.2)) -> tuple[Figure, Any]:
    """A figure, `size` in inches, and its only axes."""
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axis = figure.subplots()
    label(axis, title, x, y)
    return figure, axis


def label(axis: Any, title: str, x: str, y: str) -> None:
    """Title and names of both axes, on a grid without a frame."""
    axis.set(title=title, xlabel=x, ylabel=y)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)


def scale_bits(axis: Any) -> None:
    """Bits on x: logarithmic, and written out."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:,.10g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def note(axis: Any, words: str, place: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """Small words beside a point, `offset` in points of print; readable over lines."""
    found = axis.annotate(words, place, xytext=offset, textcoords="offset points", zorder=4, **style)
    found.set_path_effects([withStroke(linewidth=3, foreground="white")])


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with finished_file(path) as temporary, warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # Without the version of matplotlib in it, equal pictures are equal files.
        figure.savefig(temporary, format="png", metadata={"Software": None})
