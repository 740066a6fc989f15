"""averaging.py: what an average forgets, and when."""

import math

import pytest
import torch
from torch import nn

from ae_pipeline.training.steps.averaging import WeightAverage


def ramp(steps, length):
    """The average, going back `length` steps, of a weight and a batch mean that grow by 1 in each step."""
    network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    average = WeightAverage(network, length)
    for step in range(steps):
        with torch.no_grad():
            network[0].weight.fill_(step)
            network[1].running_mean.fill_(step)
            network[1].num_batches_tracked.fill_(step)
        average.update()
    return average.modules


@pytest.mark.parametrize("length", [20, 200, 640])
def test_an_average_of_a_ramp_lags_by_its_length(length):
    linear, norm = ramp(12 * length, length)
    # With weights exp(-t / length), the mean of t is `length`; what is not updated at each step lags by at most 1 more.
    assert linear.weight.item() == pytest.approx(12 * length - 1 - length, abs=0.06 * length)
    assert float(norm.running_mean) == linear.weight.item()


def test_batches_are_counted_as_integers():
    assert ramp(100, 20)[1].num_batches_tracked == 99


@pytest.mark.parametrize("length", [0.3, 1])
def test_an_average_over_a_step_or_less_is_the_weight_itself(length):
    assert ramp(7, length)[0].weight.item() == 6


def test_it_soon_forgets_how_a_network_began():
    network = nn.Linear(1, 1)
    average = WeightAverage(network, 1e4)
    for step in range(1000):
        nn.init.constant_(network.weight, 1.0 if step < 10 else 0.0)
        average.update()
    assert average.modules.weight.item() < 0.05


def test_averaged_weights_are_copies():
    network = nn.Linear(1, 1)
    average = WeightAverage(network, 4)
    average.update()
    before = average.modules.weight.item()
    nn.init.constant_(network.weight, math.pi)
    assert average.modules.weight.item() == before
