"""Measure the codec on the test split, draw the pictures, apply the quality gate."""

from pathlib import Path

from ae_pipeline.evaluation import check_gate, evaluate_codec
from ae_pipeline.files import write_json
from ae_pipeline.params import Params
from ae_pipeline.samples import SampleSet
from ae_pipeline.tables import read_csv


def run(params: Params, root: Path) -> None:
    """paths.codec, paths.prepared/{train,test}, history.csv -> metrics.json, tables/ and pictures/ in paths.reports"""
    prepared, reports = root / params.paths.prepared, root / params.paths.reports
    evaluation = evaluate_codec(
        root / params.paths.codec,
        SampleSet.open(prepared / "test"),
        params.encode,
        train=SampleSet.open(prepared / "train"),
        seed=params.evaluate.seed,
    )
    from ae_pipeline.report import write_pictures, write_tables  # matplotlib: half a second, not needed to start

    # Written before the gate is applied: who fails it wants to see the numbers.
    write_tables(reports / "tables", evaluation)
    write_pictures(reports / "pictures", evaluation, read_csv(reports / "history.csv"))
    write_json(reports / "metrics.json", evaluation.metrics)
    check_gate(evaluation.metrics, params.evaluate.gate)
    shown = ("mse", "psnr", "bits_per_row", "pca_mse", "pca_bits_per_row", "zstd_bits_per_row")
    print("  ".join(f"{name} {evaluation.metrics.get(name) or float('nan'):.6g}" for name in shown))
