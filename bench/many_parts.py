"""What does a store of a hundred thousand parts cost, whatever is in them?

    python bench/many_parts.py --out bench/results/many_parts.md
    python bench/many_parts.py --parts 10000     # quicker

Plans an encode of as many shards, opens a store whose manifest lists as many parts, scans one row of it by its id,
appends one shard to it, and checks its manifests as `verify` does (not the parts' bytes). The parts are made up: each
has its file, which is empty, but for the first. Each step runs `--repeats` times in a process of its own; the median
counts. Limits: 2 s of CPU (other programs may run beside), and 500 MB beyond what the imports take.
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
STEPS = {
    "plan": "plan an encode of as many shards",
    "open": "open the store",
    "scan": "open it, and scan one row by its id",
    "manifests": "check the manifests",
    "append": "append one shard",
}
_ROWS = 64


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
    from ae_pipeline.store.format.manifest import write_manifest
    from ae_pipeline.store.writing.encoding import encode_samples
    from ae_pipeline.training.build import build_codec

    write_rows(work / "first.parquet", 0)
    samples = SampleSet.open(work / "first.parquet")
    train = {"latent_size": 2, "epochs": 1, "device": "cpu", "autocast": False}
    params = Params.model_validate({"train": train, "encode": {"device": "cpu"}})
    build_codec(samples, samples, params, work / "codec", {}, lambda epoch: None)
    store = encode_samples(samples, work / "codec", work / "store", params.encode, name="many", git={})
    (first,) = store.manifest.parts
    entries = [first]
    for number in range(1, parts):
        job = digest("job", number)
        name = f"part-{number:05d}-{job[:16]}.parquet"
        shard = replace(first.shard, file=f"part-{number:05d}.parquet", digest=digest("shard", number))
        pieces = [f"{500 + number % 1000}:{digest('piece', number, place)[:32]}" for place in range(5)]
        entry = replace(first, name=name, job=job, sha256=digest("part", number), shard=shard, pieces=pieces)
        entries.append(replace(entry, id_min=_ROWS * number, id_max=_ROWS * number + _ROWS - 1))
        (work / "store" / name).touch()
    totals = {name: value * parts for name, value in dict(store.manifest.totals).items()}
    manifest = store.manifest.model_copy(
        update={"parts": entries, "totals": store.manifest.totals.model_copy(update=totals)}
    )
    write_manifest(work / "store", manifest)


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
            runs = [json.loads(in_a_process(*common, name)) for _ in range(args.repeats)]
            found = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            held = held and found["cpu"] <= SECONDS and found["beyond"] <= MEGABYTES
            cells = [f"{found['seconds']:.2f}", f"{found['cpu']:.2f}", f"{found['beyond']:.0f}", f"{found['peak']:.0f}"]
            lines.append([what, *cells])
        size = (Path(work) / "store/_manifest.json").stat().st_size
    notes = [
        f"The manifest has {size / 1e6:.0f} MB. The median of {args.repeats} runs counts.",
        f"Limits {SECONDS:g} s of CPU and {MEGABYTES} MB beyond the imports: {'held' if held else 'NOT held'}.",
    ]
    columns = ["step", "seconds", "of these, CPU", "MB beyond the imports", "peak MB"]
    report(f"A store of {args.parts:,} parts", [table(columns, lines)], notes, args.out)
    return None


if __name__ == "__main__":
    main()
