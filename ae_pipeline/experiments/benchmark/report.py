"""The benchmark for people: a table in Markdown, and a picture (matplotlib). Both of what bench.json holds."""

from collections.abc import Callable
from operator import itemgetter
from typing import Any

from matplotlib.figure import Figure

from ae_pipeline.evaluation.measures.metrics import METRICS, psnr_of, reported
from ae_pipeline.evaluation.pictures import label, note, scale_bits
from ae_pipeline.experiments.benchmark.points import OURS, snr_of
from ae_pipeline.experiments.front import front, grouped

_COLOURS = {
    OURS: "#c2255c",
    "PCA": "#d9730d",
    "Opus": "#2463a8",
    "OPQ": "#2f9e44",
    "PQ": "#2463a8",
    "integers": "#7048a8",
    "JPEG XL": "#2f9e44",
    "JPEG": "#8a8a8a",
    "WebP": "#2463a8",
    "AVIF": "#7048a8",
}
_BITS = ("bits_per_row", "bits_per_row_with_codec")
_GREY = "#444444"
_DISC = 13
_IN_DISC: dict[str, Any] = {"color": "white", "fontsize": 8, "fontweight": "bold", "ha": "center", "va": "center"}
# How the families of one codec are told apart: line and marker.
_KINDS = {"packets": ("-", "o"), "mosaic": ("-", "o"), "files": (":", "x"), "files, header once": ("--", ".")}
_KINDS |= {"whole pictures": ("-", "o"), "whole pictures, header once": ("--", ".")}
_QUALITIES = {
    "psnr": "PSNR of the mean error, dB",
    "recall_at_10": "neighbours kept (recall at 10)",
    "snr": "SNR, dB",
    "log_mel_distance": "log-mel distance, dB (less is nearer)",
}
# Decibel below the worst image or codec of ours at which the picture ends.
_BELOW = 3.0


def format_report(result: dict[str, Any]) -> str:
    """Verdict, savings, table, what was left out, machine."""
    counts = result["row_counts"]
    all_rows = counts.get("test", counts["measured"])
    first = f"The first {counts['measured']:,} of {all_rows:,}" if counts["measured"] < all_rows else f"{all_rows:,}"
    lines = [
        f"# Benchmark: {result['data_set']}",
        "",
        f"{first} rows of the test split, {result['samples']}, {result['date']}. Trained on "
        f"{counts['train']:,} rows. How everything is run and counted: docs/choosing.md.",
        "",
        *_of_tiles(result),
        *_verdicts(result),
        "Bits are those with the codec. A mosaic or a compressed stream gives no row back without all of its "
        "neighbours; single files and latent stores do.",
        "",
        *_all_savings(result),
        "## All that was measured",
        "",
        "Of PCA and image codecs only settings that no other of the same kind beats.",
        "",
        *_table(result["rows"], result.get("rows_per_second"), _pixels_of_a_row(result)),
        "",
        *_beside_mean(result),
        *(["## Left out", "", *(f"- {reason}" for reason in result["left_out"]), ""] if result["left_out"] else []),
        "## Machine",
        "",
        _machine(result["machine"]),
    ]
    return "\n".join(lines) + "\n"


def _of_tiles(result: dict[str, Any]) -> list[str]:
    """What a row is, where it is a tile of a picture."""
    whole = result.get("pictures")  # results of before there was this have none
    if not whole:
        return []
    return [
        f"A row is a tile of {whole['tile']} x {whole['tile']} pixels, of {whole['pictures']:,} pictures with "
        f"{whole['pixels']:,} pixels. Image codecs were given the pictures, a file each; errors are those of the "
        f"tiles. Bits per row divided by {_pixels_of_a_row(result):,.1f} are bits per pixel.",
        "",
    ]


def _pixels_of_a_row(result: dict[str, Any]) -> float | None:
    """Pixels of pictures for each tile; what is repeated beyond their edges does not count."""
    whole = result.get("pictures")
    return whole and whole["pixels"] / result["row_counts"]["measured"]


def _verdicts(result: dict[str, Any]) -> list[str]:
    """By the neighbours of vectors or the ear, if the rows are of that, and by the error."""
    beside = [  # results of before there was this have none
        ("recall at 10", result.get("verdict_by_recall")),
        ("log-mel distance: what is heard", result.get("verdict_by_log_mel_distance")),
    ]
    found = [(f"## Verdict, at equal {name}", verdict) for name, verdict in beside if verdict]
    error = "SNR: the samples" if _are_sound(result) else "MSE"
    found.append((f"## Verdict, at equal {error}" if found else "## Verdict", result["verdict"]))
    lines = []
    for head, verdict in found:
        lines += [head, "", f"**{verdict['summary']}**", ""]
        lines += [f"- {choice['sentence']}" for choice in verdict["choices"]]
        lines += [*([f"- {verdict['limit']}"] if verdict["limit"] else []), ""]
    return lines


