"""Does peak memory of encode and decode grow with the number of rows?

    python bench/memory.py --codec data/codec --prepared data/prepared --out bench/results/memory.md
    python bench/memory.py --rows 60000 --more-rows 600000     # quicker

Runs `ae-pipeline encode` and `ae-pipeline decode` on both numbers of rows (the train split's shards, hard-linked as
often as it takes), each in a process of its own, and reads that process's peak resident memory from the kernel. Target:
at most 20 % more. Decoding 6 million MNIST rows takes about 2 GB of disk, which is freed again.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

from reporting import report, table, tile

LIMIT = 1.2


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


def tile_elsewhere(split: Path, folder: Path, rows: int) -> None:
    """`tile` in a process of its own, as Arrow would make this one large."""
    child = get_context("spawn").Process(target=tile, args=(split, folder, rows))
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit("the tiled data set could not be made")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--codec", type=Path, default=Path("data/codec"))
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--more-rows", type=int, default=6_000_000)
    parser.add_argument("--layout", choices=("list", "binary", "coded"), default="list")
    parser.add_argument("--work", type=Path, help="where temporary data goes (default: beside --prepared)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    peaks: dict[str, list[float]] = {"encode": [], "decode": []}
    lines = []
    for rows in (args.rows, args.more_rows):
        with tempfile.TemporaryDirectory(dir=args.work or args.prepared.parent, prefix=".bench-") as temporary:
            work = Path(temporary)
            tile_elsewhere(args.prepared / "train", work / "rows", rows)
            data = ["--codec", args.codec, "--layout", args.layout, "--device", "cpu"]
            jobs: dict[str, list[str | Path]] = {
                "encode": ["encode", work / "rows", "--store", work / "store", *data],
                "decode": ["decode", work / "store", "--out", work / "decoded", "--device", "cpu"],
            }
            for name, command in jobs.items():
                mebibytes, seconds = peak(command)
                peaks[name].append(mebibytes)
                growth = mebibytes / peaks[name][0]
                lines.append([name, f"{rows:,}", f"{mebibytes:.0f}", f"{growth:.2f}", f"{seconds:.0f}"])
    worst = max(more / few for few, more in peaks.values())
    verdict = f"Most growth {worst:.2f}, allowed {LIMIT}: {'held' if worst <= LIMIT else 'NOT held'}."
    columns = ["job", "rows", "peak MiB", "against fewest rows", "seconds"]
    report(f"Peak memory, layout {args.layout}", [table(columns, lines)], [verdict], args.out)


if __name__ == "__main__":
    main()
