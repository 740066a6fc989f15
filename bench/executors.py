"""What do the executors cost, in seconds and in CPU seconds of all processes, on one run of a minute or more?

    python bench/executors.py --prepared data/prepared --codec data/codec --rows 3000000 --out executors.md

Encodes `--rows` rows (the train split's shards in turn) by each executor, once on few rows so that its workers have
begun, then on all; of those runs the stores must have the same bytes. CPU seconds are those of this process and of all
below it, such as Ray's own. Targets: `process` with 2 workers at least 1.7 times as fast as one thread, on a machine
that has two cores for it; Ray and Dask at most 1.3 times the CPU seconds of `process`.
"""

import argparse
import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

from reporting import report, table, tile

RUNS = (("threads", 1), ("process", 2), ("dask", 2), ("ray", 2))


def cpu_seconds() -> float:
    """CPU seconds of this process and of all below it that live."""
    import psutil

    total = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def measure(name: str, workers: int, few: Path, many: Path, codec: Path, work: Path) -> tuple[float, float, str]:
    """Seconds, CPU seconds, and a digest of the store without its manifest's time."""
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.params import EncodeParams
    from ae_pipeline.params.operation import ExecuteParams
    from ae_pipeline.store.executors.engines import kept
    from ae_pipeline.store.writing.encoding import encode_samples

    params, execute = EncodeParams(layout="binary", device="cpu"), ExecuteParams(name=name, workers=workers)  # type: ignore[arg-type]
    options: dict[str, Any] = {"name": "bench", "git": {}, "execute": execute}
    with kept(execute):
        encode_samples(SampleSet.open(few), codec, work / f"{name}-few", params, **options)
        samples = SampleSet.open(many)
        _ = samples.digest  # the same work for all
        start, before = time.perf_counter(), cpu_seconds()
        store = encode_samples(samples, codec, work / name, params, **options)
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - before
    digests = [part.sha256 for part in store.manifest.parts]
    return seconds, cpu, hashlib.sha256("".join(digests).encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--codec", type=Path, default=Path("data/codec"))
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--executor", choices=[name for name, _ in RUNS], help="only this one")
    parser.add_argument("--work", type=Path, help="where temporary data goes (default: beside --prepared)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines, digests = [], set()
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=args.work or args.prepared.parent, prefix=".bench-") as temporary:
        work = Path(temporary)
        tile(args.prepared / "train", work / "few", 20_000)
        rows = tile(args.prepared / "train", work / "many", args.rows)
        for name, workers in RUNS:
            if args.executor in (None, name):
                seconds, cpu, digest = measure(name, workers, work / "few", work / "many", args.codec, work)
                digests.add(digest)
                first |= {"seconds": first.get("seconds", seconds)} | ({"cpu": cpu} if name == "process" else {})
                faster = f"{first['seconds'] / seconds:.2f}"
                against = f"{cpu / first['cpu']:.2f}" if "cpu" in first else "-"
                lines.append([name, workers, f"{seconds:.1f}", f"{cpu:.1f}", f"{rows / cpu:,.0f}", faster, against])
    same = "All stores have the same bytes." if len(digests) == 1 else "STORES DIFFER."
    columns = [
        "executor",
        "workers",
        "seconds",
        "CPU s",
        "rows per CPU s",
        "faster than the first",
        "CPU against process",
    ]
    report(f"Executors: {rows:,} rows encoded", [table(columns, lines)], [same], args.out)


if __name__ == "__main__":
    main()
