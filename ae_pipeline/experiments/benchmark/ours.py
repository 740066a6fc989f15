"""Our codecs in the benchmark: every preset trained once, and measured through real stores in every layout."""

import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.context.options import STREAM_ROWS
from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError
from ae_pipeline.evaluation.through_store import make_trip
from ae_pipeline.experiments.benchmark.points import OURS, Point, Rows
from ae_pipeline.files import locked_folder, sha256_file, sha256_json
from ae_pipeline.params import EncodeParams, Params
from ae_pipeline.provenance import machine
from ae_pipeline.store.format.layouts import QUICK, STREAM
from ae_pipeline.training.build import build_codec
from ae_pipeline.training.progress import epoch_progress

# What decides the weights, beside data and parameters: dvc.yaml's code dependencies of `train` (a test compares them).
TRAINING_CODE = ("codec", "data", "models", "training")
_PACKAGE = Path(__file__).parents[2]
_TIMED_RUNS = 2
# Digits of the digest in a folder's name: "compact-<digits>" is not a former "compact-fine-<digits>".
_DIGITS = 16


def trained_codec(
    preset: str, params: Params, train: SampleSet, validation: SampleSet, work: Path, git: dict[str, Any]
) -> Path:
    """The folder of a preset's codec below `work`; trained if no codec of the same inputs is there, or a damaged one.

    Codecs of the same preset and other inputs are removed. Raises TrainingError, DataError, ConfigError, TargetError.
    """
    folder = work / f"{preset}-{_inputs(params, train, validation)[:_DIGITS]}"
    with locked_folder(work):
        for former in work.glob(f"{preset}-{'[0-9a-f]' * _DIGITS}"):
            if former != folder:
                shutil.rmtree(former)
        try:
            Codec.load(folder)
        except CodecError:  # there is none, or a damaged one
            shutil.rmtree(folder, ignore_errors=True)
            with epoch_progress(params.train.epochs, sys.stderr) as on_epoch:  # what is printed may be JSON
                build_codec(train, validation, params, folder, git, on_epoch)
    return folder


def measure_preset(preset: str, codec: Path, rows: Rows, params: EncodeParams) -> list[Point]:
    """One point for every quick layout of the latent column, and for the codec's own."""
    points = []
    for layout in layouts_of([codec]):
        settings: dict[str, Any] = {"layout": layout} | ({"row_group_rows": STREAM_ROWS} if layout == STREAM else {})
        own = params.model_copy(update=settings)
        points.append(measure_store(f"{preset} ({layout})", OURS, layout, codec, rows, own))
    return points


def layouts_of(codecs: Iterable[Path]) -> list[str]:
    """The quick layouts, and those that the codecs were trained for: alternatives get these, too."""
    return [*QUICK, *sorted({read_header(codec).layout for codec in codecs} - {*QUICK})]


def measure_store(
    name: str,
    family: str,
    setting: str,
    codec: Path,
    rows: Rows,
    params: EncodeParams,
    codec_bytes: int | None = None,
) -> Point:
    """A codec through a real store, written and decoded with the commands' own functions.

    The rows' bits are those of the latent column in the Parquet files. `codec_bytes` counts instead of the codec's
    files. Speeds are those of whole runs, from Parquet to Parquet, the better of two.
    """
    with tempfile.TemporaryDirectory() as folder:
        trips = [make_trip(codec, rows.samples, params, Path(folder, str(run))) for run in range(_TIMED_RUNS)]
        store, decoded = trips[0].store, trips[0].decoded
        bits = 8 * store.latent_bytes() / len(rows)
        seconds = min(trip.encode_seconds for trip in trips), min(trip.decode_seconds for trip in trips)
        kept = store.manifest.codec.bytes if codec_bytes is None else codec_bytes
        point = rows.point(name, family, setting, bits, decoded.load().pixels, seconds, kept)
        return replace(point, store_bits_per_row=8 * store.manifest.totals.bytes_parts / len(rows))


def _inputs(params: Params, train: SampleSet, validation: SampleSet) -> str:
    """SHA-256 (hex) of everything that a training depends on."""
    code = [
        [str(file.relative_to(_PACKAGE)), sha256_file(file)]
        for name in TRAINING_CODE
        for file in sorted((_PACKAGE / name).rglob("*.py"))
    ]
    return sha256_json(
        {
            "data": [train.digest, validation.digest],
            "params": params.used("source", "model", "train", "quantiser"),
            "code": code,
            "torch": version("torch"),
            "machine": machine(),
        }
    )
