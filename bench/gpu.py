"""What share of a GPU do encode, decode and training use, and does it give the bytes of the CPU?

    python bench/gpu.py --prepared data/prepared --out bench/results/gpu.md     # under ten minutes on one device
    python bench/gpu.py --rows 60000 --epochs 2                                # without a GPU: all of it, on the CPU

For the GPU, if there is one, and the CPU: a codec in integers and one in floats encode and decode rows (the train
split's shards in turn) through committed stores, once to warm up and `--repeats` times measured; medians. Beside them
what bounds them: the network alone, on rows that lie on the device, and the bus, which carries the samples one way and
latents and errors, or decoded samples, the other (for the CPU: memory). Then epochs of training, in float32 and in
bfloat16, beside three times the products of a pass (forward, and twice as much backward) at the fastest product that
this device reaches on large matrices. A share of 1 would mean that reading, Parquet, checksums, optimiser and the disk
cost nothing.

Last, whether both devices give the same latents: codecs in integers must, and the script ends with 1 if one does not;
of those in floats it says how many latents differ, and how far decoded samples are apart.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import reporting  # before torch: it sets GOMP_SPINCOUNT
import torch

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import one_torch_thread
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.models import build_model
from ae_pipeline.params import EncodeParams, TrainParams
from ae_pipeline.params.options import ModelParams
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store
from ae_pipeline.store.writing.encoding import encode_samples
from ae_pipeline.training.batches import MemoryRows, fit_scaling
from ae_pipeline.training.loop import fit

CODECS = ("784-448-224-32, integers", "784-448-224-32, floats")
_SIDE = 4096  # of the large matrices
_BUS_BYTES = 256 << 20
_COMPARED_ROWS = 20_000


def seconds_of(call: Callable[[], Any], device: torch.device, least: float = 0.5) -> float:
    """Seconds of a call, of many in a row, when the device has finished all of them."""
    call()
    finish(device)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < least or count < 3:
        call()
        count += 1
        finish(device)
    return (time.perf_counter() - start) / count


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bounds(device: torch.device) -> dict[str, float]:
    """Products a second in float32 and bfloat16 (10^12 operations), and bytes a second to and from the device."""
    side = _SIDE if device.type == "cuda" else _SIDE // 4
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        one = torch.randn(side, side, device=device).to(dtype)
        found[name] = 2 * side**3 / seconds_of(lambda: one @ one, device) / 1e12  # noqa: B023
    here = torch.empty(_BUS_BYTES, dtype=torch.uint8, pin_memory=device.type == "cuda")
    there = torch.empty(_BUS_BYTES, dtype=torch.uint8, device=device)
    found["to"] = _BUS_BYTES / seconds_of(lambda: there.copy_(here, non_blocking=True), device)
    found["from"] = _BUS_BYTES / seconds_of(lambda: here.copy_(there, non_blocking=True), device)
    return found


@torch.inference_mode()
def network_seconds(codec: Codec, rows: Any) -> tuple[float, float]:
    """Seconds a row of encoding with its error, and of decoding, of a block that lies on the device already."""
    arithmetic = codec._arithmetic  # without the copies, which no public method leaves out
    block = arithmetic.place(rows[: codec.block_rows])
    q = arithmetic.encode(block)

    def encode() -> None:
        arithmetic.errors(arithmetic.decode(arithmetic.encode(block)), block)

    with one_torch_thread():
        return tuple(  # type: ignore[return-value]
            seconds_of(call, codec.device) / len(block) for call in (encode, lambda: arithmetic.decode(q))
        )


def measure_codec(
    name: str, folder: Path, split: Path, work: Path, device: torch.device, repeats: int, bus: dict[str, float]
) -> list[list[str]]:
    """Two lines of the table: encoding and decoding."""
    samples, times = SampleSet.open(split), {"encode": [], "decode": []}  # type: ignore[var-annotated]
    params = EncodeParams(layout="binary", device=device.type)  # type: ignore[arg-type]
    for number in range(repeats + 1):
        store, out = work / f"store-{device.type}-{number}", work / f"decoded-{device.type}-{number}"
        start = time.perf_counter()
        encode_samples(SampleSet.open(split), folder, store, params, name="bench", git={})
        times["encode"].append(time.perf_counter() - start)
        start = time.perf_counter()
        decode_store(LatentStore.open(store), out, device=device.type)
        times["decode"].append(time.perf_counter() - start)
    codec = Codec.load(folder, device)
    networks = network_seconds(codec, next(iter(samples.all_blocks(codec.block_rows))).pixels)
    carried = (
        samples.spec.nbytes / bus["to"] + (codec.latent_size + 4) / bus["from"],
        codec.latent_size / bus["to"] + samples.spec.nbytes / bus["from"],
    )
    lines = []
    for (job, found), network, bytes_of in zip(times.items(), networks, carried, strict=True):
        seconds = statistics.median(found[1:]) / samples.rows
        cells = [f"{1e6 * value:.3f}" for value in (seconds, network, bytes_of)]
        shares = [f"{value / seconds:.3f}" for value in (network, bytes_of)]
        lines.append([name, device.type, job, f"{1 / seconds:,.0f}", *cells, *shares])
    return lines


def measure_training(split: Path, device: torch.device, epochs: int, peak: dict[str, float]) -> list[list[str]]:
    """A line for each precision: the default network, whose epochs validate on a few rows only."""
    samples = SampleSet.open(split)
    pixels, scaling = samples.load().pixels, fit_scaling(samples)
    lines = []
    for name, autocast in (("float32", False), ("bfloat16", True)):
        params = TrainParams(epochs=epochs + 1, patience=0, device=device.type, autocast=autocast)  # type: ignore[arg-type]
        torch.manual_seed(0)
        model = build_model("dense", samples.spec.shape, params.latent_size, ModelParams().options).to(device)
        weights = sum(value.numel() for value in model.parameters() if value.dim() > 1)
        ends = [time.perf_counter()]
        rows, few = MemoryRows(pixels, device), MemoryRows(pixels[:256].copy(), device)
        fit(model, rows, few, params, scaling, lambda _: ends.append(time.perf_counter()))  # noqa: B023
        seconds = min(end - start for start, end in list(pairwise(ends))[1:]) / samples.rows
        bound = 3 * 2 * weights / (1e12 * peak[name])
        micros = [f"{1e6 * value:.3f}" for value in (seconds, bound)]
        lines.append([name, device.type, f"{1 / seconds:,.0f}", *micros, f"{bound / seconds:.3f}"])
    return lines


def compare(name: str, folder: Path, samples: SampleSet, device: torch.device) -> tuple[list[str], bool]:
    """A line on what the device gives beside the CPU, and whether that is right."""
    pixels = samples.load().pixels[:_COMPARED_ROWS]
    here, there = Codec.load(folder, "cpu"), Codec.load(folder, device)
    one, other = here.encode(pixels), there.encode(pixels)
    decoded = [codec.decode(one).astype(float) for codec in (here, there)]
    different = float((one != other).mean())
    apart = float(abs(decoded[0] - decoded[1]).max())
    equal = different == 0 and apart == 0
    must = here.header.is_integer
    verdict = "the same" if equal else "**DIFFERENT**" if must else "close"
    return [name, f"{len(pixels):,}", f"{different:.2e}", f"{apart:g}", verdict], equal or not must


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="measured ones, of each precision")
    parser.add_argument("--work", type=Path, help="where temporary data goes (default: beside --prepared)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    gpu = torch.cuda.is_available()
    devices = [torch.device(name) for name in (("cuda", "cpu") if gpu else ("cpu",))]
    machine, coding, training, same, right = [], [], [], [], True
    with tempfile.TemporaryDirectory(dir=args.work or args.prepared.parent, prefix=".bench-") as temporary:
        work = Path(temporary)
        rows = reporting.tile(args.prepared / "train", work / "tiled", args.rows)
        found = {device.type: bounds(device) for device in devices}
        for name in CODECS:
            codec = work / name.replace(", ", "-")
            reporting.quick_codec(name, work / "tiled", codec)
            for device in devices:
                with tempfile.TemporaryDirectory(dir=work) as folder:
                    coding += measure_codec(
                        name, codec, work / "tiled", Path(folder), device, args.repeats, found[device.type]
                    )
            line, fits = compare(name, codec, SampleSet.open(args.prepared / "test"), devices[0])
            same.append(line)
            right &= fits
        for device in devices:
            peak = found[device.type]
            training += measure_training(args.prepared / "train", device, args.epochs, peak)
            machine.append(
                [torch.cuda.get_device_name() if device.type == "cuda" else "CPU"]
                + [f"{peak[name]:.2f}" for name in ("float32", "bfloat16")]
                + [f"{peak[way] / 1e9:.1f}" for way in ("to", "from")]
            )
    columns = ["codec", "device", "job", "rows/s", "µs a row", "network alone", "bus", "of the network", "of the bus"]
    tables = [
        reporting.table(["device", "float32, Tflop/s", "bfloat16", "GB/s to it", "from it"], machine),
        reporting.table(columns, coding),
        reporting.table(["training in", "device", "rows/s", "µs a row", "products alone", "share"], training),
        reporting.table(["codec", "rows", "latents that differ", "decoded, at most apart", "beside the CPU"], same),
    ]
    notes = [] if gpu else ["There is no GPU here: both sides of the last table are the CPU."]
    reporting.report(f"GPU: {rows:,} rows, median of {args.repeats}", tables, notes, args.out)
    if not right:
        sys.exit("a codec in integers gave other bytes on the GPU than on the CPU; they must be the same")


if __name__ == "__main__":
    main()
