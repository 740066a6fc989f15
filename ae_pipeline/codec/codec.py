"""A codec: a frozen autoencoder with scaling and quantiser. Samples in, integers out, and back.

    codec = Codec.load(Path("data/codec"))
    latents = codec.encode(pixels)     # (n, *shape) to int8 (n, L)
    decoded = codec.decode(latents)    # int8 (n, L) to (n, *shape), the samples' dtype

How it computes is in arithmetic.py: a row gives the same bytes alone and among others.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from ae_pipeline.codec.arithmetic import (
    FloatArithmetic,
    GridArithmetic,
    IntegerArithmetic,
    TableArithmetic,
    fetched,
)
from ae_pipeline.codec.context.known import note_streams
from ae_pipeline.codec.context.networks import Networks
from ae_pipeline.codec.context.restore import Restorer
from ae_pipeline.codec.context.saving import empty_networks, load_packed, restorer, stream_coder
from ae_pipeline.codec.context.streams import StreamCoder
from ae_pipeline.codec.devices import one_torch_thread, own_stream, whole_float32
from ae_pipeline.codec.header import (
    BYTE_FORMAT,
    CONTEXT_FORMAT,
    FLOAT_FORMAT,
    HEADER_NAME,
    INTEGER_FORMAT,
    TABLE_FORMAT,
    WEIGHTS_NAME,
    CodecHeader,
    Scaling,
    read_header,
    said,
    write_header,
)
from ae_pipeline.codec.integer import integerise
from ae_pipeline.codec.quantiser import Quantiser
from ae_pipeline.codec.tables.saving import load_table_coder
from ae_pipeline.codec.tables.streams import TableCoder
from ae_pipeline.codec.weights import loaded_weights, stored_weights
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import CodecError, ConfigError, DataError, first_line
from ae_pipeline.files import finished_file, finished_folder, is_utf8, sha256_file
from ae_pipeline.models import build_model
from ae_pipeline.models.base import Autoencoder
from ae_pipeline.params import WeightBits

BLOCK_ROWS = 1024
# Values of the widest layer in a block (256 MiB as floats), and in a row.
_MOST_BLOCK_VALUES = 1 << 26
# Integers give the same in blocks of any size: many narrow rows are less work for Python, few wide ones fit the cache.
_INTEGER_BLOCK_ROWS = 16_384
_INTEGER_BLOCK_BYTES = 1 << 23
_MOST_ROW_VALUES = 1 << 27


class Codec:
    """Ready the moment it exists. Thread-safe: encoding and decoding change nothing in it."""

    def __init__(
        self, header: CodecHeader, model: Autoencoder | Networks | TableCoder, device: torch.device | str = "cpu"
    ):
        self.header, self.device = header, torch.device(device)
        self.spec, self.fingerprint, self.latent_size = header.spec, header.fingerprint, header.model.latent_size
        self.folder: Path | None = None
        """Where it was loaded from."""
        whole_float32(self.device)
        self.block_rows: int
        """Rows that are computed at once: BLOCK_ROWS in floats, more in integers, fewer of very large rows."""
        self.streams: StreamCoder | TableCoder | None = None
        """What codes the latents of a context codec, row group by row group."""
        self._restorer: Restorer | None = None
        self._arithmetic: FloatArithmetic | IntegerArithmetic | GridArithmetic | TableArithmetic
        if isinstance(model, TableCoder):
            self.streams = model
            note_streams(header.fingerprint, self.streams)
            self._arithmetic = TableArithmetic(model)
            self.block_rows = integer_block_rows(header.spec.size, 8, torch.device("cpu"))
            return
        if isinstance(model, Networks):
            self.streams = stream_coder(header, model.prepare())
            note_streams(header.fingerprint, self.streams)
            self._restorer = restorer(header, model)
            self._arithmetic = GridArithmetic(header.model.context.max_error, self.device)
            self.block_rows = integer_block_rows(header.spec.size, 2, self.device)
            return
        self.model = model = model.to(self.device).eval().requires_grad_(False)
        """The network of an autoencoder, of float or of integer layers."""
        widest = _widest(header, model)
        if header.is_integer:
            self._arithmetic = integers = IntegerArithmetic(header, model, self.device)
            self.block_rows = integer_block_rows(widest, integers.value_bytes, self.device)
        else:
            self.block_rows = max(1, min(BLOCK_ROWS, _MOST_BLOCK_VALUES // widest))
            self._arithmetic = FloatArithmetic(header, model, self.device, self.block_rows)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "Codec":
        """Load a codec folder; verifies fingerprint and weights. Raises CodecError."""
        header = read_header(folder)
        path = folder / WEIGHTS_NAME
        try:
            if sha256_file(path) != header.weights_sha256:
                raise CodecError(f"{path} was changed: its SHA-256 does not match {HEADER_NAME}; restore the codec")
            state = load_file(path) if is_utf8(path) else load(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise CodecError(f"cannot read {path}: {first_line(error)}; restore the codec") from None
        if header.format == CONTEXT_FORMAT:
            return cls._of_context(header, folder, state, device)
        if header.format == TABLE_FORMAT:
            return cls._of_tables(header, folder, state)
        model = _unallocated_model(header, folder, most_layers=len(state))
        expected = model.state_dict()
        if header.format == BYTE_FORMAT:
            expected = stored_weights(expected, 8)
        if _kinds(expected, header) != _kinds(state, header):
            raise CodecError(f"{path} does not hold the weights of the model in {HEADER_NAME}; restore the codec")
        if not header.is_integer:
            state = loaded_weights(state)
        model.load_state_dict(state, assign=True)
        try:
            codec = cls(header, model, device)
        except OverflowError as error:
            raise CodecError(f"{path} does not hold the weights of an integer codec: {error}; restore it") from None
        codec.folder = folder
        return codec

    @classmethod
    def _of_context(
        cls, header: CodecHeader, folder: Path, state: dict[str, Tensor], device: torch.device | str
    ) -> "Codec":
        path = folder / WEIGHTS_NAME
        try:
            codec = cls(header, load_packed(empty_networks(header), state), device)
        except (OverflowError, ValueError) as error:
            raise CodecError(f"{path} does not hold the networks of a context codec: {error}; restore it") from None
        codec.folder = folder
        return codec

    @classmethod
    def _of_tables(cls, header: CodecHeader, folder: Path, state: dict[str, Tensor]) -> "Codec":
        try:
            codec = cls(header, load_table_coder(header, state))
        except ValueError as error:
            path = folder / WEIGHTS_NAME
            raise CodecError(f"{path} does not hold the networks of a codec of tables: {error}; restore it") from None
        codec.folder = folder
        return codec

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """(n, *shape) of the codec's dtype to int8 (n, L)."""
        if pixels.shape[1:] != self.spec.shape or pixels.dtype.newbyteorder("=") != np.dtype(self.spec.dtype):
            found = f"{pixels.dtype} {'x'.join(map(str, pixels.shape[1:]))}"
            raise DataError(
                f"samples are {found}, expected {self.spec.describe()} as the codec has; use the one for them"
            )
        latents = np.empty((len(pixels), self.latent_size), np.int8)
        return self._by_blocks(pixels, latents, lambda rows: self.encode_block(rows)[0])

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """int8 (n, L) to (n, *shape) of the codec's dtype."""
        if latents.shape[1:] != (self.latent_size,) or latents.dtype != np.int8:
            raise DataError(f"latents are {latents.dtype} {latents.shape[1:]}, expected int8 ({self.latent_size},)")
        pixels = np.empty((len(latents), *self.spec.shape), self.spec.dtype)
        return self._by_blocks(latents, pixels, self.decode_block)

    def restore(self, pixels: np.ndarray) -> np.ndarray:
        """Decoded pixels, of a context codec, each moved within its bin: a smaller mean error, a larger bound.

        See `CodecHeader.restored_max_error`. Raises CodecError if the codec restores nothing.
        """
        self.header.check_restores(str(self.folder or "the codec"))
        assert self._restorer is not None
        return self._restorer(pixels)

    @torch.inference_mode()
    def reconstruct_unquantised(self, pixels: np.ndarray) -> np.ndarray:
        """(n, *shape) through the network alone, to tell its error from the quantiser's; float32 pixels."""
        decoded, arithmetic = np.empty(pixels.shape, np.float32), self._arithmetic
        return self._by_blocks(
            pixels,
            decoded,
            lambda rows: fetched(arithmetic.decode_unquantised(arithmetic.place(rows))[: len(rows)]),
        )

    def _by_blocks(
        self, rows: np.ndarray, result: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """`result`, (n, ...), filled with what `compute` makes of each block of `rows`, (n, ...)."""
        with one_torch_thread():
            for start in range(0, len(rows), self.block_rows):
                block = slice(start, start + self.block_rows)
                result[block] = compute(rows[block])
        return result

    @torch.inference_mode()
    def encode_block(self, pixels: np.ndarray, *, measure: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """A block of rows to int8 latents and, if asked for, the float32 MSE of each row when decoded again.

        For code that sets the thread count itself (`one_torch_thread`); everyone else calls `encode`.
        """
        rows = len(pixels)
        if rows > self.block_rows:
            halves = [self.encode_block(half, measure=measure) for half in (pixels[: rows // 2], pixels[rows // 2 :])]
            latents, errors = zip(*halves, strict=True)
            return np.concatenate(latents), np.concatenate(errors) if measure else None
        with own_stream(self.device):
            original = self._arithmetic.place(pixels)
            q = self._arithmetic.encode(original)
            if not measure:
                return fetched(q[:rows]), None
            measured = fetched(self._arithmetic.errors(self._arithmetic.decode(q), original)[:rows])
            beyond = ~np.isfinite(measured)
            # Squares of 2e19 and more do not fit float32, though their mean may, in units of the scale.
            if beyond.any():
                decoded = fetched(self._arithmetic.decode(q)[:rows])[beyond]
                measured[beyond] = self._wide_error(pixels[beyond], decoded)
            return fetched(q[:rows]), measured

    def _wide_error(self, pixels: np.ndarray, decoded: np.ndarray) -> np.ndarray:
        """MSE of each row in double precision, (n,) float64. Raises DataError for what float32 cannot hold."""
        difference = (pixels.astype(np.float64) - decoded) / self.header.scaling.scale
        error: np.ndarray = np.square(difference).reshape(len(pixels), -1).mean(axis=1)
        if not (error <= np.finfo(np.float32).max).all():
            low, high = self.header.scaling.offset, self.header.scaling.offset + self.header.scaling.scale
            raise DataError(
                f"samples reach from {pixels.min():g} to {pixels.max():g}, so far from the {low:g} to {high:g} of the "
                "codec's training that not even the error fits float32; remove such rows, or train on them"
            )
        return error

    @torch.inference_mode()
    def decode_block(self, latents: np.ndarray) -> np.ndarray:
        """A block of int8 latents to pixels; see `encode_block`."""
        rows = len(latents)
        if rows > self.block_rows:
            return np.concatenate([self.decode_block(latents[: rows // 2]), self.decode_block(latents[rows // 2 :])])
        with own_stream(self.device):
            decoded = self._arithmetic.decode(self._arithmetic.place(latents))[:rows].reshape(-1, *self.spec.shape)
            pixels = fetched(decoded.to(torch.uint8) if self.spec.dtype == "uint8" else decoded)
        with np.errstate(invalid="ignore"):  # weights of another's making may give NaN, which no integer is
            return pixels.astype(self.spec.dtype, copy=False)


def save_codec(
    folder: Path,
    *,
    model: Autoencoder,
    model_name: str,
    quantiser: Quantiser,
    spec: SampleSpec,
    scaling: Scaling,
    provenance: dict[str, Any],
    integers: dict[str, Tensor] | None = None,
    weight_bits: WeightBits = 16,
    kind: KindEntry | None = None,
) -> CodecHeader:
    """Write a codec folder, whole or not at all. `kind` says what a row means.

    `model` must be frozen (`freeze`), to weights of so many bits. With `integers`, the state of the same model in
    integers, these are what is written, and what the codec computes.
    """
    options, _ = model.frozen()
    form = INTEGER_FORMAT if integers else BYTE_FORMAT if weight_bits == 8 else FLOAT_FORMAT
    steps = quantiser.of_channels(model.latent_channels) if form == BYTE_FORMAT else quantiser
    with finished_folder(folder) as temporary:
        state = integers or stored_weights(model.state_dict(), weight_bits)
        state = {name: value.cpu().contiguous() for name, value in sorted(state.items())}
        with finished_file(temporary / WEIGHTS_NAME) as weights:
            weights.write_bytes(save(state))
        values = {
            "samples": {"shape": list(spec.shape), "dtype": spec.dtype},
            "scaling": {"offset": scaling.offset, "scale": scaling.scale},
            "model": {"name": model_name, "latent_size": model.latent_size, "options": said(model_name, options)},
            "quantiser": {
                "levels": quantiser.levels,
                "scale": steps.scale.tolist(),
                "zero_point": steps.zero_point.tolist(),
            },
            **({"kind": kind.model_dump(mode="json")} if kind else {}),
            "weights_sha256": sha256_file(temporary / WEIGHTS_NAME),
        }
        return write_header(temporary, values, provenance, form)


def _unallocated_model(header: CodecHeader, folder: Path, *, most_layers: int) -> Autoencoder:
    """The model of a header, without memory: its sizes allocate nothing until the weights have shown the same."""
    name, options = header.model.name, header.model.arguments
    try:
        if any(isinstance(value, list) and len(value) > most_layers for value in options.values()):
            raise ValueError(f"more layers than {WEIGHTS_NAME} holds")  # building them takes time, if no memory
        with torch.device("meta"):
            model = build_model(name, header.spec.shape, header.model.latent_size, options)
            return integerise(model) if header.is_integer else model
    except (ConfigError, RuntimeError, TypeError, ValueError) as error:
        raise CodecError(
            f"{folder / HEADER_NAME} describes no model that can be built: {first_line(error)}; restore the codec"
        ) from None


def _kinds(state: dict[str, Tensor], header: CodecHeader) -> dict[str, tuple[Any, ...]]:
    """What weights must agree in: everything except the precision of floats, which widen exactly."""
    as_they_are = header.format != FLOAT_FORMAT
    return {name: (value.shape, value.dtype if as_they_are else None) for name, value in state.items()}


def integer_block_rows(widest: int, value_bytes: int, device: torch.device) -> int:
    """Rows that a codec in integers computes at once, with so many values in its widest layer.

    A CPU has its cache to fit them into; a GPU wants as many as its memory easily holds.
    """
    most = _INTEGER_BLOCK_BYTES // value_bytes if device.type == "cpu" else _MOST_BLOCK_VALUES
    return max(1, min(_INTEGER_BLOCK_ROWS, most // widest))


def _widest(header: CodecHeader, model: Autoencoder) -> int:
    """Values per row of the largest thing that is computed. Raises CodecError where one row takes too much.

    Ten layers of nine weights each make a row of a million values: sizes on disk say little about those in memory.
    """
    values = max(header.spec.size, header.model.latent_size, model.widest)
    if values > _MOST_ROW_VALUES:
        raise CodecError(
            f"the codec {header.fingerprint[:12]}... computes {values} values per row, at most {_MOST_ROW_VALUES} "
            "are supported; use one for smaller samples"
        )
    return values


def freeze(
    model: Autoencoder, model_name: str, dimensions: Tensor | None = None, weight_bits: WeightBits = 16
) -> Autoencoder:
    """Make the model ready for inference: normalisation folded in, weights rounded as they will be stored.

    `dimensions` are the latent ones to keep (default: all); the decoder then gets zeros for the others.
    Raises CodecError if a weight does not fit float16.
    """
    options, state = model.frozen()
    size = model.latent_size
    if dimensions is not None:
        size, units = len(dimensions), model.units_of(dimensions)
        cuts = [(f"{layer}.{tensor}", 0) for layer in model.gives_latents() for tensor in ("weight", "bias")]
        cuts += [(f"{layer}.weight", 1) for layer in model.takes_latents()]
        for name, axis in cuts:
            state[name] = state[name].index_select(axis, units.to(state[name].device))
    frozen = build_model(model_name, model.sample_shape, size, options)
    stored = stored_weights({name: value.cpu() for name, value in state.items()}, weight_bits)
    frozen.load_state_dict(loaded_weights(stored))
    if not all(math.isfinite(float(value.abs().max())) for value in frozen.state_dict().values()):
        raise CodecError("the trained weights do not fit float16; train with weight_decay or a lower learning_rate")
    return frozen.eval().requires_grad_(False)
