"""How a codec computes, in floats or in integers: pixels to quantised latents, and back.

Both have the same five methods, of tensors on the codec's device; q is int8 (n, L). `FloatArithmetic` needs blocks of
one size on one thread, for a float sum depends on both; `IntegerArithmetic` (integer.py) is exact, and does not care.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from ae_pipeline.codec.header import CodecHeader, Scaling
from ae_pipeline.codec.integer import EXACT, LARGEST_INPUT, ByteTable, IntegerLayer
from ae_pipeline.codec.quantiser import Quantiser
from ae_pipeline.codec.tables.streams import TableCoder
from ae_pipeline.models.base import Autoencoder

# This many squares of bytes add up exactly in float32.
_EXACT_SQUARES = EXACT // LARGEST_INPUT**2
# Values whose squares are taken at once on a CPU: as floats, half a MiB.
_CACHED_VALUES = 1 << 17
_INDEX_ZERO = 128


class FloatArithmetic:
    """float32 whatever the device; every block is padded to `block_rows` rows."""

    def __init__(self, header: CodecHeader, model: Autoencoder, device: torch.device, block_rows: int):
        self._model, self._device, self._block_rows = model, device, block_rows
        self._scaling, self._dtype = header.scaling, header.spec.dtype
        steps = torch.tensor(header.quantiser.of(header.model.latent_size), dtype=torch.float32)
        self._quantiser = Quantiser(header.quantiser.levels, *steps).to(device)
        self._latent_size = header.model.latent_size

    def place(self, rows: np.ndarray) -> Tensor:
        """Pixels or latents of at most a block to the device, padded: pixels as float32 or bytes, latents as int8."""
        # Where a thread's share of an exponential ends within a vector, other instructions finish it.
        assert self._device.type != "cpu" or torch.get_num_threads() == 1, "use one_torch_thread()"
        if rows.dtype.kind == "f" or rows.dtype.itemsize > 1:
            rows = rows.astype(np.float32, copy=False)
        if len(rows) == self._block_rows:
            return _shared(rows, self._device)
        block = np.zeros((self._block_rows, *rows.shape[1:]), rows.dtype)
        block[: len(rows)] = rows
        return moved(torch.from_numpy(block), self._device)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels to q."""
        return self._quantiser.quantise(self._model.encode(scale_pixels(pixels, self._scaling)))

    def decode(self, q: Tensor) -> Tensor:
        """Latents q to float32 pixels, rounded to integers where the samples are integers."""
        return self._pixels(self._quantiser.dequantise(q))

    def decode_unquantised(self, pixels: Tensor) -> Tensor:
        """Pixels through the network alone: float32, as all these pixels are."""
        return self._pixels(self._model.encode(scale_pixels(pixels, self._scaling)))

    def errors(self, decoded: Tensor, original: Tensor) -> Tensor:
        """MSE of each row, float32 (n,), in units of the scale squared; overwrites `decoded`."""
        # Integer pixels: every square and, to 1 part in 2^24, every sum is exact in float32.
        means = [
            some.sub_(other).flatten(1).square_().mean(1, dtype=torch.float32)
            for some, other in _cached(decoded, original)
        ]
        return torch.cat(means).div_(self._scaling.scale**2)

    def _pixels(self, z: Tensor) -> Tensor:
        pixels = self._model.decode(z).mul_(self._scaling.scale)
        if self._scaling.offset:
            pixels.add_(self._scaling.offset)
        if self._dtype != "float32":
            limits = np.iinfo(self._dtype)
            pixels.round_().clamp_(limits.min, limits.max)
        return pixels


