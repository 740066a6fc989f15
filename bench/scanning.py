"""What do chosen rows of a store cost, beside DuckDB and pyarrow.dataset on the same files?

    python bench/scanning.py --out bench/results/scanning.md

Makes a store of `--rows` rows (8 x 8 pixels, 32 latents, sorted by label, 10,000 rows per row group), and asks all of
them the same questions in turn, `--repeats` times; the best times, and `store.scan`'s divided by the others'. Every
question opens the data anew: the store reads its manifest, the others open the list of files. Each answer is read to
its end and counted, and the three counts must agree. Unlike the others `store.scan` checks a digest of what it reads.
The last column is how much of the parts it reads.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from reporting import quick_codec, report, table

PER_SHARD = 100_000
COLUMNS = ["id", "label", "error"]
# title: (condition, columns; None: all, latents too)
QUESTIONS: dict[str, tuple[str | None, list[str] | None]] = {
    "one id": ("id = {one}", None),
    "100 ids, scattered": ("id IN ({ids})", None),
    "a label, sorted": ("label = 7", None),
    "a label, columns only": ("label = 7", COLUMNS),
    "an attribute, unsorted, 1 in 1000": ("lot = 700", None),
    "errors, few": ("error > {high}", COLUMNS),
    "everything, columns only": (None, COLUMNS),
    "everything": (None, None),
}


def make_store(rows: int, work: Path) -> Path:
    import numpy as np
    import pyarrow as pa

    from ae_pipeline.data.pixels import SampleSpec
    from ae_pipeline.data.samples import SampleSet, ShardWriter
    from ae_pipeline.params import EncodeParams
    from ae_pipeline.store.writing.encoding import encode_samples

    random = np.random.default_rng(0)
    data = work / "rows"
    data.mkdir()
    for start in range(0, rows, PER_SHARD):
        ids = np.arange(start, min(start + PER_SHARD, rows))
        lots = random.integers(0, 1000, len(ids), np.int32)
        attributes = pa.table({"id": ids, "label": (ids * 10 // rows).astype(np.uint8), "lot": lots})
        shades = random.integers(0, 200, (len(ids), 1, 1)) + random.integers(0, 56, (len(ids), 8, 8))
        path = data / f"{start // PER_SHARD:03d}.parquet"
        with ShardWriter(path, attributes.schema, SampleSpec((8, 8), "uint8")) as writer:
            writer.write(attributes, shades.astype(np.uint8))
    quick_codec("784-448-224-32, integers", data, work / "codec")
    params = EncodeParams(device="cpu")
    encode_samples(SampleSet.open(data), work / "codec", work / "store", params, name="bench", git={})
    return work / "store"


def by_scan(store: Any, condition: str | None, columns: list[str] | None) -> int:
    from ae_pipeline.store.latent_store import LatentStore

    return count(LatentStore.open(store).scan(columns=columns, filter=condition))


def by_dataset(store: Path, condition: str | None, columns: list[str] | None) -> int:
    import pyarrow.dataset as ds

    data = ds.dataset([str(file) for file in parts(store)])
    return count(data.to_batches(columns=columns, filter=as_expression(condition)))


def by_duckdb(store: Path, condition: str | None, columns: list[str] | None) -> int:
    import duckdb

    chosen = ", ".join(columns or ["*"])
    where = f" where {condition}" if condition else ""
    with duckdb.connect() as connection:
        found = connection.sql(f"select {chosen} from read_parquet({[str(file) for file in parts(store)]}){where}")
        return count(found.to_arrow_reader(10_000))


def count(tables: Iterable[Any]) -> int:
    return sum(found.num_rows for found in tables)


def parts(store: Path) -> list[Path]:
    """As a program that knows the format would find them."""
    return [store / part["name"] for part in json.loads((store / "_manifest.json").read_bytes())["parts"]]


def as_expression(condition: str | None) -> Any:
    import pyarrow.compute as pc

    if condition is None:
        return None
    name, sign, value = condition.split(" ", 2)
    if sign == "IN":
        return pc.field(name).isin(json.loads(f"[{value.strip('()')}]"))
    return pc.field(name) == int(value) if sign == "=" else pc.field(name) > float(value)


def share_read(store: Path, condition: str | None, columns: list[str] | None) -> float:
    """Bytes of parts that `store.scan` reads, of all their bytes."""
    from ae_pipeline.store.latent_store import LatentStore
    from ae_pipeline.store.storage.folder import LocalStorage

    read = 0

    class Counting(LocalStorage):
        def read_range(self, name: str, start: int, size: int) -> bytes:
            nonlocal read
            data = super().read_range(name, start, size)
            read += len(data) if name.startswith("part-") else 0
            return data

    opened = LatentStore.open(Counting(store))
    by_scan(opened.storage, condition, columns)
    return read / opened.manifest.totals.bytes_parts


def measure(store: Path, repeats: int) -> list[list[str]]:
    import numpy as np

    from ae_pipeline.store.latent_store import LatentStore

    errors = np.concatenate([found["error"].to_numpy() for found in LatentStore.open(store).scan(columns=["error"])])
    ids = np.random.default_rng(1).choice(len(errors), 100, replace=False)
    values = {
        "one": len(errors) * 2 // 3,
        "ids": ", ".join(map(str, sorted(ids))),
        "high": float(np.sort(errors)[-200]),
    }
    ways: dict[str, Callable[..., int]] = {"scan": by_scan, "duckdb": by_duckdb, "dataset": by_dataset}
    lines = []
    for title, (condition, columns) in QUESTIONS.items():
        asked = condition.format(**values) if condition else None
        best: dict[str, float] = dict.fromkeys(ways, float("inf"))
        counts = set()
        for _ in range(repeats):
            for name, way in ways.items():
                start = time.perf_counter()
                counts.add(way(store, asked, columns))
                best[name] = min(best[name], time.perf_counter() - start)
        if len(counts) != 1:
            raise SystemExit(f"{title}: the three found {sorted(counts)} rows")
        times = [f"{1e3 * seconds:.1f}" for seconds in best.values()]
        ratios = [f"{best['scan'] / best[name]:.2f}" for name in ("duckdb", "dataset")]
        lines.append([title, f"{counts.pop():,}", *times, *ratios, f"{share_read(store, asked, columns):.1%}"])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--work", type=Path, help="where temporary data goes")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work, prefix=".bench-") as temporary:
        lines = measure(make_store(args.rows, Path(temporary)), args.repeats)
    columns = ["rows wanted", "found", "scan ms", "DuckDB ms", "pyarrow.dataset ms", "of DuckDB", "of pyarrow", "read"]
    command = f"python bench/scanning.py --rows {args.rows} --repeats {args.repeats}"
    report(f"Scanning {args.rows:,} rows, best of {args.repeats}", [table(columns, lines)], [f"`{command}`"], args.out)


if __name__ == "__main__":
    main()
