"""The linear layer is torch's, only faster."""

import pytest
import torch
from torch import nn

from ae_pipeline.models.layers.linear import Linear


@pytest.fixture
def twins():
    torch.manual_seed(0)
    ours, theirs = Linear(50, 30), nn.Linear(50, 30)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_outputs_and_gradients_are_those_of_torch(twins):
    results = []
    for layer in twins:
        x = torch.randn(64, 50, generator=torch.Generator().manual_seed(1)).requires_grad_()
        layer(x).square().sum().backward()
        results.append([layer(x).detach(), x.grad, layer.weight.grad, layer.bias.grad])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_gradient_agrees_with_finite_differences_of_the_loss(twins):
    layer, _ = twins
    x = torch.randn(8, 50)
    layer(x).square().sum().backward()
    step = 1e-2
    with torch.no_grad():
        gradient = layer.weight.grad[3, 7].item()
        layer.weight[3, 7] += step
        above = layer(x).square().sum()
        layer.weight[3, 7] -= 2 * step
        below = layer(x).square().sum()
    assert gradient == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_take_torchs_way(twins, dtype):
    ours, theirs = (layer.to(dtype) for layer in twins)
    x = torch.randn(4, 50, dtype=dtype)
    assert torch.equal(ours(x), theirs(x))
    assert ours(x).dtype == dtype


def test_autocast_computes_in_bfloat16(twins):
    with torch.autocast("cpu", torch.bfloat16):
        assert twins[0](torch.randn(4, 50)).dtype == torch.bfloat16


def test_a_row_gives_the_same_bits_wherever_it_stands_in_a_block(twins):
    layer, _ = twins
    row = torch.randn(1, 50)
    with torch.inference_mode():
        blocks = [torch.randn(1024, 50) for _ in range(3)]
        found = []
        for block, place in zip(blocks, (0, 517, 1023), strict=True):
            block[place] = row
            found.append(layer(block)[place])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
