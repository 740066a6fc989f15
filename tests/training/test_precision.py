"""precision.py: bfloat16 only where it is faster and as good; nothing of the trial stays in the training."""

import pytest
import torch
from test_training import KNOBS, OPTIONS, data, fitted  # noqa: F401 (a fixture)

from ae_pipeline.codec.header import Scaling
from ae_pipeline.models import build_model
from ae_pipeline.models.dense import Options as DenseOptions
from ae_pipeline.params import TrainParams
from ae_pipeline.training.batches import MemoryRows
from ae_pipeline.training.steps.precision import Precision, choose_precision
from ae_pipeline.training.steps.trainer import Trained, trial


class Machine:
    """Steps that take so long and end with such losses, by precision, and a clock that says so."""

    def __init__(self, seconds, losses):
        self.seconds, self.losses, self.now = seconds, losses, 0.0

    def trial(self, autocast):
        for number in range(100):
            self.now += self.seconds[autocast] + (number == 0)  # the first one loads something
            yield self.losses[autocast]

    def clock(self):
        return self.now


@pytest.mark.parametrize(
    ("seconds", "losses", "autocast"),
    [
        ({False: 0.01, True: 0.002}, {False: 1.0, True: 1.0}, True),
        ({False: 0.01, True: 0.002}, {False: 1.0, True: 1.1}, False),
        ({False: 0.002, True: 0.01}, {False: 1.0, True: 0.5}, False),
        ({False: 0.01, True: 0.002}, {False: 1.0, True: float("nan")}, False),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster_and_as_good(seconds, losses, autocast):
    machine = Machine(seconds, losses)
    found = choose_precision("auto", machine.trial, machine.clock)
    assert (found.autocast, found.measured) == (autocast, True)
    assert found.speedup == pytest.approx(seconds[False] / seconds[True], abs=0.01)


@pytest.mark.parametrize("setting", [True, False])
def test_what_is_set_is_not_measured(setting):
    assert choose_precision(setting, lambda autocast: pytest.fail("tried")) == Precision(setting)


def test_too_little_data_is_float32():
    assert choose_precision("auto", lambda autocast: iter([1.0] * 20)) == Precision(autocast=False)


@pytest.mark.slow
def test_the_trial_leaves_no_trace(data):  # noqa: F811
    knobs = {"batch_size": 8, "epochs": 2, "noise_std": 0.1, "rate_weight": 1e-4}
    (chosen, result), (fixed, again) = fitted(data, autocast="auto", **knobs), fitted(data, autocast=False, **knobs)
    assert result.precision.measured
    if not result.precision.autocast:
        assert result.history == again.history
        assert all(
            torch.equal(a, b) for a, b in zip(chosen.state_dict().values(), fixed.state_dict().values(), strict=True)
        )


def test_the_trial_makes_the_first_steps_of_the_training(data):  # noqa: F811
    knobs = {**KNOBS, "learning_rate": 0.1, "batch_size": 60, "epochs": 100, "autocast": False}
    params = TrainParams.model_validate(knobs)
    torch.manual_seed(0)
    model = build_model("dense", (12, 12), 6, dict(DenseOptions.model_validate(OPTIONS)))
    rows = MemoryRows(data.train_pixels, torch.device("cpu"))
    losses = trial(Trained(model, params), rows, params, Scaling(offset=0, scale=255), 100 * 9, autocast=False)
    result = fitted(data, **{**knobs, "patience": 1})[1]
    assert result.history[0].train_loss == pytest.approx(sum(losses) / 9, rel=1e-6)
