"""codec.json: what a codec is, readable without torch. Documented in docs/store-format.md.

The fingerprint is the SHA-256 over the canonical JSON of everything that decides the codec's output, weights included;
provenance says where the codec came from and does not enter it.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.options import MOST_SIDE
from ae_pipeline.codec.context.options import NAME as CONTEXT
from ae_pipeline.codec.context.options import Options as ContextOptions
from ae_pipeline.codec.tables.options import LATENT_BYTES, TableOptions
from ae_pipeline.codec.tables.options import NAME as TABLE
from ae_pipeline.data.json_types import Finite, JsonModel, KindEntry, Samples, Sha256, Size
from ae_pipeline.data.pixels import DTYPES, SampleSpec
from ae_pipeline.errors import CodecError, DataError, first_line
from ae_pipeline.files import read_small, sha256_json, write_json
from ae_pipeline.params.base import problems
from ae_pipeline.params.options import MODELS, ModelName

FLOAT_FORMAT, INTEGER_FORMAT, BYTE_FORMAT, CONTEXT_FORMAT, TABLE_FORMAT = 1, 2, 3, 4, 5
"""Floats from float16 weights, integers (arithmetic.py), floats from weights of a byte (weights.py), values that come
back within a bound (context/), and rows of tables that do (tables/)."""
_FORMATS = (FLOAT_FORMAT, INTEGER_FORMAT, BYTE_FORMAT, CONTEXT_FORMAT, TABLE_FORMAT)
_BOUNDED = (CONTEXT_FORMAT, TABLE_FORMAT)
HEADER_NAME = "codec.json"
WEIGHTS_NAME = "weights.safetensors"
_LARGEST_HEADER = 16 << 20


class Scaling(JsonModel):
    """x = (pixel - offset) / scale is what the network sees."""

    offset: Finite
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Model(JsonModel):
    """Architecture: enough to rebuild the network that the weights belong to."""

    name: ModelName | Literal["context", "table"]
    latent_size: Size
    options: dict[str, Any]

    @model_validator(mode="after")
    def _options_are_known(self) -> "Model":
        if self.name == TABLE:
            TableOptions.model_validate(self.options)
        else:
            (ContextOptions if self.name == CONTEXT else MODELS[self.name]).model_validate(self.options)
        return self

    @property
    def context(self) -> ContextOptions:
        """The options of a context codec."""
        return ContextOptions.model_validate(self.options)

    @property
    def table(self) -> TableOptions:
        """The options of a codec of tables."""
        return TableOptions.model_validate(self.options)

    @property
    def arguments(self) -> dict[str, Any]:
        """The options as the model's class takes them; older codecs have not all of them."""
        return {**MODELS[self.name].before, **self.options}


class QuantiserHeader(JsonModel):
    """latent = zero_point + scale * q, per dimension; see quantiser.py. Fewer values than latents are taken in turn."""

    levels: Annotated[int, Field(ge=2, le=256)]
    scale: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    zero_point: list[Finite]

    def of(self, latent_size: int) -> tuple[list[float], list[float]]:
        """Scale and zero point of every latent."""
        times = latent_size // len(self.scale)
        return self.scale * times, self.zero_point * times


