"""Does reading one record, or one row group, take more memory where it is ten or a hundred times as large?

    python bench/kinds_reading.py --out bench/results/kinds_reading.md          # a minute

The part of kinds.py that depends on the kind alone: a file is made, and read to its last row as `download` and `encode`
read it, without a network, in a process of its own, whose peak resident memory the kernel tells. Target: at most 20 %
more, but for pictures: Pillow decodes one whole, to 4 bytes a pixel beside its file.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
from kinds_data import RATE, elsewhere
from memory import LIMIT
from reporting import report, table

# Vectors in the one row group; seconds of sound; pixels a side.
SIZES = {"vector": (100_000, 1_000_000), "audio": (360, 3600), "tiles": (1000, 10_000)}
WORDS = {
    "vector": "row group of {:,} vectors of 64 floats",
    "audio": "WAV, {:,} s of 16 kHz",
    "tiles": "PNG, {0:,} x {0:,}",
}
_VALUES = 64


def make(kind: str, size: int, file: Path) -> None:
    """Write noise, which nothing makes smaller."""
    rng = np.random.default_rng(0)
    if kind == "vector":
        import pyarrow as pa
        import pyarrow.parquet as pq

        column = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(size * _VALUES, np.float32)), _VALUES)
        pq.write_table(pa.table({"vector": column}), file, size, use_dictionary=False)
    elif kind == "audio":
        import soundfile

        with soundfile.SoundFile(file, "w", RATE, 1, "PCM_16", format="WAV") as sound:
            for _ in range(size):
                sound.write(rng.integers(-9000, 9000, RATE).astype(np.int16))
    else:
        from PIL import Image

        Image.fromarray(rng.integers(0, 12, (size, size, 3), np.uint8)).save(file, "PNG", compress_level=0)


def read(kind: str, file: Path, found: Path) -> None:
    """Make all rows; write how many, and the peak of this process in MiB."""
    from ae_pipeline.data.parquet.reader import read_tables
    from ae_pipeline.kinds import build_kind
    from ae_pipeline.kinds.base import Several
    from ae_pipeline.kinds.state import Form

    reader = build_kind("image" if kind == "tiles" else kind)
    rows = 0
    if kind == "vector":
        for block in read_tables(file, None, reader.block_records, "ns"):
            rows += sum(1 for _ in reader.to_rows(block.column(0).combine_chunks(), str))
    else:
        record = reader.read_file(file, reader.fit(Form(sort="files"), reader.Options(), iter([file])))
        assert isinstance(record, Several)
        rows = sum(len(some) for some, _ in record.pieces)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    found.write_text(f"{rows} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = []
    for kind, sizes in SIZES.items():
        least = 0.0
        for size in sizes:
            with tempfile.TemporaryDirectory(prefix=".bench-") as temporary:
                file, found = Path(temporary, "file"), Path(temporary, "found")
                elsewhere(make, kind, size, file)
                elsewhere(read, kind, file, found)
                rows, peak = map(float, found.read_text(encoding="utf-8").split())
                bytes_in = file.stat().st_size / 2**20
            least = least or peak
            allowed = LIMIT * least + (bytes_in + 4 * size**2 / 2**20 if kind == "tiles" else 0)
            numbers = [f"{rows:,.0f}", f"{bytes_in:.0f}", f"{peak:.0f}", f"{allowed:.0f}"]
            lines.append([WORDS[kind].format(size), *numbers, "yes" if peak <= allowed else "**no**"])
    columns = ["file", "rows", "its MiB", "peak MiB", "allowed", "held"]
    report("Memory of reading one record, or one row group", [table(columns, lines)], [], args.out)


if __name__ == "__main__":
    main()
