"""Exact arithmetic: networks of small integers, which compute the same on every machine.

Float sums round, and how they round depends on the order, the batch, the threads and the processor. A layer here is

    out = clip(round((weight * a + bias) / 2 ** shift), low, high)

with `weight` in int8, `bias` in int32, one `shift` per output, and `a` and `out` of at most 8 bits: pixels,
activations, latents. Every partial sum is below 2 ** 24, so float32 holds it exactly in whatever order it is added up;
dividing by a power of two is exact, and halves are rounded to even. Two ways of computing it therefore cannot differ:
float32 products, anywhere, and products of bytes with 32-bit sums where the processor has them (VNNI), at four times
the speed. After Ballé, Johnston and Minnen, "Integer networks for data compression with latent-variable models" (ICLR
2019), who need it for entropy coding, and Jacob and others, arXiv:1712.05877.
"""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ae_pipeline.models.base import Autoencoder, Clamp, Weighted, output_axis
from ae_pipeline.models.layers.linear import has_onednn, linear

WEIGHT_LIMIT = 127
"""Largest magnitude of a weight."""
LARGEST_INPUT = 255
LARGEST_SHIFT = 64
"""Largest power of two, of either sign: no network comes near it, and 2 ** 64 times a sum is still a float32."""
EXACT = 1 << 24
"""float32 holds all integers below this."""
LOGIT_BITS, LOGIT_ZERO = 4, 128
"""A sigmoid's input is kept as 128 + logit * 2 ** 4, in a byte: -8 to 7.94."""

_HAS_ONEDNN = has_onednn("_convolution_pointwise")
_HAS_BYTE_PRODUCTS = (
    _HAS_ONEDNN
    and hasattr(torch.ops.onednn, "qlinear_pointwise")
    and hasattr(torch.ops.onednn, "qconv2d_pointwise")
    # Without VNNI, oneDNN adds pairs of products in 16 bits, which overflow.
    and bool(getattr(torch.cpu, "_is_vnni_supported", lambda: False)())
)


class IntegerLayer(nn.Module):
    """One layer in integers, of the geometry of a linear or convolutional float layer.

    Takes integers as uint8, int8 (latents) or float32. Gives integers from 0 to 255, as uint8 or float32, or, if it is
    the one that gives latents, float32 that is neither rounded nor clipped yet.
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor

    def __init__(self, like: Weighted, *, gives_latents: bool):
        super().__init__()
        self._axis = output_axis(like)
        outputs, device = like.weight.shape[self._axis], like.weight.device
        self.register_buffer("weight", torch.empty(like.weight.shape, dtype=torch.int8, device=device))
        self.register_buffer("bias", torch.empty(outputs, dtype=torch.int32, device=device))
        self.register_buffer("shift", torch.empty(outputs, dtype=torch.int8, device=device))
        self._gives_latents = gives_latents
        self._convolution = (like.stride, like.padding) if isinstance(like, nn.Conv2d) else None
        self._is_linear = isinstance(like, nn.Linear)
        self.product = exact_product_of(like)
        self._floats: tuple[Tensor, Tensor, Tensor] | None = None
        self._bytes: _ByteLinear | _ByteConvolution | None = None

    def prepare(self) -> None:
        """Make the copies that products need: once, when the weights are there, on their device.

        Raises OverflowError for weights and shifts beyond their limits, and where a sum could be more than float32
        holds exactly.
        """
        if int(self.shift.short().abs().max()) > LARGEST_SHIFT:
            raise OverflowError(f"a shift is beyond {-LARGEST_SHIFT} to {LARGEST_SHIFT}")
        if int(self.weight.min()) < -WEIGHT_LIMIT:
            raise OverflowError(f"a weight is {int(self.weight.min())}, but at least {-WEIGHT_LIMIT} is expected")
        others = [axis for axis in range(self.weight.dim()) if axis != self._axis]
        sums = self.weight.short().abs().sum(others, dtype=torch.int64)
        largest = int((sums * LARGEST_INPUT + self.bias.long().abs()).max())
        if largest >= EXACT:
            raise OverflowError(f"a sum can reach {largest}, but only those below {EXACT} are exact")
        factor = torch.exp2(-self.shift.float())
        self._floats = self.weight.float(), self.bias.float(), factor if self._is_linear else factor[:, None, None]
        if self.weight.device.type == "cpu" and _HAS_BYTE_PRODUCTS:
            if self._is_linear:
                gives = torch.float32 if self._gives_latents else torch.uint8
                self._bytes = _ByteLinear(self.weight, self.bias, factor, gives)
            elif self._convolution:
                self._bytes = _ByteConvolution(self.weight, self.bias, factor, *self._convolution)
            if self._bytes is not None and not self._agrees():
                self._bytes = None

    @property
    def multiplies_bytes(self) -> bool:
        """Whether the products are those of bytes here."""
        return self._bytes is not None

    def forward(self, a: Tensor) -> Tensor:
        """(N, in...) to (N, out...)."""
        if self._bytes is not None and a.dtype in self._bytes.takes:
            return self._bytes(a)
        return self._by_floats(a)

    def _by_floats(self, a: Tensor) -> Tensor:
        assert self._floats is not None, "prepare() first"
        weight, bias, factor = self._floats
        out = self.product(a.float(), weight, bias).mul_(factor)
        return out if self._gives_latents else out.round_().clamp_(0, 255)

    def _agrees(self) -> bool:
        """Whether this machine's byte products are what they should be: of the largest inputs, and of others."""
        shape = (16, self.weight.shape[1]) if self._is_linear else (2, self.weight.shape[1], 8, 7)
        ramp = torch.arange(math.prod(shape)).mul(37).remainder(256).to(torch.uint8).reshape(shape)
        inputs = (torch.full_like(ramp, LARGEST_INPUT), ramp, ramp.view(torch.int8))
        return all(torch.equal(self(a).float(), self._by_floats(a)) for a in inputs)


