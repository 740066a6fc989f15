"""The file drift_reference.json: the train rows' distributions, and the thresholds that batches are held against.

fit.py makes it, measure.py measures with it, and `publish` attaches it to the codec's MLflow run.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from ae_pipeline.data.json_types import Finite, JsonModel, Sha256
from ae_pipeline.errors import CodecError, DataError, first_line
from ae_pipeline.files import canonical_json, finished_file, read_small
from ae_pipeline.params.base import problems

REFERENCE_NAME = "drift_reference.json"
_FORMAT = 1
_LARGEST_REFERENCE = 256 << 20

Rows = Annotated[int, Field(ge=1)]
Frequency = Annotated[int, Field(ge=0)]
Distance = Annotated[float, Field(ge=0, le=1)]


class Calibrated(JsonModel):
    """Thresholds for batches whose own sampling and that of the held-out rows make the noise of `rows` rows."""

    rows: Rows
    error_drift: Distance
    latent_drift: Distance


class DriftReference(JsonModel):
    """The whole of drift_reference.json: the train rows' distributions, and the thresholds."""

    format: Literal[1] = 1
    codec_fingerprint: Sha256
    levels: Annotated[int, Field(ge=2, le=256)]
    train_rows: Rows
    """Rows that the distributions were counted on."""
    held_out_rows: Rows
    """Rows that the thresholds were calibrated on."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    """Share of undisturbed batches with both statistics below their thresholds."""
    error_edges: Annotated[list[Finite], Field(min_length=1)]
    """K rising quantiles of the train rows' `error`, rounded as in a store."""
    error_counts: list[Frequency]
    """2K + 1 counts: below edge 0, equal to it, between edges 0 and 1, equal to edge 1, ..., above the last."""
    latent_counts: Annotated[list[list[Frequency]], Field(min_length=1)]
    """For each of the L latent dimensions, how often each of its `levels` integers occurs, lowest first."""
    calibration: Annotated[list[Calibrated], Field(min_length=1)]
    """Rising in `rows`."""

    @model_validator(mode="after")
    def _numbers_agree(self) -> "DriftReference":
        if any(a >= b for a, b in zip(self.error_edges, self.error_edges[1:], strict=False)):
            raise ValueError("error_edges must rise")
        if len(self.error_counts) != 2 * len(self.error_edges) + 1:
            raise ValueError("error_counts must have two values for each of error_edges, and one more")
        if any(len(counts) != self.levels for counts in self.latent_counts):
            raise ValueError("latent_counts must have one count for each of the levels")
        if any(sum(counts) != self.train_rows for counts in (self.error_counts, *self.latent_counts)):
            raise ValueError("counts must sum to train_rows")
        if any(a.rows >= b.rows for a, b in zip(self.calibration, self.calibration[1:], strict=False)):
            raise ValueError("calibration must rise in rows")
        return self

    @property
    def latent_size(self) -> int:
        """Integers per row."""
        return len(self.latent_counts)

    def thresholds(self, rows: int) -> tuple[float, float]:
        """Thresholds of error_drift and latent_drift for a batch of `rows`.

        A batch deviates by its own sampling (variance 1/rows) and by that of the held-out rows, which stand for all
        undisturbed ones (1/held_out_rows): as much as `noise_rows` rows of a known distribution. Linear in their
        logarithm between calibrated sizes; below the smallest as 1/sqrt, which is how D shrinks; at most 1.
        """
        noise_rows = rows * self.held_out_rows / (rows + self.held_out_rows)
        known = [line.rows for line in self.calibration]
        scale = max(1.0, (known[0] / noise_rows) ** 0.5)
        error, latent = (
            float(np.interp(np.log(noise_rows), np.log(known), [getattr(line, name) for line in self.calibration]))
            for name in ("error_drift", "latent_drift")
        )
        return min(1.0, scale * error), min(1.0, scale * latent)


def write_reference(path: Path, reference: DriftReference) -> None:
    """Write the reference as JSON (tens of kB), whole or not at all."""
    with finished_file(path) as temporary:
        temporary.write_bytes(canonical_json(reference.model_dump(mode="json")) + b"\n")


def read_reference(path: Path, codec_fingerprint: str | None = None) -> DriftReference:
    """Read and check a reference. Raises DataError if it is missing or damaged, CodecError if of another codec."""
    again = "run `dvc repro evaluate`, or fetch it from the codec's run again"
    try:
        values = json.loads(read_small(path, _LARGEST_REFERENCE))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"no drift reference at {path}; {again}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON: {first_line(error)}; {again}") from None
    if not isinstance(values, dict):
        raise DataError(f"{path} holds a {type(values).__name__}, expected an object; {again}")
    if values.get("format") != _FORMAT:
        raise DataError(f"{path} has format {values.get('format')!r}, expected {_FORMAT}; use a newer ae-pipeline")
    try:
        reference = DriftReference.model_validate(values)
    except ValidationError as error:
        raise DataError(f"{path} is not a valid drift reference: {problems(error)[0]}; {again}") from None
    if codec_fingerprint not in (None, reference.codec_fingerprint):
        raise CodecError(
            f"{path} is of the codec {reference.codec_fingerprint[:12]}..., expected {str(codec_fingerprint)[:12]}...; "
            "use the reference that was published with that codec"
        )
    return reference
