"""The command line's `sweep`: which size of codec."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ae_pipeline.cli.options import DEFAULT_PARAMS, AsJson, ParamsFile, show, workspace
from ae_pipeline.errors import SweepError

if TYPE_CHECKING:
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
    if max_mse is not None or min_psnr is not None:  # instead of the tolerance of params.yaml
        given |= {"sweep.max_mse": max_mse, "sweep.min_psnr": min_psnr}
    loaded, root = workspace(params)
    loaded = replaced(loaded, given)
    swept = run_sweep(loaded, root, float("inf") if timeout is None else timeout)
    files = write_reports(root / loaded.paths.reports, swept.results, swept.trials, swept.missing)
    chosen = swept.results.chosen
    if write_params and chosen is not None:
        write_choice(params, chosen.setting)
    lines = [*verdict(swept.results), f"reports: {', '.join(str(file.relative_to(root)) for file in files)}"]
    if swept.missing:
        lines.append(f"the time was over with {swept.missing} trials to go; the same command goes on")
    show(json.loads(files[0].read_text(encoding="utf-8")), "\n".join(lines), as_json=as_json)
    swept.runs.complete(swept.trial_params(), swept.results, files)
    _check(swept, loaded, write_params=write_params)


def _check(swept: "Swept", params: "Params", *, write_params: bool) -> None:
    """Raise SweepError when what was asked for is not there; reports and MLflow have what is."""
    results = swept.results
    report = f"{params.paths.reports}/sweep.md"
    if results.best is None and not swept.missing:
        reasons = [trial.reason for trial in swept.trials if trial.state == "failed"]
        raise SweepError(f"no setting was trained to its end: {reasons[0] if reasons else 'all were stopped'}")
    passed_over = results.passed_over
    if passed_over is not None and (write_params or results.max_mse is not None):
        raise SweepError(
            f"nothing is chosen: {passed_over.describe()} is not better than answering each value's mean. Train longer "
            f"(train.epochs), and look for outliers in the data, which widen its range; see {report}"
        )
    if results.max_mse is not None and results.smallest is None and results.best is not None:
        raise SweepError(
            f"no setting has an MSE of at most {results.max_mse:g}; the best found is {results.best.describe()}. Try "
            f"larger ones (--set train.latent_size=...), train longer (train.epochs), or allow more; see {report}"
        )
    if write_params and results.chosen is None:
        raise SweepError(
            f"nothing was written to params.yaml: the curve has no knee, see {report}; say with --max-mse or "
            "--min-psnr what is good enough, or try more sizes"
        )
