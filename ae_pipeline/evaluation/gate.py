"""The quality gate: what a codec must reach before anything is encoded with it."""

from ae_pipeline.errors import GateError
from ae_pipeline.evaluation.mean_answer import not_better_than_mean
from ae_pipeline.evaluation.measures.metrics import METRICS, Metrics
from ae_pipeline.params import GateParams


def check_gate(metrics: Metrics, gate: GateParams) -> None:
    """Raise GateError with all conditions that do not hold, and the numbers.

    Whatever the gate asks for, a codec that is not better than answering each value's mean never passes.
    """
    failed = []
    if metrics["mse"] is None:
        failed.append("decoded rows are not numbers")
    if (reason := not_better_than_mean(metrics)) is not None:
        failed.append(reason)
    failed += _missed_limits(metrics, gate)
    if gate.beat_pca and "max_error" not in metrics:  # a bound for every value is another promise
        pca, own = metrics.get("pca_mse"), metrics["mse"]
        if pca is None:
            failed.append("PCA was not computed, because there are no train rows; set beat_pca: false")
        elif own is not None and own >= pca:
            failed.append(f"mse is {own:.6g}, not below PCA's {pca:.6g} at the same latent size (beat_pca)")
    if failed:
        # No gate lets what knows nothing pass.
        other = "look for outliers in the data, which widen its range" if reason else "change the gate in params.yaml"
        raise GateError(f"the codec does not pass evaluate.gate: {'; '.join(failed)}. Improve the training, or {other}")


def _missed_limits(metrics: Metrics, gate: GateParams) -> list[str]:
    missed = []
    for key, name, is_most, limit in gate.limits:
        value = metrics.get(name)
        if value is None:
            # A PSNR of None means that rows came back whole; that rows are no numbers is said already.
            if metrics["mse"]:
                missed.append(f"{name} has no value for these rows; remove {key}")
        elif value > limit if is_most else value < limit:
            missed.append(f"{name} is {value:.6g}, the gate asks for {METRICS[name].asks} {limit:g}")
    return missed
