"""The speeds of kinds.py: a kind's default network against the machine's bound, and beside what else it is kept in.

Not a script. Runs in a process of its own (`elsewhere`), which hands its lines on as a file: torch is large.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from kinds_data import PRESETS, RATE, make_case

ROWS = {"image": 100_000, "tiles": 8000, "vector": 100_000, "audio": 100_000}
_MOST_BYTES = 1 << 27
_FEW_ROWS = 2000  # for codecs of images, which are slow
_COMPONENTS, _LEVELS = 32, 256


def measure_speed(kind: str, repeats: int, work: Path, out: Path, workspace: Path | None = None) -> None:
    """Write two lists of lines to `out`, as JSON: the network against its bound, and the alternatives.

    With a `workspace`: its codec and train rows instead of made ones.
    """
    from reporting import tile
    from throughput import measure

    from ae_pipeline.codec.header import read_header
    from ae_pipeline.data.samples import SampleSet

    folder, layout = work / "made", "binary" if kind == "image" else "coded"
    if workspace is None:
        make_case(kind, "few", folder)
        for stage in ("download", "prepare"):
            subprocess.run([sys.executable, "-m", "ae_pipeline", "stage", stage], cwd=folder, check=True)
        split = work / "whole"
        split.mkdir()
        _whole_shard(folder / "data/prepared/train", split / "part-00000.parquet")
    else:
        layout, split = read_header(workspace / "data/codec").layout, workspace / "data/prepared/train"
    tile(split, work / "tiled", min(ROWS[kind], _MOST_BYTES // SampleSet.open(split).spec.nbytes))
    trained = workspace / "data/codec" if workspace else None
    bound = measure(PRESETS[kind], layout, work / "tiled", work, repeats, trained)
    others = [[name, f"{encode:,.0f}", f"{decode:,.0f}"] for name, encode, decode in _others(kind, work, layout)]
    out.write_text(json.dumps([bound, others]), encoding="utf-8")


def _whole_shard(split: Path, target: Path) -> None:
    """The rows of a split again and again, in one shard of as many rows as `prepare` writes when it has them."""
    from ae_pipeline.data.samples import SampleSet, ShardWriter
    from ae_pipeline.params import PrepareParams

    samples, left = SampleSet.open(split), PrepareParams().rows_per_shard
    with ShardWriter(target, samples.attributes_schema, samples.spec, kind=samples.kind) as writer:
        for block in cycle(samples.all_blocks(1024)):
            writer.write(block.attributes[:left], block.pixels[:left])
            left -= min(left, len(block))
            if not left:
                break


def _others(kind: str, work: Path, layout: str) -> Iterator[tuple[str, float, float]]:
    """Name, and rows per second of encoding and decoding."""
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.evaluation.baselines import build_pca_codec
    from ae_pipeline.experiments.benchmark.points import Rows
    from ae_pipeline.training.batches import fit_scaling

    samples = SampleSet.open(work / "tiled")
    rows = Rows(samples, samples.load().pixels, fit_scaling(samples))
    build_pca_codec(samples, _COMPONENTS, _LEVELS, rows.scaling, work / "pca")
    yield _through_store(f"PCA, {_COMPONENTS} components, through a store", work / "pca", rows, layout)
    if kind == "vector":
        from ae_pipeline.experiments.benchmark.vector_codes import measure_vector_codes
        from ae_pipeline.params.operation import BenchParams

        for point in measure_vector_codes(rows, samples, BenchParams(pq_bits=[128]), 10_000)[0]:
            yield point.name, point.encode_rows_per_s, point.decode_rows_per_s
    elif kind == "audio":
        yield from _sound_formats(rows.pixels)
    else:
        yield from _image_formats(rows.pixels[:_FEW_ROWS])


def _through_store(name: str, codec: Path, rows: Any, layout: str) -> tuple[str, float, float]:
    from ae_pipeline.experiments.benchmark.ours import measure_store
    from ae_pipeline.params import EncodeParams

    params = EncodeParams(layout=layout, device="cpu")  # type: ignore[arg-type]
    point = measure_store(name, "PCA", "", codec, rows, params)
    return name, point.encode_rows_per_s, point.decode_rows_per_s


def _image_formats(pixels: np.ndarray) -> Iterator[tuple[str, float, float]]:
    """A file for each row, at the setting in the middle of those that the benchmark tries in little time."""
    from ae_pipeline.experiments.benchmark.image_formats import FORMATS, decode_image, encode_image

    for form in FORMATS:
        if form.name not in ("WebP", "AVIF") or form.missing():
            continue
        settings = [one for one in form.settings("fast", False) if one.name.startswith("q20")]
        setting = settings[0]
        files, encoding = _timed(lambda: [encode_image(row, form, setting) for row in pixels])  # noqa: B023
        _, decoding = _timed(lambda: [decode_image(file, form, grey=False) for file in files])  # noqa: B023
        yield f"{form.name} {setting.name}, a file a row", len(pixels) / encoding, len(pixels) / decoding


def _sound_formats(frames: np.ndarray) -> Iterator[tuple[str, float, float]]:
    """One file of as many samples as the rows have, by libsndfile; rows of it."""
    import io

    import soundfile

    samples = np.clip(frames.reshape(-1), -1, 1)
    for name, form, subtype in (("FLAC", "FLAC", "PCM_16"), ("Opus", "OGG", "OPUS")):
        if subtype not in soundfile.available_subtypes(form):
            continue

        def encode(form: str = form, subtype: str = subtype) -> bytes:
            file = io.BytesIO()
            with soundfile.SoundFile(file, "w", RATE, 1, subtype, format=form) as opened:
                for start in range(0, len(samples), RATE):  # an encoder of Ogg takes no more at once
                    opened.write(samples[start : start + RATE])
            return file.getvalue()

        data, encoding = _timed(encode)
        _, decoding = _timed(lambda: soundfile.read(io.BytesIO(data), dtype="float32"))  # noqa: B023
        yield name, len(frames) / encoding, len(frames) / decoding


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    from ae_pipeline.experiments.benchmark.points import timed

    return timed(work)
