"""What do context codecs take, and how fast are they, beside general compressors that lose nothing?

    python bench/exact.py --codec exact/data/codec near_4/data/codec --out bench/results/exact.md

Each codec encodes the test rows into a store with streams of 1,500 rows (encoding decodes each stream once more, to be
sure) and decodes it, restored, too, where the codec can; CPU seconds of one thread, the less of two runs. Every value
is compared with its original.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reporting  # before torch: it sets GOMP_SPINCOUNT

import numpy as np  # isort: skip

from ae_pipeline.codec.context.options import STREAM_ROWS
from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.experiments.benchmark.lossless import measure_lossless
from ae_pipeline.experiments.benchmark.points import take_rows
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_rows, decode_store
from ae_pipeline.store.writing.encoding import encode_samples
from ae_pipeline.training.batches import fit_scaling

_SETTINGS = EncodeParams(layout="stream", row_group_rows=STREAM_ROWS, device="cpu")
_ALONE = ExecuteParams(workers=1)


def cpu(call: Callable[[int], Any]) -> tuple[Any, float]:
    """What the second of two calls gives, and the fewer CPU seconds."""
    seconds, found = [], None
    for number in range(2):
        start = time.process_time()
        found = call(number)
        seconds.append(time.process_time() - start)
    return found, min(seconds)


def measure(codec: Path, test: Path, work: Path) -> list[str]:
    """A line of the table."""
    samples, header = SampleSet.open(test), read_header(codec)

    def encode(number: int) -> LatentStore:
        target = work / f"store{number}"
        return encode_samples(SampleSet.open(test), codec, target, _SETTINGS, name="bench", git={}, execute=_ALONE)

    store, encoding = cpu(encode)
    decoded, decoding = cpu(lambda number: decode_store(store, work / f"decoded{number}", execute=_ALONE))
    original, back = samples.load(), decoded.load()
    distance = np.abs(original.pixels.astype(int) - back.pixels)
    assert header.max_error is not None
    assert distance.max() <= header.max_error, f"a value of {codec} is {distance.max()} away"
    one = original.attributes["id"][len(original) // 2].as_py()
    start = time.perf_counter()
    (row,) = decode_rows(LatentStore.open(store.path), ids=[one], device="cpu")
    alone = time.perf_counter() - start
    assert (row.pixels[0] == back.pixels[len(original) // 2]).all()
    rows, size = len(original), sum(file.stat().st_size for file in codec.iterdir())
    bits = 8 * store.latent_bytes() / rows
    mse = float(np.square(distance / 255).mean())
    restored = _restored(store, original.pixels, work) if header.restored_max_error else []
    cells = [f"{bits:.0f}", f"{size:,}", f"{bits + 8 * size / 10_000:.0f}", f"{mse:.2e}" if mse else "0"]
    return [
        f"within {header.max_error}" if header.max_error else "every value", *cells,
        *(restored or ["", ""]), f"{rows / encoding:,.0f}", f"{rows / decoding:,.0f}", f"{alone:.2f}",
    ]  # fmt: skip


def _restored(store: LatentStore, original: np.ndarray, work: Path) -> list[str]:
    """MSE of restored values, and the largest error of one."""
    back = decode_store(store, work / "restored", execute=_ALONE, restored=True).load().pixels
    distance = np.abs(original.astype(int) - back)
    promised = store.codec_header().restored_max_error
    assert promised is not None
    assert distance.max() <= promised, f"a restored value of {store.path} is {distance.max()} away"
    return [f"{np.square(distance / 255).mean():.2e}", str(distance.max())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--codec", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    test = args.prepared / "test"
    with tempfile.TemporaryDirectory(dir=args.prepared.parent, prefix=".bench-") as temporary:
        work = Path(temporary)
        lines = []
        for number, codec in enumerate(args.codec):
            (work / str(number)).mkdir()
            lines.append(measure(codec, test, work / str(number)))
        samples = SampleSet.open(test)
        rows = take_rows(samples, samples.rows, fit_scaling(samples), work)
        others = [[point.name, f"{point.bits_per_row:.0f}"] for point in measure_lossless(rows)[0]]
    columns = [
        "promise",
        "bits a row",
        "codec, bytes",
        "with the codec, 10,000 rows",
        "MSE",
        "MSE restored",
        "largest error restored",
    ]
    tables = [
        reporting.table([*columns, "encode, rows/s", "decode, rows/s", "one row, s"], lines),
        reporting.table(["lossless, all rows as one", "bits a row"], others),
    ]
    reporting.report(f"Context codecs: {samples.rows:,} test rows", tables, [], args.out)


if __name__ == "__main__":
    main()