class IntegerArithmetic:
    """uint8 pixels, int8 latents, the same result everywhere. Raises OverflowError as `IntegerLayer.prepare` does."""

    def __init__(self, header: CodecHeader, model: Autoencoder, device: torch.device):
        self._model, self._device = model, device
        self._lowest = -(header.quantiser.levels // 2)
        self._highest = self._lowest + header.quantiser.levels - 1
        for module in model.modules():
            if isinstance(module, IntegerLayer | ByteTable):
                module.prepare()
        layers = [module for module in model.modules() if isinstance(module, IntegerLayer)]
        self.value_bytes = 1 if all(layer.multiplies_bytes for layer in layers) else 4
        """Bytes of a value between layers."""

    def place(self, rows: np.ndarray) -> Tensor:
        """Pixels or latents to the device as they are."""
        return _shared(rows, self._device)

    def encode(self, pixels: Tensor) -> Tensor:
        """uint8 pixels to q."""
        return self._model.encode(pixels).round_().clamp_(self._lowest, self._highest).to(torch.int8)

    def decode(self, q: Tensor) -> Tensor:
        """Latents q to uint8 pixels."""
        return self._model.decode(q).to(torch.uint8)

    def decode_unquantised(self, pixels: Tensor) -> Tensor:
        """Pixels, as float32, of latents that are neither rounded nor clipped; everything else is."""
        return self._model.decode(self._model.encode(pixels)).float()

    def errors(self, decoded: Tensor, original: Tensor) -> Tensor:
        """MSE of each row, float32 (n,), in units of the scale squared."""
        return _errors_of_bytes(decoded, original)


class GridArithmetic:
    """uint8 pixels, and as latents their indices in a grid, less 128 as int8: see `context.grid`."""

    def __init__(self, max_error: int, device: torch.device):
        self._error, self._step, self._device = max_error, 2 * max_error + 1, device

    def place(self, rows: np.ndarray) -> Tensor:
        """Pixels or latents to the device as they are."""
        return _shared(rows, self._device)

    def encode(self, pixels: Tensor) -> Tensor:
        """uint8 pixels (n, height, width) to q (n, height * width)."""
        index = (pixels.flatten(1).short() + self._error).div_(self._step, rounding_mode="floor")
        return index.sub_(_INDEX_ZERO).to(torch.int8)

    def decode(self, q: Tensor) -> Tensor:
        """Latents q to uint8 values, (n, height * width)."""
        return q.short().add_(_INDEX_ZERO).mul_(self._step).clamp_(max=LARGEST_INPUT).to(torch.uint8)

    def decode_unquantised(self, pixels: Tensor) -> Tensor:
        """The pixels themselves, as float32: without its grid the codec loses nothing."""
        return pixels.float()

    def errors(self, decoded: Tensor, original: Tensor) -> Tensor:
        """MSE of each row, float32 (n,), in units of the scale squared."""
        return _errors_of_bytes(decoded, original.flatten(1))


class TableArithmetic:
    """Fields of rows of tables, float32 (n, fields), as int32 in four int8 each: see `tables.streams`. On the CPU."""

    def __init__(self, coder: TableCoder):
        self._coder = coder

    def place(self, rows: np.ndarray) -> Tensor:
        """Rows or latents as they are."""
        return from_dlpack(np.ascontiguousarray(rows))

    def encode(self, rows: Tensor) -> Tensor:
        """Rows to q."""
        return torch.from_numpy(self._coder.quantised(rows.numpy()))

    def decode(self, q: Tensor) -> Tensor:
        """Latents q to rows within the bound."""
        return torch.from_numpy(self._coder.rows_of(q.numpy()))

    def decode_unquantised(self, rows: Tensor) -> Tensor:
        """The rows themselves: but for cells of its grid the codec loses nothing."""
        return rows.clone()

    def errors(self, decoded: Tensor, original: Tensor) -> Tensor:
        """MSE of each row, float32 (n,), in units of the fields' ranges squared."""
        return (decoded.double() - original.double()).square_().mean(1).float()


def _errors_of_bytes(decoded: Tensor, original: Tensor) -> Tensor:
    sums = torch.cat([_sums_of_squares(*pair) for pair in _cached(decoded, original)])
    return sums.div_(original.shape[1:].numel() * LARGEST_INPUT**2).float()


def _cached(one: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a few rows each: as many as the cache of a CPU holds."""
    rows = max(1, _CACHED_VALUES // other.shape[1:].numel()) if other.device.type == "cpu" else len(other)
    return zip(one.split(rows), other.split(rows), strict=True)


def _sums_of_squares(one: Tensor, other: Tensor) -> Tensor:
    """Sum of squared differences of bytes in each row, exactly: float64 (n,), on the CPU."""
    distance = torch.maximum(one, other).sub_(torch.minimum(one, other))
    squares = distance.flatten(1).float().square_()
    sums = squares.sum(1)
    # Below EXACT, every sum on the way was an integer that float32 holds. Not every device has float64 for others.
    if bool((sums >= EXACT).any()):
        sums = torch.stack([piece.sum(1).long() for piece in squares.split(_EXACT_SQUARES, 1)]).sum(0)
    return sums.cpu().double()


def scale_pixels(pixels: Tensor, scaling: Scaling) -> Tensor:
    """Pixels to what a float network sees, float32: (pixel - offset) / scale."""
    if not pixels.is_floating_point():
        pixels = pixels.float()
        return (pixels.sub_(scaling.offset) if scaling.offset else pixels).div_(scaling.scale)
    return pixels.sub(scaling.offset).div_(scaling.scale) if scaling.offset else pixels.div(scaling.scale)


def _shared(rows: np.ndarray, device: torch.device) -> Tensor:
    """The array on a device, on a CPU in the same memory: nothing may write to it."""
    # Unlike torch.from_numpy, this takes Arrow's buffers without a copy or a warning.
    return moved(from_dlpack(np.ascontiguousarray(rows)), device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; it gets to a GPU by a pinned copy."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def fetched(tensor: Tensor) -> np.ndarray:
    """The tensor as an array of this machine; from a GPU by a pinned copy, which this thread alone waits for."""
    if tensor.device.type != "cuda":
        return tensor.cpu().numpy()
    array = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    array.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return array.numpy()
