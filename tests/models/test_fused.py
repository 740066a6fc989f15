"""models/layers/fused.py: not a bit differs from what the modules compute one after the other."""

from itertools import pairwise, product

import pytest
import torch
from torch import nn

from ae_pipeline.models.base import ACTIVATIONS
from ae_pipeline.models.layers import linear
from ae_pipeline.models.layers.fused import Sequence, added, in_turn
from ae_pipeline.models.layers.linear import Linear

pytestmark = pytest.mark.skipif(not linear.HAS_ONEDNN, reason="nothing is fused without oneDNN")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def convolutions(channels, kernel, activation, *, last):
    """Convolutions of one kernel with an activation between them, and after the last one if asked for."""
    modules = []
    for place, (less, more) in enumerate(pairwise(channels)):
        modules.append(nn.Conv2d(less, more, kernel, padding=(kernel[0] // 2, kernel[1] // 2)))
        if last or place < len(channels) - 2:
            modules.append(ACTIVATIONS[activation]())
    return nn.Sequential(*modules).eval().requires_grad_(False)


def plain(x, modules):
    """What the modules compute when each is called, as they are where gradients are wanted."""
    for module in modules:
        x = module(x)
    return x


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [1, 15, 16, 257])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_convolutions_give_the_same_bits(activation, rows, memory_format):
    torch.manual_seed(0)
    shapes = product([[3, 5], [16, 33, 8], [1, 16, 4, 1]], [(3, 3), (1, 3), (1, 1)], [(4, 4), (1, 8), (1, 1)])
    for channels, kernel, sides in shapes:
        modules = convolutions(channels, kernel, activation, last=rows % 2 == 0)
        x = torch.randn(rows, channels[0], *sides).to(memory_format=memory_format)
        with torch.inference_mode():
            found, wanted = in_turn(x, *modules), plain(x, modules)
        assert torch.equal(found, wanted), (channels, kernel, sides)
        assert found.layout == torch.strided
        assert found.stride() == wanted.stride(), (channels, kernel, sides)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_layers_give_the_same_bits(activation):
    torch.manual_seed(0)
    layers = [Linear(70, 33), ACTIVATIONS[activation](), nn.Dropout(0.5), Linear(33, 7), ACTIVATIONS[activation]()]
    modules = Sequence(*layers).eval().requires_grad_(False)
    for rows in (1, 3, 1024):
        x = torch.randn(rows, 70)
        with torch.inference_mode():
            assert torch.equal(modules(x), plain(x, modules))


def test_a_sum_has_the_same_bits():
    torch.manual_seed(0)
    layer = Linear(70, 33).requires_grad_(False)
    x, other = torch.randn(1024, 70), torch.randn(1024, 33)
    kept = other.clone()
    with torch.inference_mode():
        assert torch.equal(added(x, layer, other), kept + layer(x))
    assert torch.equal(other, kept)


def test_gradients_and_dropout_are_those_of_the_modules():
    torch.manual_seed(0)
    modules = Sequence(Linear(6, 5), nn.ReLU(), nn.Dropout(0.5), Linear(5, 4))
    x = torch.randn(20, 6)
    modules(x).sum().backward()
    assert all(parameter.grad is not None for parameter in modules.parameters())
    with torch.no_grad():
        assert not torch.equal(modules(x), modules(x))  # it is training: what is dropped differs
