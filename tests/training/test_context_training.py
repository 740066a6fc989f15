"""The networks of a context codec are trained side by side, each as it would be alone."""

import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from contexts import SMALL, pictures

from ae_pipeline.codec.context.options import Options
from ae_pipeline.errors import TrainingError
from ae_pipeline.params import TrainParams
from ae_pipeline.training.context import fit

SIDES = (8, 10)
PARAMS = TrainParams(epochs=3, batch_size=16, learning_rate=0.004, device="cpu")


@pytest.fixture
def rows():
    return pictures(120, SIDES)


def test_they_come_out_as_one_after_the_other(rows, monkeypatch):
    options = Options(max_error=3, **SMALL, restore=(16, 8))
    state, history = fit.fit_context(rows[:100], rows[100:], options, PARAMS)

    class OneAfterTheOther(fit.Abreast):
        def run(self, on_epoch):
            for course in self._courses.values():
                for _ in course.run(nullcontext):
                    pass
            for number, losses in enumerate(self.begun()):
                on_epoch(number + 1, losses)

    monkeypatch.setattr(fit, "Abreast", OneAfterTheOther)
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            alone, same = fit.fit_context(rows[:100], rows[100:], options, PARAMS)
        finally:
            torch.set_num_threads(before)
        assert same == history
        assert alone.keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in alone.items())


def test_an_epoch_is_told_when_all_have_done_it(rows):
    told = []
    _, history = fit.fit_context(rows[:100], rows[100:], Options(max_error=3, **SMALL), PARAMS, told.append)
    assert [epoch.epoch for epoch in told] == [1, 2, 3]
    assert told == history


def test_what_goes_wrong_in_one_ends_both_and_is_told(rows, monkeypatch):
    def fail(network, pixels, grid):
        raise MemoryError("no room")

    before = threading.active_count()
    monkeypatch.setattr(fit, "_bits_of_values", fail)
    with pytest.raises(MemoryError, match="no room"):
        fit.fit_context(rows[:100], rows[100:], Options(max_error=3, **SMALL), PARAMS)
    assert threading.active_count() == before


def test_a_training_that_explodes_is_ended(rows, monkeypatch):
    bits = fit._bits_of_masks
    monkeypatch.setattr(fit, "_bits_of_masks", lambda network, pixels, grid: bits(network, pixels, grid) * np.inf)
    with pytest.raises(TrainingError, match=r"the loss is not finite in epoch 1; lower train.learning_rate"):
        fit.fit_context(rows[:100], rows[100:], Options(max_error=3, **SMALL), PARAMS)


def test_a_training_of_one_step_gives_a_codec(rows):
    params = PARAMS.model_copy(update={"epochs": 1, "batch_size": 200})
    state, history = fit.fit_context(rows[:100], rows[100:], Options(max_error=3, **SMALL), params)
    assert len(history) == 1
    assert state["layers.mask_first.weight"].abs().max() > 0