class CodecHeader(JsonModel):
    """The whole of codec.json."""

    format: Literal[1, 2, 3, 4, 5]
    fingerprint: Sha256
    samples: Samples
    scaling: Scaling
    model: Model
    quantiser: QuantiserHeader
    kind: KindEntry | None = None
    """What a row means; not there in codecs that were trained on rows of nothing but numbers."""
    weights_sha256: Sha256
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _sizes_agree(self) -> "CodecHeader":
        scales, latents = len(self.quantiser.scale), self.model.latent_size
        if scales != len(self.quantiser.zero_point) or not scales or latents % scales:
            raise ValueError("quantiser.scale and quantiser.zero_point must have model.latent_size values each")
        if self.format not in (BYTE_FORMAT, *_BOUNDED) and scales != latents:
            raise ValueError("quantiser.scale and quantiser.zero_point are short in a format that has no such ones")
        try:
            _ = self.spec
        except DataError as error:
            raise ValueError(str(error)) from None
        bounded = {CONTEXT: CONTEXT_FORMAT, TABLE: TABLE_FORMAT}.get(self.model.name)
        if bounded != (self.format if self.format in _BOUNDED else None):
            raise ValueError(f"model {self.model.name} in a codec of format {self.format}")
        if self.format == INTEGER_FORMAT:
            self._fits_integers()
        if self.format == CONTEXT_FORMAT:
            self._fits_contexts()
        if self.format == TABLE_FORMAT:
            self._fits_tables()
        return self

    def _fits_contexts(self) -> None:
        shape, step = self.samples.shape, 2 * self.model.context.max_error + 1
        if self.samples.dtype != "uint8" or len(shape) != 2 or max(shape) > MOST_SIDE:
            raise ValueError(f"a context codec is for grey uint8 samples of at most {MOST_SIDE} x {MOST_SIDE}")
        if self.model.latent_size != shape[0] * shape[1] or (self.scaling.offset, self.scaling.scale) != (0, 255):
            raise ValueError("a context codec has a latent for each value, and scales by 255")
        found = (self.quantiser.levels, self.quantiser.scale, self.quantiser.zero_point)
        if found != (256, [step], [128 * step]):
            raise ValueError(f"a context codec of this bound has steps of {step}")

    def _fits_tables(self) -> None:
        fields = len(self.model.table.fields)
        if (self.samples.dtype, self.samples.shape) != ("float32", [fields]):
            raise ValueError(f"a codec of tables with {fields} fields is for float32 samples of as many values")
        found = (self.quantiser.levels, self.quantiser.scale, self.quantiser.zero_point)
        if (self.scaling.offset, self.scaling.scale, found) != (0, 1, (256, [1.0], [0.0])):
            raise ValueError("a codec of tables scales nothing")
        if self.model.latent_size != LATENT_BYTES * fields:
            raise ValueError(f"a codec of tables has {LATENT_BYTES} bytes of latents for each field")

    def _fits_integers(self) -> None:
        if (self.samples.dtype, self.scaling.offset, self.scaling.scale) != ("uint8", 0, 255):
            raise ValueError("an integer codec is for uint8 samples, scaled by 255")
        options = self.model.options
        if options.get("activation") != "relu" or options.get("latent_activation", "identity") != "identity":
            raise ValueError("an integer codec has activation relu, and identity for latents")
        if options.get("linear_path"):
            raise ValueError("an integer codec has no linear path")

    @property
    def is_integer(self) -> bool:
        """Whether it computes in integers, the same on every machine; otherwise in floats."""
        return self.format in (INTEGER_FORMAT, *_BOUNDED)

    @property
    def max_error(self) -> float | None:
        """No value comes back further away than this, in the samples' units; None: nothing is promised of values.

        The units of samples of tables are the ranges of their columns.
        """
        if self.format == TABLE_FORMAT:
            return self.model.table.max_error
        return self.model.context.max_error if self.format == CONTEXT_FORMAT else None

    @property
    def learns_by_column(self) -> bool:
        """Whether an epoch of its training is a column's, whose losses are the bits of all columns up to it."""
        return self.format == TABLE_FORMAT

    @property
    def restored_max_error(self) -> int | None:
        """No restored value is further away than this; None: the codec restores nothing."""
        if self.format != CONTEXT_FORMAT or not self.model.context.restore:
            return None
        return Grid(self.model.context.max_error).restored_max_error

    def check_restores(self, name: str) -> None:
        """Raise CodecError for a codec that restores nothing."""
        if self.restored_max_error is None:
            raise CodecError(
                f"{name} restores nothing: a context codec with codec.max_error of 1 or more does, if this version "
                "trained it; decode without --restored"
            )

    def check_promise(self, max_error: float | None, name: str) -> None:
        """Raise CodecError unless no value comes back further away than this; None: nothing is asked for."""
        if max_error is None or (self.max_error is not None and self.max_error <= max_error):
            return
        found = "promises nothing of single values" if self.max_error is None else f"promises {self.max_error}"
        bound = "every value as it was" if max_error == 0 else f"every value within {max_error:g}"
        raise CodecError(
            f"{name} {found}, but {bound} is asked for; take a codec that was trained for it (`ae-pipeline preset "
            "exact` or near_1 and so on, then `dvc repro`: docs/exact.md), or ask for less"
        )

    @property
    def spec(self) -> SampleSpec:
        """Shape and dtype of one row."""
        assert self.samples.dtype in DTYPES
        return SampleSpec(tuple(self.samples.shape), self.samples.dtype)

    @property
    def layout(self) -> Literal["list", "binary", "packed", "coded", "stream"]:
        """The layout in which the latents of a codec trained so take the fewest bits, as far as it can be told."""
        if self.format in _BOUNDED:
            return "stream"
        params = self.provenance.get("params")  # by their paths in params.yaml
        if not isinstance(params, dict) or not params.get("train.rate_weight"):
            return "list"
        if self.model.name == "grid":  # long rows that are mostly zero, and zeros that stand together
            return "packed"
        return "coded" if params.get("train.rate_code") == "separate" else "binary"


def said(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a model that codec.json names; `Model.arguments` knows the others."""
    known = MODELS[model]
    return {name: value for name, value in options.items() if name not in known.unsaid or value != known.before[name]}


def fingerprint(values: dict[str, Any]) -> str:
    """SHA-256 (hex) over what decides the output: everything in codec.json but itself and the provenance."""
    return sha256_json({key: value for key, value in values.items() if key not in ("fingerprint", "provenance")})


def write_header(
    folder: Path, values: dict[str, Any], provenance: dict[str, Any], codec_format: int = FLOAT_FORMAT
) -> CodecHeader:
    """Write codec.json with its fingerprint into `folder`."""
    complete = {"format": codec_format, "fingerprint": "", **values, "provenance": provenance}
    complete["fingerprint"] = fingerprint(complete)
    header = CodecHeader.model_validate(complete)
    write_json(folder / HEADER_NAME, complete)
    return header


def read_header(folder: Path) -> CodecHeader:
    """Read and check codec.json. Raises CodecError."""
    path = folder / HEADER_NAME
    try:
        if path.exists() and not path.is_file():
            raise CodecError(f"{path} is no regular file; restore the codec")
        values = json.loads(read_small(path, _LARGEST_HEADER))
    except (FileNotFoundError, NotADirectoryError):
        inside = folder / "_codec"
        hint = (
            f"use the one in the store, {inside}"
            if inside.is_dir()
            else "give its folder, or train one with `dvc repro` (README.md, On your own data)"
        )
        raise CodecError(f"no codec at {folder} ({HEADER_NAME} is missing); {hint}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CodecError(f"{path} is not readable JSON: {first_line(error)}; restore the codec") from None
    if isinstance(values, dict) and values.get("format") not in _FORMATS:
        raise CodecError(
            f"{path} has format {values.get('format')!r}, expected {_FORMATS[0]} to {_FORMATS[-1]}; "
            "use a newer ae-pipeline"
        )
    try:
        header = CodecHeader.model_validate(values)
    except ValidationError as error:
        raise CodecError(f"{path} is not a valid codec: {problems(error)[0]}; restore the codec") from None
    if header.fingerprint != fingerprint(values):
        raise CodecError(f"{path} was changed: its fingerprint does not match its contents; restore the codec")
    return header
