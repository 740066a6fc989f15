"""How much of this machine do encode and decode use?

    python bench/throughput.py --prepared data/prepared --rows 300000 --out bench/results/throughput.md

Encodes `--rows` rows (the train split's shards in turn) into a committed store and decodes it again, once to warm up
and `--repeats` times measured; medians. The bound is the larger of two times, both measured here in the same rounds:
the codec's matrix products alone, float32, in blocks of BLOCK_ROWS rows on one thread per core (by MKL or by oneDNN,
whichever is faster), and plain file input and output
of the same bytes (read the input files, write and fsync the output's). Encoding also decodes, for the column `error`:
its fraction is given with the encoder's products alone as the bound, and with both. A fraction of 1 would mean that
Parquet, scaling, quantising, activations, checksums and the disk cost nothing. Target: at least 0.5.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reporting import NETWORKS, quick_codec, report, table, tile

SECONDS = 1.5  # to measure the products of one network for


def products(codec_folder: Path) -> tuple[list[Callable[[], Any]], list[Callable[[], Any]]]:
    """The encoder's and the decoder's products, each a call with tensors of its own, as one thread needs them."""
    import torch
    from torch import nn
    from torch.nn import functional

    from ae_pipeline.codec import BLOCK_ROWS, Codec
    from ae_pipeline.devices import one_torch_thread

    codec = Codec.load(codec_folder)
    model: Any = codec._model
    calls: list[Callable[[], Any]] = []

    def note(module: Any, inputs: tuple[Any, ...]) -> None:
        x, weight = inputs[0].clone(), module.weight
        if isinstance(module, nn.Linear):
            out = torch.empty(len(x), len(weight))
            candidates = [lambda: torch.mm(x, weight.t(), out=out)]
            if torch.backends.mkldnn.is_available():  # on AMD twice as fast as MKL, which torch.mm calls
                candidates.append(lambda: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], ""))
            calls.append(min(candidates, key=lambda call: min(timeit.repeat(call, number=20))))
        elif isinstance(module, nn.Conv2d):
            calls.append(lambda: functional.conv2d(x, weight, None, module.stride, module.padding))
        else:
            shape = (module.stride, module.padding, module.output_padding)
            calls.append(lambda: functional.conv_transpose2d(x, weight, None, *shape))

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    hooks = [module.register_forward_pre_hook(note) for module in model.modules() if isinstance(module, kinds)]
    with one_torch_thread(), torch.inference_mode():
        z = model.encode(torch.rand(BLOCK_ROWS, *codec.spec.shape))
        count = len(calls)
        model.decode(z)
    for hook in hooks:
        hook.remove()
    return calls[:count], calls[count:]


def product_seconds(threads: list[list[Callable[[], Any]]], rows: int) -> float:
    """Seconds for the products of `rows` rows, all cores at work; one list of calls for each core."""
    import torch

    from ae_pipeline.codec import BLOCK_ROWS
    from ae_pipeline.devices import one_torch_thread

    def work(calls: list[Callable[[], Any]]) -> float:
        blocks, start = 0, time.perf_counter()
        with torch.inference_mode():
            while time.perf_counter() - start < SECONDS:
                for call in calls:
                    call()
                blocks += 1
        return blocks / (time.perf_counter() - start)

    with one_torch_thread(), ThreadPoolExecutor(len(threads)) as pool:
        return rows / BLOCK_ROWS / sum(pool.map(work, threads))


def file_seconds(source: list[Path], written: list[Path], target: Path) -> float:
    """Seconds to read the source files and to write and fsync the bytes of the written ones."""
    contents = [file.read_bytes() for file in written]
    start = time.perf_counter()
    for file in source:
        file.read_bytes()
    for content in contents:
        with target.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    target.unlink()
    return seconds


def measure(name: str, layout: str, split: Path, work: Path, repeats: int) -> list[list[str]]:
    """One row for encoding and one for decoding."""
    from ae_pipeline.decoding import decode_store
    from ae_pipeline.devices import cpu_count
    from ae_pipeline.encoding import encode_samples
    from ae_pipeline.latent_store import LatentStore
    from ae_pipeline.params import EncodeParams
    from ae_pipeline.samples import SampleSet

    codec, store, out = work / "codec", work / "store", work / "decoded"
    quick_codec(name, split, codec)
    threads = [products(codec) for _ in range(cpu_count())]
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
        clock("encoder", lambda: product_seconds([encoder for encoder, _ in threads], rows))  # noqa: B023
        clock("decoder", lambda: product_seconds([decoder for _, decoder in threads], rows))  # noqa: B023
        clock("encode files", lambda: file_seconds(inputs, parts, work / "file"))  # noqa: B023
        clock("decode files", lambda: file_seconds(parts, decoded, work / "file"))  # noqa: B023
    for folder in (codec, store, out):
        shutil.rmtree(folder)
    median = {what: statistics.median(values[1:]) for what, values in times.items()}
    lines = []
    for verb, own, both in (("encode", "encoder", median["encoder"] + median["decoder"]), ("decode", "decoder", None)):
        seconds, files = median[verb], median[f"{verb} files"]
        fractions = [max(median[own], files) / seconds, max(both, files) / seconds if both else None]
        cells = [f"{value:.2f}" if value else "" for value in fractions]
        speed = f"{rows / seconds / 1e3:.0f}"
        bounds = [f"{1e6 * value / rows:.2f}" for value in (seconds, median[own], both or median[own], files)]
        lines.append([name, layout, verb, speed, *bounds, *cells])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codec", choices=sorted(NETWORKS), help="only this one")
    parser.add_argument("--layout", choices=("list", "binary"), help="only this one")
    parser.add_argument("--work", type=Path, help="where temporary data goes (default: beside --prepared)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work or args.prepared.parent, prefix=".bench-") as temporary:
        work = Path(temporary)
        rows = tile(args.prepared / "train", work / "tiled", args.rows)
        lines = []
        for name in [args.codec] if args.codec else NETWORKS:
            for layout in [args.layout] if args.layout else ("list", "binary"):
                lines += measure(name, layout, work / "tiled", work, args.repeats)
    columns = ["codec", "layout", "job", "1000 rows/s", "µs per row", "own products", "all products", "files"]
    report(
        f"Throughput: {rows:,} rows, median of {args.repeats}",
        [table([*columns, "of bound", "of bound with error column"], lines)],
        ["Products and files in µs per row. Conv: its convolutions stand in for the matrix products, as information."],
        args.out,
    )


if __name__ == "__main__":
    main()
