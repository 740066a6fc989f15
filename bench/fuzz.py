"""Does a store that somebody has tampered with do any harm to who reads it?

    python bench/fuzz.py --inputs 20000 --seed 1 --out bench/results/fuzz.md

Mutates manifests, codecs, weights, Parquet footers and pages of small stores (tests/support/fuzzing.py), most of them
with all digests put right again, and reads each by every way there is, in processes of their own. Target: every input
is read, or refused with an error of ours; no crash, no hang (60 s), at most 2 GiB more memory, no file outside the
store opened.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reporting import report, table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from fuzzing import make_stores, run_inputs

GOOD = ("read", "refused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_stores(folder)
        share = -(-args.inputs // args.processes)
        with ThreadPoolExecutor(args.processes) as pool:
            work = [
                pool.submit(
                    lambda number: list(
                        run_inputs(folder / "stores", folder / f"{number}", args.seed, number * share, share)
                    ),
                    n,
                )
                for n in range(args.processes)
            ]
            results = [result for part in work for result in part.result()]
    outcomes: dict[str, Counter] = defaultdict(Counter)
    for result in results:
        outcomes[result["kind"]][result["outcome"]] += 1
    bad = [result for result in results if result["outcome"] not in GOOD]
    for result in bad[:40]:
        print(result, file=sys.stderr)
    lines = [
        [
            kind,
            sum(found.values()),
            found["read"],
            found["refused"],
            sum(found.values()) - found["read"] - found["refused"],
        ]
        for kind, found in sorted(outcomes.items())
    ]
    lines.append(["all", *(sum(line[column] for line in lines) for column in range(1, 5))])
    slowest = max(result.get("seconds", 0) for result in results)
    grown = max(result.get("grown", 0) for result in results)
    notes = [
        f"Seed {args.seed}. Slowest input {slowest:.1f} s; most memory over a reader's of sound stores "
        f"{grown / 2**20:.0f} MiB. Findings: {len(bad)}: {'held' if not bad else 'NOT held'}."
    ]
    columns = ["what was changed", "inputs", "read", "refused by an error of ours", "anything else"]
    report("Tampered stores", [table(columns, lines)], notes, args.out)


if __name__ == "__main__":
    main()