class _ByteLinear:
    """A linear layer by oneDNN's products of bytes; the operator is the one that torch's own quantiser calls."""

    takes = (torch.uint8, torch.int8)

    def __init__(self, weight: Tensor, bias: Tensor, factor: Tensor, gives: torch.dtype):
        self._packed = torch.ops.onednn.qlinear_prepack(weight, None)
        self._factor, self._gives = factor, gives
        self._zeros = torch.zeros(len(factor), dtype=torch.int64)
        self._bias = bias.float() * factor
        # int8 goes in as uint8, 128 more; the difference fits float64, and its product with a power of two float32.
        self._signed_bias = ((bias.double() - 128 * weight.sum(1).double()) * factor.double()).float()

    def __call__(self, a: Tensor) -> Tensor:
        signed = a.dtype == torch.int8
        if signed:
            a = a.view(torch.uint8) ^ 128
        return torch.ops.onednn.qlinear_pointwise(
            a, 1.0, 0, self._packed, self._factor, self._zeros, self._signed_bias if signed else self._bias,
            1.0, 0, self._gives, "none", [], "",
        )  # fmt: skip


class _ByteConvolution:
    """A convolution in bytes; what it gives lies channels last in memory."""

    takes = (torch.uint8,)

    def __init__(
        self, weight: Tensor, bias: Tensor, factor: Tensor, stride: tuple[int, ...], padding: str | tuple[int, ...]
    ):
        assert isinstance(padding, tuple)
        self._geometry = (list(stride), list(padding), [1, 1], 1)
        self._packed = torch.ops.onednn.qconv_prepack(weight, factor, 1.0, 0, *self._geometry, None)
        self._factor = factor
        self._zeros = torch.zeros(len(factor), dtype=torch.int64)
        self._bias = bias.float() * factor

    def __call__(self, a: Tensor) -> Tensor:
        return torch.ops.onednn.qconv2d_pointwise(
            a, 1.0, 0, self._packed, self._factor, self._zeros, self._bias, *self._geometry,
            1.0, 0, torch.uint8, "none", [], "",
        )  # fmt: skip


