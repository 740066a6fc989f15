"""Is memory flat in the number and the size of records, and is encoding at least half as fast as this machine allows?

    nice -n 19 python bench/kinds.py --out bench/results/kinds.md        # half an hour
    python bench/kinds.py --kind audio --only memory
    python bench/kinds.py --kind audio --only speed --workspace speech   # its codec and rows: `dvc repro` has run there

For each kind, on made data (kinds_data.py) in a temporary folder:

memory   `ae-pipeline stage download` and `prepare`, then `encode`, `evaluate` and `decode` of the files as they are,
         each in a process of its own, whose peak the kernel tells: for some records and ten times as many, and for one
         record that is small and one that is huge. Targets: at most 20 % more for ten times as many; for a huge record
         at most 20 % and what the table's last column says more.
speed    rows per second of encoding and decoding with the network of the kind's default preset, trained for moments
         only (the arithmetic is the same, but its latents are nearly noise and none is left out: a real codec is
         faster, and --workspace measures one), against the bound of throughput.py. Target: encoding at half of it or
         more. Beside them, in the same process: PCA in a store, and what else the kind is kept in.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from kinds_data import FEW, ONE, PRESETS, RATE, SECONDS, VALUES, elsewhere, make_case, make_codec
from kinds_speed import measure_speed
from memory import LIMIT, peak
from reporting import report, table

HALF = 0.5
SHARED = (
    "Rows of audio are 256 samples. Other programs ran at the same time, and with higher priority: take speeds as "
    "ratios, within a table only."
)
WORDS = {"image": "image, whole pictures", "tiles": "image, tiles", "vector": "vector", "audio": "audio"}
COMMANDS = ("download", "prepare", "encode", "evaluate", "decode")
WHAT = {
    "image": (f"{FEW['image']:,} pictures of 32 x 32, as bytes in Parquet", None),
    "tiles": (f"{FEW['tiles']:,} PNG files of 512 x 384", "a picture of {0:,} x {0:,} in PNG"),
    "vector": (f"{FEW['vector']:,} vectors of {VALUES} floats in Parquet", "a row group of {0:,} vectors"),
    "audio": (f"{FEW['audio']:,} clips of {SECONDS} s, {RATE:,} Hz, WAV", "a clip of {0:,} s"),
}
# What a huge record may take beyond LIMIT, in MiB, by command; why stands in NOTES.
_PIXELS = ONE["tiles"][1] ** 2 / 2**20
ALLOWED = {"tiles": dict.fromkeys(("download", "encode", "evaluate"), 8 * _PIXELS) | {"decode": 5 * _PIXELS}}
NOTES = {
    "tiles": "Tiles: Pillow decodes a picture whole, to 4 bytes a pixel, beside the bytes of its file (up to 3 a pixel "
    "here, and one for what is passing): that is the bound on reading one. A decoded picture is put together in "
    "Pillow's 4 bytes a pixel.",
}


def measure_case(kind: str, case: str, work: Path, codec: Path) -> dict[str, tuple[float, float]]:
    """MiB and seconds of each command, for one data set; makes the kind's codec if it is not there."""
    folder = work / case
    elsewhere(make_case, kind, case, folder)
    mine, store, here = folder / "mine", folder / "store", ["--device", "cpu"]
    layout = "binary" if kind == "image" else "coded"
    commands: dict[str, list[str | Path]] = {
        "download": ["stage", "download"],
        "prepare": ["stage", "prepare"],
        "encode": ["encode", mine, "--codec", codec, "--store", store, "--layout", layout, *here],
        "evaluate": ["evaluate", mine, "--store", store, *here],
        "decode": ["decode", store, "--out", folder / "decoded", *here],
    }
    found = {}
    for name, command in commands.items():
        if name == "encode" and not codec.exists():
            elsewhere(make_codec, kind, folder, codec)
        found[name] = peak(command, folder)
        print(f"{kind}, {case}: {name} {found[name][0]:.0f} MiB, {found[name][1]:.0f} s", file=sys.stderr)
    return found


