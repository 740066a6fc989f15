"""What does a store of a hundred thousand parts, or of a million, cost, whatever is in them?

    python bench/many_parts.py --out bench/results/many_parts.md
    python bench/many_parts.py --parts 1000000
    python bench/many_parts.py --parts 10000     # quicker

Plans an encode of as many shards, opens a store whose manifest lists as many parts, scans one row of it by its id,
appends one shard to it, and checks its manifests as `verify` does (not the parts' bytes). The parts are made up: each
has its file, which is empty, but for the first. Each step runs `--repeats` times in a process of its own; the median
counts. Limits: 2 s of CPU (other programs may run beside), and 500 MB beyond what the imports take; of a million parts,
3 s and 700 MB to open it, scan it and append.
"""

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from reporting import report, table

SECONDS, MEGABYTES = 2.0, 500
MANY, MANY_SECONDS, MANY_MEGABYTES = 1_000_000, 3.0, 700
STEPS = {
    "plan": "plan an encode of as many shards",
    "open": "open the store",
    "scan": "open it, and scan one row by its id",
    "manifests": "check the manifests",
    "append": "append one shard",
}
_ROWS = 64
_AT_A_TIME = 50_000


def digest(*of: Any) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()


def write_rows(path: Path, seed: int) -> None:
    """One shard of random uint8 rows, 5x4."""
    import numpy as np
    import pyarrow as pa

    from ae_pipeline.data.pixels import SampleSpec
    from ae_pipeline.data.samples import ShardWriter

    pixels = np.random.default_rng(seed).integers(0, 255, (_ROWS, 5, 4), np.uint8)
    ids = pa.table({"id": np.arange(_ROWS) + _ROWS * seed})
    with ShardWriter(path, ids.schema, SampleSpec((5, 4), "uint8")) as writer:
        writer.write(ids, pixels)


def prepare(work: Path, parts: int) -> None:
    """Data, a codec, and a store whose manifest says that it has so many parts."""
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.params import Params
    from ae_pipeline.store.format.manifest import settled, write_manifest
    from ae_pipeline.store.format.segments import SegmentedParts
    from ae_pipeline.store.writing.encoding import encode_samples
    from ae_pipeline.training.build import build_codec

    write_rows(work / "first.parquet", 0)
    samples = SampleSet.open(work / "first.parquet")
    train = {"latent_size": 2, "epochs": 1, "device": "cpu", "autocast": False}
    params = Params.model_validate({"train": train, "encode": {"device": "cpu"}})
    build_codec(samples, samples, params, work / "codec", {}, lambda epoch: None)
    store = encode_samples(samples, work / "codec", work / "store", params.encode, name="many", git={})
    (first,) = store.manifest.parts
    totals = {name: value * parts for name, value in dict(store.manifest.totals).items()}
    update = {"totals": store.manifest.totals.model_copy(update=totals), "parts": SegmentedParts(store.storage, [])}
    manifest = store.manifest.model_copy(update=update)
    for start in range(0, parts, _AT_A_TIME):  # as many appends
        entries = [entry_like(first, number) for number in range(start, min(start + _AT_A_TIME, parts))]
        for entry in entries[start == 0 :]:
            (work / "store" / entry.name).touch()
        manifest = manifest.model_copy(update={"parts": manifest.parts.with_added(entries)})
        manifest, _ = settled(manifest, store.storage, work / "store")
    write_manifest(work / "store", manifest)


def entry_like(first: Any, number: int) -> Any:
    """The entry of a part that nobody made; of number 0, the one that there is."""
    if number == 0:
        return first
    job = digest("job", number)
    shard = replace(first.shard, file=f"part-{number:05d}.parquet", digest=digest("shard", number))
    pieces = [f"{500 + number % 1000}:{digest('piece', number, place)[:32]}" for place in range(5)]
    name, ids = (
        f"part-{number:05d}-{job[:16]}.parquet",
        {"id_min": _ROWS * number, "id_max": _ROWS * number + _ROWS - 1},
    )
    return replace(first, name=name, job=job, sha256=digest("part", number), shard=shard, pieces=pieces, **ids)