def _are_sound(result: dict[str, Any]) -> bool:
    return result.get("rows_per_second") is not None


def _all_savings(result: dict[str, Any]) -> list[str]:
    """By what vectors or sound are judged by, and by the error."""

    def over(words: Callable[[float], str], unit: str) -> Callable[[dict[str, Any]], str]:
        """Errors between which two curves lie side by side; what they have for it in the result are its decibels."""
        return lambda line: " to ".join(words(10 ** (-line[key] / 10)) for key in ("psnr_from", "psnr_to")) + unit

    lines = []
    if by_recall := result.get("bd_rate_by_recall"):
        lines += _savings(by_recall, "recall at 10", over(lambda error: f"{1 - error:.2f}", ""))
    if by_ear := result.get("bd_rate_by_log_mel_distance"):
        lines += _savings(by_ear, "log-mel distance", over(lambda error: f"{error:.1f}", " dB"))
    if _are_sound(result):
        mean_mse = result["mean_mse"]
        return lines + _savings(result["bd_rate"], "SNR", over(lambda error: f"{snr_of(error, mean_mse):.1f}", " dB"))
    return lines + _savings(result["bd_rate"], "PSNR", over(lambda error: f"{psnr_of(error):.1f}", " dB"))


def _savings(savings: list[dict[str, Any]], quality: str, over: Callable[[dict[str, Any]], str]) -> list[str]:
    """Bits of our curve against others, where they share qualities."""
    comparable = [line for line in savings if line["change"] is not None]
    if not comparable:
        return [
            f"No average saving at equal {quality} (BD-rate): our curve and the others need two points each, and half "
            "a decibel in common.",
            "",
        ]
    lines = [
        f"## Average change in bits at equal {quality} (BD-rate; negative: ours takes fewer)",
        "",
        f"| against | codec | change | over {quality} |",
        "|---|---|---|---|",
    ]
    for line in comparable:
        counted = "counted" if line["with_codec"] else "not counted"
        lines.append(f"| {line['anchor']} | {counted} | {line['change']:+.0%} | {over(line)} |")
    if len(comparable) < len(savings):
        lines += [
            "",
            "Where a line is missing, one of the curves has a single point, or they share less than half a decibel.",
        ]
    return [*lines, ""]


def _beside_mean(result: dict[str, Any]) -> list[str]:
    """What an answer without any knowledge of the rows reaches, and what is no better."""
    mean_mse = result.get("mean_mse")  # results of before there was this have none
    if not mean_mse:
        return []
    lines = [f"Answering each value by its mean over these rows has an MSE of {mean_mse:.6g}."]
    worse = [row["name"] for row in result["rows"] if row["mse"] >= mean_mse]
    if worse:
        lines += ["", f"**Not better than that, and left out of the verdict: {', '.join(worse)}.**"]
    for warning in result["warnings"]:
        lines += ["", f"**{warning}.**"]
    return [*lines, ""]


def _table(rows: list[dict[str, Any]], rows_per_second: float | None, pixels: float | None) -> list[str]:
    metrics = [metric for metric in reported("bench") if any(row.get(metric.name) is not None for row in rows)]
    sound = ["kbit/s"] if rows_per_second is not None else []
    of_pixels = ["bits per pixel", "with codec"] if pixels else []
    heads = [*sound, "bits per row", "with codec", *of_pixels, *(metric.title for metric in metrics)]
    heads += ["encode, rows/s", "decode, rows/s"]
    lines = [f"| | {' | '.join(heads)} |", f"|---{'|---:' * len(heads)}|"]
    for row in rows:
        name = f"**{row['name']}**" if row["family"] == OURS else row["name"]
        cells = [
            name,
            *([f"{row['bits_per_row'] * rows_per_second / 1000:,.1f}"] if rows_per_second is not None else []),
            f"{row['bits_per_row']:,.1f}",
            f"{row['bits_per_row_with_codec']:,.1f}",
            *((f"{row[key] / pixels:.3f}" for key in _BITS) if pixels else ()),
            *(metric.words(row.get(metric.name)) for metric in metrics),
            f"{row['encode_rows_per_s']:,.0f}",
            f"{row['decode_rows_per_s']:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cpus']} CPUs, torch with {machine['threads']} threads"
        f"{', ' + machine['cuda'] if machine['cuda'] else ''}; load {machine['load']} at the end. {versions}. Speeds "
        "are of whole runs as a user has them: stores from Parquet to Parquet, image codecs and compressors in one "
        "process, in memory, with the threads that their libraries start."
    )


