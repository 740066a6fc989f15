"""Makes the stores in this folder: `python tests/golden/make.py`. Run once per released format version, then committed.

A store that is here already is never made again: that old bytes stay readable is the point. For a new format
version, give the stores new names, and leave the old ones alone.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))

from contexts import SMALL, pictures  # noqa: E402 (found through the line above)
from handmade import encode, random_codec, random_pixels, write_rows  # noqa: E402
from made_tables import fitted, related_columns  # noqa: E402

from ae_pipeline.codec.context.networks import Networks  # noqa: E402
from ae_pipeline.codec.context.options import Options  # noqa: E402
from ae_pipeline.codec.context.saving import save_context_codec  # noqa: E402
from ae_pipeline.codec.tables.saving import save_table_codec  # noqa: E402
from ae_pipeline.data.pixels import SampleSpec  # noqa: E402
from ae_pipeline.data.splits import write_splits  # noqa: E402
from ae_pipeline.data.table_columns.fields import places_of  # noqa: E402
from ae_pipeline.data.table_columns.rows import fields_of  # noqa: E402
from ae_pipeline.models.dense import Options as DenseOptions  # noqa: E402
from ae_pipeline.models.patches import Options as PatchOptions  # noqa: E402
from ae_pipeline.params import EncodeParams, Params, TrainParams  # noqa: E402
from ae_pipeline.params.operation import CompactParams  # noqa: E402
from ae_pipeline.sources import build_source  # noqa: E402
from ae_pipeline.store.care.compaction import compact_store  # noqa: E402
from ae_pipeline.store.care.vacuum import vacuum_store  # noqa: E402
from ae_pipeline.store.format import manifest  # noqa: E402
from ae_pipeline.store.latent_store import LatentStore  # noqa: E402
from ae_pipeline.store.reading.decode import decode_store  # noqa: E402
from ae_pipeline.store.writing.appending import append_samples  # noqa: E402
from ae_pipeline.training.build import build_codec  # noqa: E402
from ae_pipeline.training.context.fit import fit_context  # noqa: E402
from ae_pipeline.training.context.tables.fit import fit_table  # noqa: E402

DENSE, CONV, CODED, INTEGER, PATCHES, BYTES, CONTEXT = (
    f"store-v2{kind}" for kind in ("", "-conv", "-coded", "-integer", "-patches", "-bytes", "-context")
)
JOINED, SEGMENTS = "store-v3-joined", "store-v4"
TABLE = "table/store"
"""In a folder of its own: its rows are floats, and what is expected of them is their latents."""
PARAMS = {
    "source": {"name": "synthetic", "synthetic": {"train_rows": 2000, "test_rows": 40, "height": 6, "width": 6}},
    "prepare": {"rows_per_shard": 20},
    "model": {"name": "dense", "dense": {"hidden_sizes": [8], "activation": "relu"}},
    "train": {"latent_size": 4, "epochs": 30, "batch_size": 64, "learning_rate": 0.01, "device": "cpu"},
}


def make_dense(folder: Path, work: Path) -> None:
    """A trained dense codec: 40 rows of uint8 6x6 in two parts, layout `list`, integer ids, labels."""
    params = Params.model_validate(PARAMS)
    source = build_source(params.source)
    (work / "raw").mkdir()
    source.fetch(work / "raw")
    splits = write_splits(source.read(work / "raw"), work / "prepared", params.prepare)
    git = {"commit": None, "dirty": None}
    build_codec(splits["train"], splits["validation"], params, work / "codec", git, lambda epoch: None)
    _finish(encode(splits["test"], work / "codec", folder / DENSE, row_group_rows=16), folder, work)


def make_conv(folder: Path, work: Path) -> None:
    """An untrained convolutional codec: 12 rows of int16 7x6x2, layout `binary`, string ids, labels with nulls."""
    random_codec(work / "codec", (7, 6, 2), "int16", model_name="conv", latent_size=5, levels=64)
    labels = [None if row % 5 == 0 else f"class {row % 3}" for row in range(12)]
    ids = [f"row {row:02d}" for row in range(12)]
    samples = write_rows(work / "rows.parquet", random_pixels((12, 7, 6, 2), "int16", 7), id=ids, label=labels)
    _finish(encode(samples, work / "codec", folder / CONV, layout="binary"), folder, work)


def make_integer(folder: Path, work: Path) -> None:
    """An untrained dense codec in integers, with another encoder: 12 rows of uint8 6x5, layout `list`."""
    options = DenseOptions(hidden_sizes=[9, 7], encoder_hidden_sizes=[8], activation="relu")
    random_codec(work / "codec", (6, 5), latent_size=5, options=dict(options), integer=True)
    labels = list(range(12))
    samples = write_rows(work / "rows.parquet", random_pixels((12, 6, 5), "uint8", 7), id=labels, label=labels)
    _finish(encode(samples, work / "codec", folder / INTEGER), folder, work)


def make_patches(folder: Path, work: Path) -> None:
    """An untrained codec of patches in integers: 10 rows of uint8 7x6x2, layout `binary`."""
    options = PatchOptions(patch_size=3, encoder_channels=[4], decoder_channels=[5, 3], activation="relu")
    random_codec(work / "codec", (7, 6, 2), model_name="patches", latent_size=5, options=dict(options), integer=True)
    labels = list(range(10))
    samples = write_rows(work / "rows.parquet", random_pixels((10, 7, 6, 2), "uint8", 7), id=labels, label=labels)
    _finish(encode(samples, work / "codec", folder / PATCHES, layout="binary"), folder, work)


def make_coded(folder: Path, work: Path) -> None:
    """An untrained dense codec: 30 rows of uint8 4x3 in two row groups, layout `coded`, integer ids, labels."""
    random_codec(work / "codec", (4, 3), latent_size=6, levels=5)
    pixels = random_pixels((30, 4, 3), "uint8", 3)
    pixels[20:] = pixels[20]  # all dimensions of the second row group are constant
    samples = write_rows(work / "rows.parquet", pixels, id=list(range(30)), label=[row % 3 for row in range(30)])
    _finish(encode(samples, work / "codec", folder / CODED, layout="coded", row_group_rows=20), folder, work)


def make_bytes(folder: Path, work: Path) -> None:
    """An untrained codec of a grid, weights of a byte, four channels: 10 rows of uint8 7x6x3, layout `packed`."""
    random_codec(work / "codec", (7, 6, 3), model_name="grid", latent_size=16, weight_bits=8)
    labels = list(range(10))
    samples = write_rows(work / "rows.parquet", random_pixels((10, 7, 6, 3), "uint8", 7), id=labels, label=labels)
    _finish(encode(samples, work / "codec", folder / BYTES, layout="packed"), folder, work)


def make_context(folder: Path, work: Path) -> None:
    """A trained context codec: 150 rows of uint8 9x8 within 2, in two streams, layout `stream`."""
    options = Options(max_error=2, **SMALL)
    known = np.pad(pictures(600, (9, 8), 1), ((0, 0), (0, 1), (0, 0)))
    train = TrainParams(epochs=8, batch_size=32, learning_rate=0.004, device="cpu")
    networks = Networks(10, 8, options)
    networks.load_state_dict(fit_context(known, known[:50], options, train)[0], assign=True)
    save_context_codec(work / "codec", networks, options, SampleSpec((9, 8), "uint8"), {})
    labels = list(range(150))
    samples = write_rows(work / "rows.parquet", pictures(150, (9, 8), 2), id=labels, label=labels)
    _finish(encode(samples, work / "codec", folder / CONTEXT, layout="stream", row_group_rows=90), folder, work)


def make_table(folder: Path, work: Path) -> None:
    """A trained codec of tables: 90 rows of 5 columns with gaps, numbers within 2% of their range, in two streams."""
    kind, state, records = fitted(related_columns(3000, 3), max_error=0.02)
    rows = np.stack(list(kind.to_rows(records, str, state)))
    fields = fields_of(state.columns)
    places = places_of(rows, fields)
    train = TrainParams(epochs=16, batch_size=128, learning_rate=0.01, device="cpu")
    options, parts, _ = fit_table(places[:2500], places[2500:], fields, train)
    save_table_codec(work / "codec", options, parts, {})
    samples = write_rows(work / "rows.parquet", rows[:90], id=list(range(90)))
    store = encode(samples, work / "codec", folder / TABLE, layout="stream", row_group_rows=60)
    found = [rows for part in store.manifest.parts for rows in store.read_part(part, 1000)]
    latents = [latent for block in found for latent in block.latents.view("<i4").tolist()]
    (folder / "table/expected.json").write_text(json.dumps(latents, separators=(",", ":")) + "\n", encoding="utf-8")


def make_joined(folder: Path, work: Path) -> None:
    """An untrained dense codec in integers: 14 rows of uint8 4x3 in two parts, one of which was joined of three."""
    options = DenseOptions(hidden_sizes=[6], activation="relu")
    random_codec(work / "codec", (4, 3), latent_size=4, options=dict(options), integer=True)
    for number, rows in enumerate((2, 3, 4, 5)):
        ids = [f"{number}-{row}" for row in range(rows)]
        pixels = random_pixels((rows, 4, 3), "uint8", number)
        write_rows(work / f"rows/{number}.parquet", pixels, id=ids, label=[number] * rows)
    encode(work / "rows", work / "codec", folder / JOINED, layout="binary", row_group_rows=4)
    compact_store(folder / JOINED, CompactParams(rows=11), git={})
    vacuum_store(folder / JOINED)
    _finish(LatentStore.open(folder / JOINED), folder, work)


def make_segments(folder: Path, work: Path) -> None:
    """An untrained dense codec in integers: 18 rows of uint8 4x3 in six parts, which two segments list."""
    options = DenseOptions(hidden_sizes=[6], activation="relu")
    random_codec(work / "codec", (4, 3), latent_size=4, options=dict(options), integer=True)
    most, manifest.MOST_LISTED = manifest.MOST_LISTED, 2
    try:
        for number in range(6):
            ids = [100 * number + row for row in range(3)]
            pixels = random_pixels((3, 4, 3), "uint8", number)
            samples = write_rows(work / f"rows/{number}.parquet", pixels, id=ids, label=[number] * 3)
            params = EncodeParams(layout="binary", row_group_rows=4, device="cpu")
            append_samples(folder / SEGMENTS, [samples], work / "codec", params, name="tiny", git={})
    finally:
        manifest.MOST_LISTED = most
    vacuum_store(folder / SEGMENTS)
    _finish(LatentStore.open(folder / SEGMENTS), folder, work)


def _finish(store: LatentStore, folder: Path, work: Path) -> None:
    rows = [rows for part in store.manifest.parts for rows in store.read_part(part, 1000)]
    decoded = decode_store(store, work / "decoded", device="cpu").load()
    expected: dict[str, Any] = {
        "ids": decoded.attributes["id"].to_pylist(),
        "labels": decoded.attributes["label"].to_pylist(),
        "latents": [latent for block in rows for latent in block.latents.tolist()],
        "errors": [error for block in rows for error in block.error.tolist()],
        "pixels": decoded.pixels.reshape(len(decoded.pixels), -1).tolist(),
    }
    lines = ",\n".join(f'"{name}": {json.dumps(values, separators=(",", ":"))}' for name, values in expected.items())
    (folder / f"{store.path.name}.expected.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def make(folder: Path) -> None:
    """All stores, each with its `.expected.json` beside it."""
    makers = (make_dense, make_conv, make_coded, make_integer, make_patches, make_bytes, make_context)
    for make_one in (*makers, make_table, make_joined, make_segments):
        with tempfile.TemporaryDirectory() as work:
            make_one(folder, Path(work))


if __name__ == "__main__":
    make(HERE)
