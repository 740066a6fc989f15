"""Where does the time go in training, encoding and decoding?

    python bench/profiling.py --prepared data/prepared --out bench/results/profile.md

Training: params.yaml's network, or that of a preset, for `--epochs` epochs by fit(), in float32 and in bfloat16, under
torch's profiler: time within operators, on the calling thread, by kind; the rest is Python and waiting. Encoding and
decoding: the work of one of the pipeline's threads (there is one for each core) on `--parts` shards, under cProfile:
every function's own time, by kind. cProfile itself costs up to a tenth, in Python. µs per row, and share of all.
"""

import argparse
import cProfile
import pstats
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import reporting  # before torch: it sets GOMP_SPINCOUNT
import torch
from torch.profiler import ProfilerActivity, profile

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import one_torch_thread
from ae_pipeline.data.samples import SampleSet, ShardWriter
from ae_pipeline.experiments.presets import preset_names, preset_params
from ae_pipeline.models import build_model
from ae_pipeline.params import EncodeParams, Params
from ae_pipeline.store.executors.lent import lent
from ae_pipeline.store.reading.decode import _decode_part
from ae_pipeline.store.writing.encoding import encode_samples
from ae_pipeline.store.writing.shards import encode_shard, plan_jobs
from ae_pipeline.training.batches import MemoryRows, fit_scaling
from ae_pipeline.training.loop import fit

# The first pattern that is found in a function's name decides.
OPERATORS = {
    "matrix products, convolutions": r"mm$|linear|convolution|mkldnn",
    "optimizer": r"_fused_adam|adadelta",
    "gathering rows": r"index_select|aten::index|aten::gather|take",
    "element-wise, reductions, copies": r"^aten::|^_|Backward",
}
FUNCTIONS = {
    "matrix products, convolutions": r"qlinear_pointwise|_linear_pointwise|linear|conv2d|conv_transpose2d",
    "element-wise (network)": r"sigmoid|silu|relu|gelu|tanh",
    "element-wise (scaling, rounding, quantising, error)": r"TensorBase|torch|quantiser\.py|numpy",
    "reading Parquet": r"read_tables|iter_batches|read_row_group|ParquetReader|read_part",
    "writing Parquet": r"write_table|write_batch|ParquetWriter",
    "digests": r"hash",
    "files": r"posix\.|io\.|\.read'|\.write'",
}
REST = "Python, Arrow's tables"


def grouped(seconds: dict[str, float], kinds: dict[str, str], rows: int, rest: float = 0.0) -> dict[str, float]:
    """µs per row of each kind, the most first."""
    found = dict.fromkeys([*kinds, REST], 0.0)
    for name, spent in seconds.items():
        kind = next((kind for kind, pattern in kinds.items() if re.search(pattern, name)), REST)
        found[kind] += spent
    found[REST] += rest
    return {kind: 1e6 * spent / rows for kind, spent in sorted(found.items(), key=lambda item: -item[1]) if spent}


def profile_training(
    params: Params, samples: SampleSet, pixels: Any, *, autocast: bool, epochs: int
) -> dict[str, float]:
    changed = {"epochs": epochs, "patience": 0, "device": "cpu", "autocast": autocast}
    options = params.train.model_copy(update=changed)
    torch.manual_seed(0)
    model = build_model(params.model.name, samples.spec.shape, options.latent_size, params.model.options)
    cpu = torch.device("cpu")
    rows, few = MemoryRows(pixels, cpu), MemoryRows(pixels[:256].copy(), cpu)
    marks = [time.perf_counter()]
    with profile(activities=[ProfilerActivity.CPU]) as found:
        fit(model, rows, few, options, fit_scaling(samples), lambda _: marks.append(time.perf_counter()))
    operators = {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}
    rest = marks[-1] - marks[0] - sum(operators.values())
    return grouped(operators, OPERATORS, epochs * rows.rows, max(0.0, rest))