def draw(result: dict[str, Any]) -> Figure:
    """Quality against bits per row, without the codecs' bytes and with them; one colour per codec, ours on top.

    The quality is the PSNR; of vectors, the recall; of sound, SNR and log-mel distance, one below the other.
    """
    qualities = _qualities(result["rows"])
    figure = Figure(figsize=(14, 6.6 if len(qualities) == 1 else 11), layout="constrained", dpi=110)
    panels = figure.subplots(len(qualities), 2, sharey="row", squeeze=False)
    counts = result["row_counts"]
    title = f"{result['data_set']}: {counts['measured']:,} rows, {result['samples']}"
    names = ", ".join(f"{number} {name}" for name, number in _numbers(result["rows"]).items())
    figure.suptitle(f"{title}\nautoencoder: {names}" if names else title, fontsize=12)
    titles = ("without codec", f"with codec, shared by {counts['measured']:,} rows")
    rows, unit = _in_kbit(result)
    for line, quality in zip(panels, qualities, strict=True):
        line[0].yaxis.set_inverted(METRICS[quality].better == "lower")
        for axis, key, title in zip(line, _BITS, titles, strict=True):
            _draw_panel(axis, rows, key, quality, unit)
            label(axis, title, unit, _QUALITIES[quality])
            axis.label_outer()
    handles, labels = panels[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    return figure


def _qualities(rows: list[dict[str, Any]]) -> list[str]:
    others = [name for name in _QUALITIES if name != "psnr"]
    return [name for name in others if any(row.get(name) is not None for row in rows)] or ["psnr"]


def _in_kbit(result: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """All points, with the unit that their bits are drawn in: of sound kbit/s."""
    if not _are_sound(result):
        return result["rows"], "bits per row"
    scale = result["rows_per_second"] / 1000
    return [row | {key: row[key] * scale for key in _BITS} for row in result["rows"]], "kbit/s"


def _draw_panel(axis: Any, rows: list[dict[str, Any]], key: str, quality: str, unit: str) -> None:
    numbers = _numbers(rows)
    for family, points in grouped(_shown(rows), itemgetter("family")).items():
        best = front(points, bits=itemgetter(key), error=lambda row: METRICS[quality].loss(row[quality]))
        bold = family == OURS
        axis.plot(
            [row[key] for row in best],
            [row[quality] for row in best],
            markersize=_DISC if bold else 4.5,
            linewidth=2.2 if bold else 1.3,
            zorder=3 if bold else 2,
            label=family,
            **_style(family),
        )
        if bold:
            # Each of our codecs in its smallest layout; those that another one beats, too.
            own = [min(same, key=itemgetter(key)) for same in grouped(points, itemgetter("mse")).values()]
            beaten = [row for row in own if row not in best]
            places = [row[key] for row in beaten], [row[quality] for row in beaten]
            axis.plot(*places, **{**_style(family), "linestyle": "none"}, markersize=_DISC, zorder=3)
            for row in own:
                axis.annotate(str(numbers[_codec_name(row)]), (row[key], row[quality]), zorder=4, **_IN_DISC)
    lossless = [row for row in rows if row["psnr"] is None]
    if lossless:
        least = min(lossless, key=lambda row: row[key])
        axis.axvline(least[key], color=_GREY, linestyle="-.", linewidth=1)
        words = f"lossless: {least['name']}, {least[key]:,.0f} {unit.removesuffix(' per row')}"
        # To the left: most of the picture is there, and a long name beyond its edge would squeeze it.
        bottom = {"xycoords": axis.get_xaxis_transform()}  # which way the axis runs depends on the quality
        note(axis, words, (least[key], 0.0), (-5, 6), fontsize=8, ha="right", color=_GREY, **bottom)
    scale_bits(axis)


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lossy points of a quality near that of ours and of image codecs: PCA's reaches down to the mean of all rows."""
    lossy = [row for row in rows if row["psnr"] is not None]
    others = [row["psnr"] for row in lossy if row["family"] != "PCA"]
    return [row for row in lossy if row["psnr"] >= min(others, default=0) - _BELOW]


def _numbers(rows: list[dict[str, Any]]) -> dict[str, int]:
    """The number of each of our codecs, by its name, in the order of the table: names would cover each other."""
    ours = [row for row in rows if row["family"] == OURS and row["psnr"] is not None]
    return {name: number for number, name in enumerate(dict.fromkeys(map(_codec_name, ours)), 1)}


def _codec_name(row: dict[str, Any]) -> str:
    """The name of one of our points, without its layout."""
    return str(row["name"]).removesuffix(f" ({row['setting']})")


def _style(family: str) -> dict[str, Any]:
    codec = next((name for name in _COLOURS if family.startswith(name)), OURS)
    line, marker = _KINDS.get(family.removeprefix(codec).strip(), ("-", "o" if family == OURS else "s"))
    return {"color": _COLOURS[codec], "linestyle": line, "marker": marker}
