"""Is encoding into a store slower than scikit-learn's PCA.transform written to the same Parquet?

    python bench/encoding_pca.py --prepared data/prepared --rows 600000 --out bench/results/encoding_pca.md

Both read the same files and write the same columns (id, label, latents, zstd) in row groups of 10,000. PCA is what one
would write with scikit-learn: rows to float32, PCA.transform with all threads, latents as float32 lists; `quantised`
rounds them to 256 levels and writes int8 in the layout that ours has (`--layout`); `and error` also takes
inverse_transform and each row's error, which a store has. Ours does all of that, with digests, and commits. Medians
of rounds over all programs; `times faster` is PCA's time over ours.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import reporting  # before torch: it sets GOMP_SPINCOUNT
from sklearn.decomposition import PCA

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import BenchParams
from ae_pipeline.store.format.layouts import LAYOUTS
from ae_pipeline.store.writing.encoding import encode_samples

NETWORKS = [
    "784-128-784, integers",
    "784-128-784, floats",
    "784-448-224-32, integers",
    "784-448-224-32, floats",
    *BenchParams().presets,
]
KINDS = ("float32", "quantised", "quantised, and error")
ROWS = 10_000
# What the program before has written is on the disk, and its idle threads no longer spin on the cores.
_REST = 0.5


def as_list(values: np.ndarray) -> pa.Array:
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, values.ravel())


def pca_encode(pca: PCA, files: list[Path], out: Path, kind: str, step: np.ndarray, layout: str) -> None:
    """What a careful user writes in an afternoon."""
    writer = None
    for file in files:
        table = pq.read_table(file)
        pixels = np.frombuffer(table.column("pixels").combine_chunks().buffers()[1], np.uint8)
        x = pixels.reshape(len(table), -1).astype(np.float32) / np.float32(255)
        z = pca.transform(x)
        columns: dict[str, Any] = {name: table.column(name) for name in table.column_names if name != "pixels"}
        if kind == "float32":
            columns["latent"] = as_list(z)
        else:
            q = np.clip(np.rint(z / step), -128, 127).astype(np.int8)
            columns["latent"] = LAYOUTS[layout].to_arrow(q)
            if kind == KINDS[2]:
                decoded = pca.inverse_transform(q * step)
                columns["error"] = np.square(decoded - x).mean(1)
        made = pa.table(columns)
        if writer is None:
            writer = pq.ParquetWriter(out, made.schema, compression="zstd", compression_level=1)
        writer.write_table(made, ROWS)
    assert writer is not None
    writer.close()


def measure(name: str, layout: str, split: Path, tiled: Path, work: Path, repeats: int) -> list[Any]:
    reporting.quick_codec(name, split, work / "codec")
    samples = SampleSet.open(split)
    latent_size = reporting.network(name)[1]
    few = samples.load().pixels[:10_000].reshape(10_000, -1).astype(np.float32) / np.float32(255)
    pca = PCA(latent_size, svd_solver="covariance_eigh").fit(few)
    step = (np.abs(pca.transform(few)).max(0) / 127).astype(np.float32)
    files = sorted(tiled.glob("*.parquet"))
    rows = SampleSet.open(tiled).rows
    settings = EncodeParams(device="cpu", layout=layout)  # type: ignore[arg-type]

    def ours() -> None:
        encode_samples(SampleSet.open(tiled), work / "codec", work / "store", settings, name="bench", git={})

    jobs: dict[str, Callable[[], None]] = {"ours": ours}
    for kind in KINDS:
        jobs[kind] = lambda kind=kind: pca_encode(pca, files, work / "pca.parquet", kind, step, layout)  # type: ignore[misc]
    times: dict[str, list[float]] = {job: [] for job in jobs}
    for _ in range(repeats + 1):
        for job, call in jobs.items():
            shutil.rmtree(work / "store", ignore_errors=True)
            (work / "pca.parquet").unlink(missing_ok=True)
            os.sync()
            time.sleep(_REST)
            start = time.perf_counter()
            call()
            times[job].append(time.perf_counter() - start)
    median = {job: 1e6 * statistics.median(values[1:]) / rows for job, values in times.items()}
    shutil.rmtree(work / "codec")
    ratios = [f"{median[kind] / median['ours']:.2f}" for kind in KINDS]
    return [name, latent_size, *(f"{value:.2f}" for value in median.values()), *ratios]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="binary")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codec", nargs="*", default=NETWORKS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.prepared.parent, prefix=".bench-") as temporary:
        work = Path(temporary)
        rows = reporting.tile(args.prepared / "train", work / "tiled", args.rows)
        split = args.prepared / "train"
        lines = [measure(name, args.layout, split, work / "tiled", work, args.repeats) for name in args.codec]
    columns = ["network", "L", "ours, µs per row", *(f"PCA, {kind}" for kind in KINDS)]
    columns += [f"times faster than PCA, {kind}" for kind in KINDS]
    title = f"Encoding against PCA.transform: {rows:,} rows, layout {args.layout}, median of {args.repeats}"
    reporting.report(title, [reporting.table(columns, lines)], [], args.out)


if __name__ == "__main__":
    main()
