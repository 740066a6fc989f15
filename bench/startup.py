"""How long does it take until a command does something?

    python bench/startup.py --path data/codec --out bench/results/startup.md

Wall time of `ae-pipeline --help` and `info` (limit 0.5 s) and of importing each stage (limit 3 s: a stage that has
nothing to do but start). Each runs in a process of its own: once to warm the file cache, then `--repeats` times.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from reporting import report, table

from ae_pipeline.cli.stages import STAGES

COMMAND_LIMIT = 0.5
STAGE_LIMIT = 3.0


def seconds(command: list[str], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, default=Path("data/codec"), help="what `info` is asked about")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    jobs = [
        ("python -c pass", ["-c", "pass"], None),
        ("ae-pipeline --help", ["-m", "ae_pipeline", "--help"], COMMAND_LIMIT),
        ("ae-pipeline info", ["-m", "ae_pipeline", "info", str(args.path)], COMMAND_LIMIT),
        *((f"stage {name}", ["-c", f"import ae_pipeline.cli.stages.{name}"], STAGE_LIMIT) for name in STAGES),
    ]
    rows = []
    for name, command, limit in jobs:
        times = seconds(command, args.repeats)
        median = statistics.median(times)
        verdict = ["", ""] if limit is None else [f"{limit:g}", f"{median / limit:.2f}"]
        rows.append([name, f"{median:.2f}", f"{min(times):.2f}", *verdict])
    title = f"Start-up: seconds, median of {args.repeats}"
    report(title, [table(["command", "median", "fastest", "limit", "share of limit"], rows)], [], args.out)


if __name__ == "__main__":
    main()
