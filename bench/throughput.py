"""How much of this machine do encode and decode use?

    python bench/throughput.py --prepared data/prepared --rows 300000 --out bench/results/throughput.md

Encodes `--rows` rows (the train split's shards in turn) into a committed store and decodes it again, once to warm up
and `--repeats` times measured; medians. The bound is the larger of two times, both measured here in the same rounds:
the codec's matrix products alone, float32, in blocks of BLOCK_ROWS rows on one thread per core (by MKL or by oneDNN,
whichever is faster), and plain file input and output of the same bytes (read the input files, write and fsync the
output's). Encoding also decodes, for the column `error`: its fraction is given with the encoder's products alone as the
bound, and with both. `torch.mm` takes that for the bound, which is what most people would measure; `bytes` the products
of bytes of a codec in integers, both networks. A fraction of 1 would mean that Parquet, scaling, quantising,
activations, checksums and the disk cost nothing; one in integers may be beyond it. Target: at least 0.7.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine_bound import file_seconds, product_seconds, products
from reporting import NETWORKS, quick_codec, report, table, tile

KINDS = ("float32", "torch.mm", "bytes")


def measure(
    name: str, layout: str, split: Path, work: Path, repeats: int, trained: Path | None = None
) -> list[list[str]]:
    """One row for encoding and one for decoding: of a network's name, or of the `trained` codec in that folder."""
    from ae_pipeline.codec.devices import cpu_count
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.params import EncodeParams
    from ae_pipeline.store.latent_store import LatentStore
    from ae_pipeline.store.reading.decode import decode_store
    from ae_pipeline.store.writing.encoding import encode_samples

    codec, store, out = work / "codec", work / "store", work / "decoded"
    if trained:
        shutil.copytree(trained, codec)
    else:
        quick_codec(name, split, codec)
    threads = {kind: [products(codec, kind) for _ in range(cpu_count())] for kind in KINDS}
    inputs = sorted(split.glob("*.parquet"))
    times: dict[str, list[float]] = {}
    rows = 0

    def clock(what: str, call: Callable[[], Any]) -> None:
        start = time.perf_counter()
        seconds = call()
        times.setdefault(what, []).append(seconds if isinstance(seconds, float) else time.perf_counter() - start)

    for _ in range(repeats + 1):
        for folder in (store, out):
            shutil.rmtree(folder, ignore_errors=True)
        samples = SampleSet.open(split)  # anew: it remembers digests
        rows = samples.rows
        settings = EncodeParams(layout=layout, device="cpu")  # type: ignore[arg-type]
        clock("encode", lambda: encode_samples(samples, codec, store, settings, name="bench", git={}))  # noqa: B023
        clock("decode", lambda: decode_store(LatentStore.open(store), out, device="cpu"))
        parts, decoded = sorted(store.glob("*.parquet")), sorted(out.glob("*.parquet"))
        for kind, calls in threads.items():
            clock(f"{kind} encoder", lambda: product_seconds([encoder for encoder, _ in calls], rows))  # noqa: B023
            clock(f"{kind} decoder", lambda: product_seconds([decoder for _, decoder in calls], rows))  # noqa: B023
        clock("encode files", lambda: file_seconds(inputs, parts, work / "file"))  # noqa: B023
        clock("decode files", lambda: file_seconds(parts, decoded, work / "file"))  # noqa: B023
    for folder in (codec, store, out):
        shutil.rmtree(folder)
    median = {what: statistics.median(values[1:]) for what, values in times.items()}
    lines = []
    for verb, own, parts_of in (("encode", "encoder", ("encoder", "decoder")), ("decode", "decoder", ("decoder",))):
        seconds, files = median[verb], median[f"{verb} files"]
        both = {kind: sum(median[f"{kind} {part}"] for part in parts_of) for kind in KINDS}
        bounds = [median[f"float32 {own}"], *both.values()]
        cells = [f"{max(bound, files) / seconds:.2f}" for bound in bounds]
        times_of = [f"{1e6 * value / rows:.2f}" for value in (seconds, *bounds, files)]
        lines.append([name, layout, verb, f"{rows / seconds / 1e3:.0f}", *times_of, *cells])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codec", choices=sorted(NETWORKS), help="only this one")
    parser.add_argument("--trained", type=Path, help="only this codec's folder, e.g. data/codec")
    parser.add_argument("--layout", choices=("list", "binary", "coded"), help="only this one")
    parser.add_argument("--work", type=Path, help="where temporary data goes (default: beside --prepared)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work or args.prepared.parent, prefix=".bench-") as temporary:
        work = Path(temporary)
        rows = tile(args.prepared / "train", work / "tiled", args.rows)
        lines = []
        for name in [str(args.trained)] if args.trained else [args.codec] if args.codec else NETWORKS:
            for layout in [args.layout] if args.layout else ("list", "binary", "coded"):
                lines += measure(name, layout, work / "tiled", work, args.repeats, args.trained)
    bounds = ["own products, float32", *(f"all products, {kind}" for kind in KINDS)]
    columns = ["codec", "layout", "job", "1000 rows/s", "µs per row", *bounds, "files", *(f"of {it}" for it in bounds)]
    report(
        f"Throughput: {rows:,} rows, median of {args.repeats}",
        [table(columns, lines)],
        ["Products and files in µs per row. Conv: its convolutions stand in for the matrix products, as information."],
        args.out,
    )


if __name__ == "__main__":
    main()
