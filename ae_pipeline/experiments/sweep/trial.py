"""One training, measured on the validation split through a real store."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, TrainingError
from ae_pipeline.evaluation.compare import compare_rows
from ae_pipeline.evaluation.mean_answer import not_better_than_mean
from ae_pipeline.evaluation.measures.metrics import Metrics
from ae_pipeline.evaluation.through_store import make_trip, store_metrics
from ae_pipeline.experiments.front import grouped
from ae_pipeline.experiments.sweep.space import Setting, describe
from ae_pipeline.files import canonical_json, clear_folder, make_folder
from ae_pipeline.params import Params
from ae_pipeline.training.build import build_codec
from ae_pipeline.training.loop import Epoch

State = Literal["finished", "stopped", "failed"]


class StopTrial(Exception):  # noqa: N818 (not an error: the trial cannot win)
    """Raised after an epoch of a trial that cannot win against another setting; the message says why."""

    def __init__(self, reason: str, behind: Setting):
        super().__init__(reason)
        self.behind = behind


@dataclass(frozen=True)
class Trial:
    """A training with one setting and one seed, and what came out.

    `metrics` (docs/metrics.md) are of the validation split, and `seconds` wall time; both only of a `finished` one.
    `history` are the epochs' train_loss and validation_loss.
    """

    setting: Setting
    seed: int
    state: State
    epochs: int
    seconds: float
    metrics: Metrics = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    reason: str = ""
    """Why it was stopped, or failed."""
    commit: str | None = None
    rules: list[float | None] = field(default_factory=list)
    """What it was stopped by; with other rules it has to be done again."""
    behind: Setting | None = None
    """What it was stopped for; in a sweep without that it has to be done again."""

    @property
    def bits(self) -> float:
        """Bits per row of the Parquet parts."""
        return float(self.metrics["bits_per_row"] or 0.0)

    @property
    def own_bits(self) -> float:
        """Bits of the latents alone, which are what a setting changes."""
        return float(self.metrics.get("latent_bits_per_row") or self.bits)

    @property
    def worthless(self) -> bool:
        """Whether it is not better than answering each value's mean over the validation rows; older trials: no."""
        return not_better_than_mean(self.metrics) is not None

    @property
    def mse(self) -> float:
        """Mean squared error through quantiser and store."""
        return float(self.metrics["mse"] or 0.0)

    def describe(self) -> str:
        """One line for people."""
        if self.state == "finished":
            came = f"{self.bits:.1f} bits per row, MSE {self.mse:.6f}, {self.seconds:.0f} s"
        else:
            came = f"{self.state}, {self.reason}"
        return f"{describe(self.setting)}, seed {self.seed}: {came}"


def by_setting(trials: list[Trial]) -> list[list[Trial]]:
    """The trials of each setting, in the order in which they come."""
    return list(grouped(trials, lambda trial: canonical_json(trial.setting)).values())


def run_trial(
    params: Params,
    setting: Setting,
    splits: tuple[SampleSet, SampleSet],
    work: Path,
    git: dict[str, Any],
    on_epoch: Callable[[list[Epoch]], None],
) -> Trial:
    """Train with `params`, which hold the setting and the seed, and measure; `splits` are train and validation.

    `on_epoch` gets all epochs so far, and raises StopTrial to end it. A training that fails is a result, too: the same
    seed would fail again. Everything else that goes wrong is raised. `work` is a folder that is emptied.
    """
    make_folder(work)
    clear_folder(work)
    history: list[Epoch] = []

    def note(epoch: Epoch) -> None:
        history.append(epoch)
        on_epoch(history)

    state: State = "finished"
    reason, behind = "", None
    metrics: Metrics = {}
    start = time.perf_counter()
    try:
        build_codec(*splits, params, work / "codec", git, note)
        trip = make_trip(work / "codec", splits[1], params.encode, work)
        header = trip.store.codec_header()
        rows = compare_rows(splits[1], trip.decoded, header.scaling, kind=header.kind)
        metrics = store_metrics(trip.store, rows)
    except StopTrial as stopped:
        state, reason, behind = "stopped", str(stopped), stopped.behind
    except (TrainingError, CodecError) as error:  # CodecError: weights that cannot be stored
        state, reason = "failed", str(error)
    finally:
        clear_folder(work)
    losses = {name: [getattr(epoch, name) for epoch in history] for name in ("train_loss", "validation_loss")}
    seconds = time.perf_counter() - start
    return Trial(
        setting=setting,
        seed=params.train.seed,
        state=state,
        epochs=params.train.epochs,
        seconds=seconds,
        metrics=metrics,
        history=losses,
        reason=reason,
        commit=git["commit"],
        behind=behind,
    )