def plan(work: Path, parts: int) -> Any:
    from ae_pipeline.data.samples import SampleSet, Shard
    from ae_pipeline.params import EncodeParams
    from ae_pipeline.store.writing.shards import plan_jobs

    one = SampleSet.open(work / "first.parquet")
    files = tuple(work / f"part-{number:05d}.parquet" for number in range(parts))
    shards = tuple(Shard(file, (0,), _ROWS, _ROWS * number) for number, file in enumerate(files))
    samples = SampleSet(files, one.attributes_schema, one.spec, shards)
    samples._digests = {file: digest("file", file.name) for file in files}  # else all files would have to be there

    def step() -> None:
        jobs = plan_jobs(((samples, shard) for shard in shards), digest("codec"), EncodeParams())
        assert len({job.part_name for job in jobs}) == parts
        assert samples.digest
        assert samples.rows == _ROWS * parts

    return step


def open_store(work: Path, parts: int) -> Any:  # noqa: ARG001
    from ae_pipeline.store.latent_store import LatentStore

    return lambda: LatentStore.open(work / "store")


def scan(work: Path, parts: int) -> Any:  # noqa: ARG001
    from ae_pipeline.store.latent_store import LatentStore
    from ae_pipeline.store.reading import scan, where  # noqa: F401 (they are imported where they are used)

    def step() -> None:
        (table,) = LatentStore.open(work / "store").scan(ids=[_ROWS // 2])
        assert table.num_rows == 1

    return step


def append(work: Path, parts: int) -> Any:  # noqa: ARG001
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.params import EncodeParams
    from ae_pipeline.store.writing.appending import append_samples

    number = time.time_ns() % 10**9
    write_rows(work / f"new-{number}.parquet", number)
    samples = SampleSet.open(work / f"new-{number}.parquet")
    return lambda: append_samples(
        work / "store", [samples], work / "codec", EncodeParams(device="cpu"), name="more", git={}
    )


def manifests(work: Path, parts: int) -> Any:  # noqa: ARG001
    from ae_pipeline.store.care.snapshots import read_snapshots
    from ae_pipeline.store.storage.folder import LocalStorage

    def step() -> None:
        assert not read_snapshots(LocalStorage(work / "store"), None).damaged

    return step


def peak() -> float:
    """MB of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def run_step(name: str, work: Path, parts: int) -> None:
    steps = {"plan": plan, "open": open_store, "scan": scan, "append": append, "manifests": manifests}
    step = steps[name](work, parts)
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    step()
    seconds = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    print(json.dumps({**seconds, "beyond": peak() - before, "peak": peak()}))


def limits_of(step: str, parts: int) -> tuple[float, int] | None:
    """Seconds of CPU and MB that a step may take; None: it is only measured."""
    if parts < MANY:
        return SECONDS, MEGABYTES
    return (MANY_SECONDS, MANY_MEGABYTES) if step in ("open", "scan", "append") else None


def in_a_process(*arguments: str) -> str:
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where temporary data goes (default: the system's place)")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        return prepare(args.work, args.parts) if args.step == "prepare" else run_step(args.step, args.work, args.parts)
    lines, held = [], True
    with tempfile.TemporaryDirectory(dir=args.work, prefix="bench-many-parts-") as work:
        common = ["--work", work, "--parts", str(args.parts), "--step"]
        in_a_process(*common, "prepare")
        for name, what in STEPS.items():
            limits = limits_of(name, args.parts)
            runs = [json.loads(in_a_process(*common, name)) for _ in range(args.repeats)]
            found = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            held = held and (limits is None or (found["cpu"] <= limits[0] and found["beyond"] <= limits[1]))
            cells = [f"{found['seconds']:.2f}", f"{found['cpu']:.2f}", f"{found['beyond']:.0f}", f"{found['peak']:.0f}"]
            lines.append([what, *cells])
        size = (Path(work) / "store/_manifest.json").stat().st_size
        segments = [path.stat().st_size for path in Path(work, "store/_segments").glob("*")]
    told = f"{MANY_SECONDS:g} s of CPU and {MANY_MEGABYTES} MB" if args.parts >= MANY else ""
    notes = [
        f"The manifest has {size / 1e6:.2f} MB, and {len(segments)} segments have {sum(segments) / 1e6:.0f} MB. "
        f"The median of {args.repeats} runs counts.",
        f"Limits {told or f'{SECONDS:g} s of CPU and {MEGABYTES} MB'} beyond the imports, for "
        f"{'opening, scanning and appending' if told else 'each step'}: {'held' if held else 'NOT held'}.",
    ]
    columns = ["step", "seconds", "of these, CPU", "MB beyond the imports", "peak MB"]
    report(f"A store of {args.parts:,} parts", [table(columns, lines)], notes, args.out)
    return None


if __name__ == "__main__":
    main()
