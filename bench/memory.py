"""Does peak memory grow with the number of rows, in this process and in each worker?

    python bench/memory.py --codec data/codec --prepared data/prepared --out bench/results/memory.md
    python bench/memory.py --rows 60000 600000     # quicker
    python bench/memory.py --executor process ray --rows 600000 6000000 60000000 --encode-only

Runs `ae-pipeline encode` and `ae-pipeline decode` on each number of rows (the train split's shards, hard-linked as
often as it takes), and reads from the kernel the peak resident memory of the process that starts the run and of each
of its workers. Target: at most 20 % more than with the fewest rows, and time that grows as the rows do. Decoding 6
million MNIST rows takes about 2 GB of disk, which is freed again; encoding 60 million, 1.2 GB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import psutil
from reporting import report, table, tile

LIMIT = 1.2
EXECUTORS = ("inline", "threads", "process", "ray", "dask")
# A worker is what multiprocessing, Ray or Dask started to run Python of ours; not, say, Ray's own servers.
_WORKERS = ("multiprocessing.spawn", "ray::", "dask")
_LOOK_S = 0.05


def peak(command: list[str | Path], cwd: Path | None = None) -> tuple[float, float]:
    """MiB and seconds of `ae-pipeline <command>`. This process must stay small: a child inherits its peak."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "ae_pipeline", *command], stdout=subprocess.DEVNULL, cwd=cwd)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"ae-pipeline {command[0]} failed with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return usage.ru_maxrss * unit / 2**20, time.perf_counter() - start


def worker_peaks(command: list[str | Path]) -> tuple[float, float, float]:
    """MiB of the process of `ae-pipeline <command>`, MiB of its largest worker (0: there is none), and seconds."""
    found: dict[int, float] = {}
    ended = threading.Event()

    def look() -> None:
        me = psutil.Process()
        while not ended.wait(_LOOK_S):
            for process in me.children(recursive=True):
                try:
                    text = " ".join(process.cmdline())
                    if any(word in text for word in _WORKERS) and "ae_pipeline" not in text:
                        found[process.pid] = max(found.get(process.pid, 0), _high_water(process.pid))
                except (psutil.Error, OSError):
                    continue

    looking = threading.Thread(target=look)
    looking.start()
    try:
        mebibytes, seconds = peak(command)
    finally:
        ended.set()
        looking.join()
    return mebibytes, max(found.values(), default=0.0), seconds


def _high_water(pid: int) -> float:
    """MiB that a process had resident at most until now (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def tile_elsewhere(split: Path, folder: Path, rows: int) -> None:
    """`tile` in a process of its own, as Arrow would make this one large."""
    child = get_context("spawn").Process(target=tile, args=(split, folder, rows))
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit("the tiled data set could not be made")


def measure(executor: str, rows: int, args: argparse.Namespace) -> dict[str, tuple[float, float, float]]:
    """What `worker_peaks` finds, for each command."""
    with tempfile.TemporaryDirectory(dir=args.work or args.prepared.parent, prefix=".bench-") as temporary:
        work = Path(temporary)
        tile_elsewhere(args.prepared / "train", work / "rows", rows)
        how: list[str | Path] = ["--device", "cpu"]
        if executor != "inline":
            how += ["--executor", executor, "--workers", str(args.workers)]
        data: list[str | Path] = ["--codec", args.codec, "--layout", args.layout]
        jobs: dict[str, list[str | Path]] = {
            "encode": ["encode", work / "rows", "--store", work / "store", *data, *how]
        }
        if not args.encode_only:
            jobs["decode"] = ["decode", work / "store", "--out", work / "decoded", *how]
        return {name: worker_peaks(command) for name, command in jobs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--codec", type=Path, default=Path("data/codec"))
    parser.add_argument("--rows", type=int, nargs="+", default=[60_000, 6_000_000], help="rising numbers")
    parser.add_argument("--executor", nargs="+", choices=EXECUTORS, default=["inline"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--encode-only", action="store_true", help="decoded rows take much disk")
    parser.add_argument("--layout", choices=("list", "binary", "coded"), default="binary")
    parser.add_argument("--work", type=Path, help="where temporary data goes (default: beside --prepared)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines, worst = [], 1.0
    for executor in args.executor:
        first: dict[str, tuple[float, float, float]] = {}
        for rows in args.rows:
            for job, (own, worker, seconds) in measure(executor, rows, args).items():
                fewest = first.setdefault(job, (own, worker, seconds))
                growth = max(own / fewest[0], worker / fewest[1] if fewest[1] else 1.0)
                worst = max(worst, growth)
                cells = [f"{own:.0f}", f"{worker:.0f}" if worker else "-", f"{growth:.2f}", f"{seconds:.0f}"]
                lines.append([executor, job, f"{rows:,}", *cells, f"{1e6 * seconds / rows:.1f}"])
                print(*lines[-1], file=sys.stderr, flush=True)
    verdict = f"Most growth {worst:.2f}, allowed {LIMIT}: {'held' if worst <= LIMIT else 'NOT held'}."
    columns = ["executor", "job", "rows", "MiB of the run", "of the largest worker", "against fewest rows"]
    report(
        f"Peak memory, layout {args.layout}, {args.workers} workers where there are some",
        [table([*columns, "seconds", "µs a row"], lines)],
        [verdict],
        args.out,
    )


if __name__ == "__main__":
    main()