def product_of(layer: Weighted) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """What a layer does with input, weight and bias."""
    if isinstance(layer, nn.Linear):
        return linear
    if isinstance(layer, nn.Conv2d):
        stride, padding = layer.stride, layer.padding
        return lambda a, weight, bias: functional.conv2d(a, weight, bias, stride, padding)
    assert isinstance(layer.padding, tuple)
    transposed = (layer.stride, layer.padding, layer.output_padding)
    return lambda a, weight, bias: functional.conv_transpose2d(a, weight, bias, *transposed)


def exact_product_of(layer: Weighted) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`product_of` as a sum of products, whatever library there is.

    For convolutions of stride 1 some (NNPACK, cuDNN) may take Winograd's algorithm, which multiplies by fractions
    (Lavin and Gray, arXiv:1509.09308). oneDNN does not, unless it is asked to.
    """
    if not (isinstance(layer, nn.Conv2d) and layer.stride == (1, 1)):
        return product_of(layer)
    assert isinstance(layer.padding, tuple)
    down, across = layer.padding

    def convolution(a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if _HAS_ONEDNN and a.device.type == "cpu":
            return torch.ops.mkldnn._convolution_pointwise(
                a, weight, bias, [down, across], [1, 1], [1, 1], 1, "none", [], ""
            )
        return shifted_products(functional.pad(a, (across, across, down, down)), weight, bias)

    return convolution


def shifted_products(a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(N, in, height, width), padded, to (N, out, ...): one product for each place of the kernel."""
    height, width = (size - kernel + 1 for size, kernel in zip(a.shape[2:], weight.shape[2:], strict=True))
    last = a.permute(0, 2, 3, 1)
    out = bias.repeat(len(a) * height * width, 1)
    for u, v in product(range(weight.shape[2]), range(weight.shape[3])):
        seen = last[:, u : u + height, v : v + width].flatten(0, 2)
        out.addmm_(seen, weight[:, :, u, v].t())
    return out.unflatten(0, (len(a), height, width)).permute(0, 3, 1, 2)


def weighted(model: Autoencoder, name: str) -> Weighted:
    """A float layer by its name."""
    layer = model.get_submodule(name)
    assert isinstance(layer, Weighted)
    return layer


def swap_layers(model: Autoencoder, swap: Callable[[str, Weighted], nn.Module]) -> None:
    """Replace every layer with weights by `swap(name, layer)`, in place."""
    for name in [*model.encoder_layers(), *model.decoder_layers()]:
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, swap(name, weighted(model, name)))


def integerise(model: Autoencoder) -> Autoencoder:
    """Replace the float layers of a frozen model by integer ones, in place; their weights are to be loaded.

    `encode` then takes uint8 pixels and gives latents in steps, not rounded yet; `decode` takes latents to pixels.
    """
    latent = model.encoder_layers()[-1]
    swap_layers(model, lambda name, layer: IntegerLayer(layer, gives_latents=name == latent))
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU | Clamp):  # outputs are clipped anyway
                setattr(module, name, nn.Identity())
    if isinstance(model.output, nn.Sigmoid):
        model.output = ByteTable()
    return model


class ByteTable(nn.Module):
    """A function of a byte that gives a byte."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.empty(256, dtype=torch.uint8))
        self._pairs: np.ndarray | None = None

    def prepare(self) -> None:
        """Make the table of pairs: looking two bytes up at once takes half the time."""
        if self.table.device.type == "cpu":
            table = self.table.numpy().astype(np.uint16)
            self._pairs = (table[:, None] * 256 + table[None, :]).ravel()

    def forward(self, index: Tensor) -> Tensor:
        """Integers 0 to 255, of any type, to uint8."""
        if self._pairs is None:
            return self.table[index.long()]
        flat = index.to(torch.uint8).numpy().reshape(len(index), -1)
        if flat.shape[1] % 2:
            return torch.from_numpy(np.take(self.table.numpy(), flat)).reshape(index.shape)
        return torch.from_numpy(np.take(self._pairs, flat.view(np.uint16)).view(np.uint8)).reshape(index.shape)


def sigmoid_table() -> Tensor:
    """uint8 (256,): the pixel of every logit that fits the byte."""
    logits = (torch.arange(256, dtype=torch.float64) - LOGIT_ZERO) / 2**LOGIT_BITS
    return torch.round(255 * torch.sigmoid(logits)).to(torch.uint8)
