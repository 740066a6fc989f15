"""Measure the codec on the test split, draw the pictures, apply the quality gate; measure what drift compares with."""

from pathlib import Path

from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import warn
from ae_pipeline.evaluation.drift.fit import fit_reference
from ae_pipeline.evaluation.drift.reference import REFERENCE_NAME, write_reference
from ae_pipeline.evaluation.evaluate import evaluate_codec, lossless_warnings
from ae_pipeline.evaluation.gate import check_gate
from ae_pipeline.evaluation.mean_answer import warnings_of
from ae_pipeline.files import HISTORY, read_csv, write_json
from ae_pipeline.params import Params


def run(params: Params, root: Path) -> None:
    """paths.codec, paths.prepared/{train,test}, history.csv -> in paths.reports: metrics.json, drift_reference.json,
    tables/ and pictures/
    """
    prepared, reports, codec = root / params.paths.prepared, root / params.paths.reports, root / params.paths.codec
    header = read_header(codec)
    history = None if header.learns_by_column else read_csv(reports / "history.csv", HISTORY)
    train, test = SampleSet.open(prepared / "train"), SampleSet.open(prepared / "test")
    evaluation = evaluate_codec(codec, test, params.encode, train=train, seed=params.evaluate.seed)
    # Matplotlib takes half a second, and is not needed to start.
    from ae_pipeline.evaluation.pictures import write_pictures, write_tables

    # Written before the gate is applied: who fails it wants to see the numbers.
    write_tables(reports / "tables", evaluation)
    write_pictures(reports / "pictures", evaluation, history)
    write_json(reports / "metrics.json", evaluation.metrics)
    warn(warnings_of(evaluation.metrics, header.scaling, "the test split"))
    warn(lossless_warnings(evaluation.metrics))
    check_gate(evaluation.metrics, params.evaluate.gate)
    # After the gate: nothing is encoded with a codec that fails it, so nothing will be compared.
    reference = fit_reference(codec, train, test, params.drift, params.evaluate.seed, device=params.encode.device)
    write_reference(reports / REFERENCE_NAME, reference)
    shown = ("mse", "mean_mse", "r2", "snr", "psnr", "bits_per_row", "pca_mse", "pca_bits_per_row", "zstd_bits_per_row")
    limited = (limit.metric for limit in params.evaluate.gate.limits)
    found = {name: evaluation.metrics.get(name) for name in (*shown, *limited)}
    print("  ".join(f"{name} {'-' if value is None else f'{value:.6g}'}" for name, value in found.items()))
