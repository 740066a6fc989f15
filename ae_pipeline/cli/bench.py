"""The command line's `bench`: our codecs beside what else one would use."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ae_pipeline.cli.options import DEFAULT_PARAMS, AsJson, ParamsFile, show, workspace

if TYPE_CHECKING:
    from ae_pipeline.experiments.benchmark.measure.points import Point


def bench(
    preset: Annotated[
        list[str] | None, typer.Option(help="Codec to measure; can be repeated. [default: bench.presets]")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Test rows to measure on. [default: bench.max_rows]")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    as_json: AsJson = False,
) -> None:
    """Measure codecs, PCA, image codecs and compressors on the test split, and say which to use. Takes minutes."""
    from ae_pipeline.experiments.benchmark.run import run_benchmark
    from ae_pipeline.operation.ownership import BENCH, one_stage

    loaded, root = workspace(params)
    changes = ({"presets": preset} if preset else {}) | ({"max_rows": rows} if rows else {})
    chosen = loaded.bench.model_copy(update=changes)
    with one_stage(root, "bench", BENCH):
        result = run_benchmark(loaded.model_copy(update={"bench": chosen}), root, _tell)
    lines = [
        result["verdict"]["summary"],
        *(f"- {choice['sentence']}" for choice in result["verdict"]["choices"]),
        *(f"left out: {reason}" for reason in result["left_out"]),
        f"written: {Path(loaded.paths.reports)}/bench.json, bench.md, bench.png",
    ]
    show(result, "\n".join(lines), as_json=as_json)


def preset(
    name: Annotated[str, typer.Argument(help="small, balanced, fine, compact ...: a file in experiments/presets.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Write a preset's network and training into params.yaml; every other character of it stays."""
    from ae_pipeline.experiments.presets import preset_values
    from ae_pipeline.experiments.sweep.choice import write_choice

    values = preset_values(name)
    write_choice(params, values)
    print("\n".join(f"{path}: {json.dumps(value)}" for path, value in values.items()))
    gate = workspace(params)[0].evaluate.gate
    limits = ", ".join(f"{limit} {value:g}" for limit, value in gate if value not in (None, True, False))
    print(
        f"written to {params}. The quality gate there (evaluate.gate) is unchanged: {limits or 'no limit on errors'}. "
        f"A codec of `{name}` that does not meet it stops `dvc repro` after training; set the gate to what you need"
    )


def _tell(point: "Point") -> None:
    """Progress, a line each; minutes pass between the first and the last."""
    psnr = "lossless" if point.psnr is None else f"{point.psnr:.1f} dB"
    print(f"{point.name}: {point.bits_per_row:,.0f} bits per row, {psnr}", file=sys.stderr, flush=True)
