"""reports/sweep.json, sweep.md and sweep.png: what was tried, what came out, and which settings have a name."""

from pathlib import Path
from typing import Any

from ae_pipeline.evaluation.measures.metrics import Metric
from ae_pipeline.experiments.sweep.results import Outcome, Results, as_json, columns, digits_of
from ae_pipeline.experiments.sweep.space import describe
from ae_pipeline.files import finished_file, write_json

_BLUE, _ORANGE, _GREY, _GREEN = "#2463a8", "#d9730d", "#8a8a8a", "#2a7f3f"
# More labels than these cover each other.
_MOST_LABELS = 16


def write_reports(folder: Path, results: Results, missing: int) -> list[Path]:
    """Write all three, and return their paths; the picture only when a setting has a value."""
    files = [folder / "sweep.json", folder / "sweep.md"]
    write_json(files[0], {**as_json(results), "missing": missing})
    with finished_file(files[1]) as temporary:
        temporary.write_text(_as_markdown(results, missing), encoding="utf-8")
    if results.front:
        from ae_pipeline.evaluation.pictures import save_figure  # matplotlib, which no other way needs

        files.append(folder / "sweep.png")
        save_figure(_draw(results), files[2])
    else:
        (folder / "sweep.png").unlink(missing_ok=True)  # of an earlier sweep
    return files


def verdict(results: Results) -> list[str]:
    """The named settings, a line each."""
    lines = []
    objective = results.objective
    if results.limit is not None:
        smallest = results.smallest
        what = f"smallest with {objective.short} {objective.asks} {results.limit:g}"
        lines.append(f"{what}: {'none' if smallest is None else smallest.describe()}")
        half = smallest and smallest.estimates[objective.name].half
        if smallest and smallest.loss + (half or 0) > objective.loss(results.limit):
            lines.append("its 95% interval reaches beyond the tolerance: another training may miss it")
    lines.append(f"knee: {'none, the curve has no bend' if results.knee is None else results.knee.describe()}")
    lines.append(f"{_best(objective)}: {'none' if results.best is None else results.best.describe()}")
    if worthless := [describe(item.setting) for item in results.outcomes if item.worthless]:
        lines.append(f"not better than answering each value's mean, whatever the PSNR: {'; '.join(worthless)}")
    return lines


def _as_markdown(results: Results, missing: int) -> str:
    trials = results.trials
    states = [trial.state for trial in trials]
    seconds = sum(trial.seconds for trial in trials)
    counted = ", ".join(f"{states.count(state)} {state}" for state in ("finished", "stopped", "failed"))
    heads = [metric.title for metric in columns(results.objective)]
    lines = ["# Sweep", "", f"{len(trials)} trials in {seconds:,.0f} s: {counted}; {missing} not begun.", ""]
    lines += [f"- {line}" for line in verdict(results)]
    lines += [
        "",
        "Measured on the validation split through real Parquet bytes, codec not included; mean over seeds, ± half of "
        "the 95% interval (Student's t).",
        "",
        f"| setting | bits per row | {' | '.join(heads)} | seeds | |",
        f"|---|---{'|---' * len(heads)}|---|---|",
        *(_row(item, results) for item in sorted(results.outcomes, key=lambda item: item.mean_bits)),
    ]
    ended = [trial for trial in trials if trial.reason]
    if ended:
        lines += ["", "Not finished; their settings were not tried further:", ""]
        lines += [f"- {trial.describe()}" for trial in ended]
    commits = sorted({trial.commit or "unknown" for trial in trials})
    if len(commits) > 1:
        lines += ["", f"The trials are of {len(commits)} commits: {', '.join(commit[:9] for commit in commits)}."]
    return "\n".join(lines) + "\n"


def _row(outcome: Outcome, results: Results) -> str:
    named = (("smallest", results.smallest), ("knee", results.knee), (_best(results.objective), results.best))
    notes = [name for name, item in named if item is outcome]
    notes += ["on the front"] if outcome in results.front and not notes else []
    seeds = f"{outcome.finished} of {len(outcome.trials)}"
    metrics = columns(results.objective)
    if outcome.bits is None:
        return f"| {describe(outcome.setting)} |{' |' * (len(metrics) + 1)} {seeds} | {outcome.trials[-1].state} |"
    cells = [describe(outcome.setting), outcome.bits.words(1), *(_cell(outcome, metric) for metric in metrics)]
    return f"| {' | '.join([*cells, seeds, ', '.join(notes)])} |"


def _cell(outcome: Outcome, metric: Metric) -> str:
    found = outcome.estimates.get(metric.name)
    return metric.words(outcome.mean(metric)) if found is None else found.words(digits_of(metric))


def _best(objective: Metric) -> str:
    return f"{'lowest' if objective.better == 'lower' else 'highest'} {objective.short}"


def _draw(results: Results) -> Any:
    """Bits against the objective, a point for each setting that finished, with 95% intervals over its seeds."""
    from ae_pipeline.evaluation.pictures import new_figure, note

    paths = ", ".join(path.split(".")[-1] for path in results.front[0].setting)
    objective = results.objective
    value_name = f"{objective.title} (values in [0, 1])"
    figure, axis = new_figure(f"Sweep over {paths}", "bits per row", value_name, size=(8, 5))
    others = [item for item in results.outcomes if item.bits and item not in results.front]
    _points(axis, others, _GREY, "another is better in both")
    _points(axis, results.front, _BLUE, "front: mean and 95% interval over seeds")
    axis.plot(*_places(results.front), color=_BLUE, linewidth=1)
    if results.limit is not None:
        axis.axhline(results.limit, color=_GREY, linestyle="--", label=f"tolerance {results.limit:g}")
    for outcome, marker, colour, size, name in (
        (results.knee, "D", _ORANGE, 9, "knee"),
        (results.smallest, "o", _GREEN, 16, "smallest within the tolerance"),
    ):
        if outcome is not None:
            label = f"{name}: {describe(outcome.setting)}"
            style: dict[str, Any] = {"mfc": "none", "mew": 2} if size > 10 else {}
            axis.plot(*_places([outcome]), marker, color=colour, ms=size, label=label, linestyle="none", **style)
    if len(results.front) <= _MOST_LABELS:
        for item, bits, value in zip(results.front, *_places(results.front), strict=True):
            text = ", ".join(str(value) for value in item.setting.values())
            note(axis, text, (bits, value), (6, 6), fontsize=7)
    axis.margins(x=0.1)
    if objective.better == "lower":
        axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)
    return figure


def _points(axis: Any, outcomes: list[Outcome], colour: str, label: str) -> None:
    if outcomes:
        names = ("bits_per_row", outcomes[0].objective.name)
        errors = [[item.estimates[name].half or 0.0 for item in outcomes] for name in names]
        axis.errorbar(
            *_places(outcomes), xerr=errors[0], yerr=errors[1], fmt="o", color=colour, ms=4, capsize=3, label=label
        )


def _places(outcomes: list[Outcome]) -> tuple[list[float], list[float]]:
    return (
        [item.mean_bits for item in outcomes],
        [item.estimates[item.objective.name].mean for item in outcomes],
    )