def measure_memory(kind: str, parent: Path | None) -> list[list[str]]:
    """Lines of the table for a kind."""
    lines = []
    with tempfile.TemporaryDirectory(dir=parent, prefix=".bench-") as temporary:
        codec = Path(temporary, "codec")
        for pair in (("small", "huge"), ("few", "many")) if kind in ONE else (("few", "many"),):
            peaks = []
            for case in pair:
                with tempfile.TemporaryDirectory(dir=temporary) as work:
                    peaks.append(measure_case(kind, case, Path(work), codec))
            one = pair[0] == "small"
            names = [WHAT[kind][1].format(size) for size in ONE[kind]] if one else [WHAT[kind][0], "10 times as many"]
            for command in COMMANDS:
                (less, _), (more, seconds) = peaks[0][command], peaks[1][command]
                allowed = ALLOWED.get(kind, {}).get(command, 0) if one else 0
                fits = more <= LIMIT * less + allowed
                numbers = [f"{less:.0f}", f"{more:.0f}", f"{more / less:.2f}", f"{more - less:.0f}", f"{seconds:.0f}"]
                verdict = ("yes" if fits else "**no**") + (f", with {allowed:.0f} MiB" if allowed else "")
                lines.append([WORDS[kind], f"{names[0]}; {names[1]}", command, *numbers, verdict])
    return lines


def lines_of_speed(
    kind: str, repeats: int, parent: Path | None, workspace: Path | None
) -> tuple[list[list[str]], list[list[str]]]:
    """Lines of the two tables of speeds."""
    with tempfile.TemporaryDirectory(dir=parent, prefix=".bench-") as temporary:
        found = Path(temporary, "found.json")
        elsewhere(measure_speed, kind, repeats, Path(temporary), found, workspace)
        bound, others = json.loads(found.read_text(encoding="utf-8"))
    # A line of throughput.py: name, layout, job, 1000 rows/s, µs per row, four bounds, files, and four shares of them.
    lines = []
    for line in bound:
        job, micros, own, both, files, of_own, of_both = (line[place] for place in (2, 4, 5, 6, 9, 10, 11))
        fast = job == "decode" or float(of_own) >= HALF
        verdict = "" if job == "decode" else "yes" if fast else "**no**"
        speed = f"{1e6 / float(micros):,.0f}"
        network = f"trained, {workspace.name}" if workspace else PRESETS[kind]
        lines.append([WORDS[kind], network, job, speed, micros, own, both, files, of_own, of_both, verdict])
    return lines, [[WORDS[kind], *other] for other in others]


def show(memory: list[list[str]], speeds: list[list[str]], others: list[list[str]], out: Path | None) -> None:
    """Write all that is known so far."""
    tables = []
    if memory:
        columns = ["kind", "records", "command", "MiB, less", "MiB, more", "ratio", "MiB apart", "s, more", "held"]
        tables.append(table(columns, memory))
    if speeds:
        columns = ["kind", "network of preset", "job", "rows/s", "µs a row", "bound: own products", "all products"]
        columns += ["files", "of own", "of all", f"encode at {HALF} of own or more"]
        tables.append(table(columns, speeds))
    if others:
        tables.append(table(["kind", "alternative", "encode, rows/s", "decode, rows/s"], others))
    report("Kinds: memory and speed", tables, [*NOTES.values(), SHARED], out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=tuple(PRESETS), action="append", help="only this one; several times: these")
    parser.add_argument("--only", choices=("memory", "speed"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where temporary data goes (default: the system's temporary folder)")
    parser.add_argument("--workspace", type=Path, help="measure the speed of its codec on its rows; with one --kind")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.workspace and (len(args.kind or ()) != 1 or args.only != "speed"):
        parser.error("--workspace is for --only speed, of one --kind")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    memory: list[list[str]] = []
    speeds: list[list[str]] = []
    others: list[list[str]] = []
    for kind in args.kind or PRESETS:
        if args.only != "speed":
            memory += measure_memory(kind, args.work)
        if args.only != "memory":
            found = lines_of_speed(kind, args.repeats, args.work, args.workspace)
            speeds += found[0]
            others += found[1]
        show(memory, speeds, others, args.out)


if __name__ == "__main__":
    main()
