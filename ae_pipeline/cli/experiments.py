"""The commands that try things out: sweep (which size of codec), bench and preset (which kind)."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ae_pipeline.cli.options import DEFAULT_PARAMS, AsJson, ParamsFile, show, workspace
from ae_pipeline.errors import SweepError

if TYPE_CHECKING:
    from ae_pipeline.experiments.benchmark.points import Point
    from ae_pipeline.experiments.sweep.running import Swept
    from ae_pipeline.params import Params


def sweep(
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="PATH=V1,V2,... of params.yaml; with --trials also PATH=LOW..HIGH; can be repeated."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings of each setting.")] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="So many settings, chosen by Optuna, instead of every combination.")
    ] = None,
    max_mse: Annotated[float | None, typer.Option(help="Tolerance: name the smallest codec within it.")] = None,
    min_psnr: Annotated[float | None, typer.Option(help="The same in decibel.")] = None,
    write_params: Annotated[
        bool, typer.Option("--write-params", help="Write what is chosen into params.yaml: the smallest, or the knee.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which no further trial begins; later runs go on.")
    ] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    as_json: AsJson = False,
) -> None:
    """Train with several sizes and seeds, and name the smallest codec within a tolerance and the one at the knee.

    Defaults are `sweep:` in params.yaml. A sweep that was ended goes on when the same command is given again.
    """
    from ae_pipeline.experiments.sweep.choice import write_choice
    from ae_pipeline.experiments.sweep.report import verdict, write_reports
    from ae_pipeline.experiments.sweep.running import run_sweep
    from ae_pipeline.params.base import replaced

    options: dict[str, Any] = {"sweep.space": space, "sweep.seeds": seeds, "sweep.trials": trials}
    given = {name: value for name, value in options.items() if value is not None}
    loaded, root = workspace(params)
    if max_mse is not None or min_psnr is not None:  # instead of the tolerance of params.yaml
        given |= {f"sweep.{limit.key}": None for limit in loaded.sweep.limits}
        given |= {"sweep.max_mse": max_mse, "sweep.min_psnr": min_psnr}
    loaded = replaced(loaded, given)
    swept = run_sweep(loaded, root, float("inf") if timeout is None else timeout)
    files = write_reports(root / loaded.paths.reports, swept.results, swept.missing)
    chosen = swept.results.chosen
    if write_params and chosen is not None:
        write_choice(params, chosen.setting)
    lines = [*verdict(swept.results), f"reports: {', '.join(str(file.relative_to(root)) for file in files)}"]
    if swept.missing:
        lines.append(f"the time was over with {swept.missing} trials to go; the same command goes on")
    show(json.loads(files[0].read_text(encoding="utf-8")), "\n".join(lines), as_json=as_json)
    swept.runs.complete(swept.results, files)
    _check(swept, loaded, write_params=write_params)


def bench(
    preset: Annotated[
        list[str] | None, typer.Option(help="Codec to measure; can be repeated. [default: bench.presets]")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Test rows to measure on. [default: bench.max_rows]")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    as_json: AsJson = False,
) -> None:
    """Measure codecs, PCA, compressors, and codes of images or vectors on the test split, and say which to use."""
    from ae_pipeline.experiments.benchmark.run import run_benchmark
    from ae_pipeline.operation.ownership import BENCH, one_stage

    loaded, root = workspace(params)
    changes = ({"presets": preset} if preset else {}) | ({"max_rows": rows} if rows else {})
    chosen = loaded.bench.model_copy(update=changes)
    with one_stage(root, "bench", BENCH):
        result = run_benchmark(loaded.model_copy(update={"bench": chosen}), root, _tell)
    lines = [
        *_verdict(result),
        *(f"left out: {reason}" for reason in result["left_out"]),
        f"written: {Path(loaded.paths.reports)}/bench.json, bench.md, bench.png",
    ]
    show(result, "\n".join(lines), as_json=as_json)


def _verdict(result: dict[str, Any]) -> list[str]:
    """By the neighbours of vectors or by ear, if the rows are of that, and by the error."""
    are_sound = result["rows_per_second"] is not None
    verdicts = [
        ("by recall at 10", result["verdict_by_recall"]),
        ("by log-mel distance, what is heard", result["verdict_by_log_mel_distance"]),
        ("by SNR, the samples" if are_sound else "by MSE", result["verdict"]),
    ]
    there = [(by, verdict) for by, verdict in verdicts if verdict is not None]
    lines = []
    for by, verdict in there:
        lines.append(f"{by}: {verdict['summary']}" if len(there) > 1 else verdict["summary"])
        lines += [f"- {choice['sentence']}" for choice in verdict["choices"]]
    return lines


def preset(
    name: Annotated[str, typer.Argument(help="small, balanced, fine, compact ...: a file in experiments/presets.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Write a preset's network and training into params.yaml; every other character of it stays."""
    from ae_pipeline.experiments.presets import preset_changes
    from ae_pipeline.experiments.sweep.choice import write_choice

    values = preset_changes(name, workspace(params)[0])
    write_choice(params, values)
    print("\n".join(f"{path}: {json.dumps(value)}" for path, value in values.items()))
    gate = workspace(params)[0].evaluate.gate
    limits = ", ".join(f"{limit} {value:g}" for limit, value in gate if value not in (None, True, False))
    print(
        f"written to {params}. The quality gate there (evaluate.gate) is unchanged: {limits or 'no limit on errors'}. "
        f"A codec of `{name}` that does not meet it stops `dvc repro` after training; set the gate to what you need"
    )


def _check(swept: "Swept", params: "Params", *, write_params: bool) -> None:
    """Raise SweepError when what was asked for is not there; reports and MLflow have what is."""
    results = swept.results
    report = f"{params.paths.reports}/sweep.md"
    if results.best is None and not swept.missing:
        reasons = [trial.reason for trial in results.trials if trial.state == "failed"]
        raise SweepError(f"no setting was trained to its end: {reasons[0] if reasons else 'all were stopped'}")
    passed_over = results.passed_over
    if passed_over is not None and (write_params or results.limit is not None):
        raise SweepError(
            f"nothing is chosen: {passed_over.describe()} is not better than answering each value's mean. Train longer "
            f"(train.epochs), and look for outliers in the data, which widen its range; see {report}"
        )
    if results.limit is not None and results.smallest is None and results.best is not None:
        raise SweepError(
            f"no setting has an {results.objective.short} of {results.objective.asks} {results.limit:g}; the best "
            f"found is {results.best.describe()}. Try larger ones (--set train.latent_size=...), train longer "
            f"(train.epochs), or allow more; see {report}"
        )
    if write_params and results.chosen is None:
        raise SweepError(
            f"nothing was written to params.yaml: the curve has no knee, see {report}; say with --max-mse or "
            "--min-psnr what is good enough, or try more sizes"
        )


def _tell(point: "Point") -> None:
    """Progress, a line each; minutes pass between the first and the last."""
    psnr = "lossless" if point.psnr is None else f"{point.psnr:.1f} dB"
    recall = point.metrics.get("recall_at_10")
    neighbours = "" if recall is None else f", recall at 10 of {recall:.3f}"
    print(f"{point.name}: {point.bits_per_row:,.0f} bits per row, {psnr}{neighbours}", file=sys.stderr, flush=True)