def own_times(call: Callable[[], Any]) -> dict[str, float]:
    """Seconds of every function's own, by file and name."""
    profiler = cProfile.Profile()
    with one_torch_thread():
        profiler.runcall(call)
    stats: Any = pstats.Stats(profiler)
    found: dict[str, float] = {}
    for (file, _, name), (_, _, own, _, _) in stats.stats.items():
        place = f"{'/'.join(Path(file).parts[-2:])}:{name}"
        found[place] = found.get(place, 0.0) + own
    return found


def profile_encoding(codec_path: Path, files: Path, work: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Times of encoding and of decoding; the first shard is warm-up."""
    codec, samples, settings = Codec.load(codec_path), SampleSet.open(files), EncodeParams(device="cpu")
    jobs = plan_jobs([(samples, shard) for shard in samples.shards], codec.fingerprint, settings)
    rows = sum(job.shard.rows for job in jobs[1:])
    (work / "parts").mkdir()
    with one_torch_thread():
        encode_shard(jobs[0], codec, work / "parts")
    encoding = own_times(lambda: [encode_shard(job, codec, work / "parts") for job in jobs[1:]])
    store = encode_samples(samples, codec_path, work / "store", settings, name="bench", git={})
    (work / "decoded").mkdir()

    open_file = partial(ShardWriter, attributes=store.attributes_schema(), spec=codec.spec)

    def decode(numbers: range) -> None:
        for number in numbers:
            _decode_part(store, open_file, borrowed, work / "decoded", (number, store.manifest.parts[number]))

    with one_torch_thread(), lent(codec) as borrowed:
        decode(range(1))
        decoding = own_times(lambda: decode(range(1, len(jobs))))
    return grouped(encoding, FUNCTIONS, rows), grouped(decoding, FUNCTIONS, rows)


def as_table(kind: str, found: dict[str, dict[str, float]]) -> str:
    """One column for each profile."""
    totals = {name: sum(times.values()) for name, times in found.items()}
    rows = sorted(
        {row for times in found.values() for row in times}, key=lambda row: -max(t.get(row, 0) for t in found.values())
    )
    lines = [
        [row, *(f"{times.get(row, 0):.2f} ({times.get(row, 0) / totals[name]:.0%})" for name, times in found.items())]
        for row in rows
    ]
    lines.append(["all", *(f"{total:.2f}" for total in totals.values())])
    return f"### {kind}, µs per row\n\n{reporting.table(['', *found], lines)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--rows", type=int, default=20_000, help="to train on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--parts", type=int, default=6, help="to encode and decode")
    parser.add_argument("--presets", nargs="*", default=["small", "compact"], choices=preset_names())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    split = args.prepared / "train"
    samples = SampleSet.open(split)
    pixels = samples.load().pixels[: args.rows].copy()
    jobs = {"params.yaml's default": Params(), **{name: preset_params(name) for name in args.presets}}
    # What is loaded once is no part of a training.
    for params in jobs.values():
        for autocast in (False, True):
            profile_training(params, samples, pixels[:2000].copy(), autocast=autocast, epochs=8)
    training = {
        f"{name}, {'bfloat16' if autocast else 'float32'}": profile_training(
            params, samples, pixels, autocast=autocast, epochs=args.epochs
        )
        for name, params in jobs.items()
        for autocast in (False, True)
    }
    encoding, decoding = {}, {}
    for name in [*reporting.NETWORKS, *args.presets]:
        with tempfile.TemporaryDirectory(dir=args.prepared.parent, prefix=".bench-") as temporary:
            work = Path(temporary)
            size = len(samples.shards) and samples.shards[0].rows
            reporting.tile(split, work / "tiled", size * args.parts)
            reporting.quick_codec(name, split, work / "codec")
            encoding[name], decoding[name] = profile_encoding(work / "codec", work / "tiled", work)
            shutil.rmtree(work / "tiled")
    threads = torch.get_num_threads()
    tables = [
        as_table(f"Training, {threads} threads", training),
        as_table("Encoding, one thread", encoding),
        as_table("Decoding, one thread", decoding),
    ]
    notes = ["What each line holds: the patterns at the top of bench/profiling.py."]
    reporting.report("Profile of the pipeline", tables, notes, args.out)


if __name__ == "__main__":
    main()
