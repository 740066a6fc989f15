"""A codec of tables beside other ways of keeping the same numbers within the same bounds: bits a row of held-out rows.

    python bench/tables.py --codec data/codec --data data/prepared/test --rows 53940

The others keep each number as the nearest place of a grid whose steps are as wide as the bound allows, which is what
their users do; categories are places in their lists. `--rows` shares the codec out among so many rows. pcodec is
measured where it is installed (`pip install pcodec`).
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.table_columns.fields import FieldOptions, places_of


def grid_of(places: np.ndarray, fields: tuple[FieldOptions, ...]) -> np.ndarray:
    """int32 (rows, fields): each number as the nearest step of its grid; categories as they are."""
    return np.stack([places[:, n] // field.cell for n, field in enumerate(fields)], 1).astype(np.int32)


def parquet_bytes(grid: np.ndarray) -> int:
    """Bytes of the grid as Parquet with zstd 19."""
    table, file = pa.table({f"c{n}": column for n, column in enumerate(grid.T)}), io.BytesIO()
    pq.write_table(table, file, compression="zstd", compression_level=19)
    return len(file.getvalue())


def entropy(column: np.ndarray) -> float:
    """Bits of a value by how often each is there."""
    shares = np.unique(column, return_counts=True)[1] / len(column)
    return float(-(shares * np.log2(shares)).sum())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="prepared rows that the codec was not trained on")
    parser.add_argument("--rows", type=int, help="rows that the codec is shared out among; default: those of --data")
    asked = parser.parse_args()
    codec, rows = Codec.load(asked.codec), SampleSet.open(asked.data).load().pixels
    assert codec.streams is not None
    count, shared = len(rows), asked.rows or len(rows)
    stream = len(codec.streams.encode_latents(codec.encode(rows)))
    weights, header = ((asked.codec / name).stat().st_size for name in ("weights.safetensors", "codec.json"))
    grid = grid_of(places_of(rows, codec.header.model.table.fields), codec.header.model.table.fields)
    found = {
        "this codec, stream alone": 8 * stream / count,
        f"with its weights ({weights:,} bytes)": 8 * (stream / count + weights / shared),
        f"with all of it ({weights + header:,} bytes)": 8 * (stream / count + (weights + header) / shared),
        "each column by its frequencies": sum(map(entropy, grid.T)),
        "Parquet, zstd 19": 8 * parquet_bytes(grid) / count,
        "Parquet, zstd 19, sorted": 8 * parquet_bytes(grid[np.lexsort(grid.T[::-1])]) / count,
    }
    try:
        from pcodec import ChunkConfig, standalone

        settings = ChunkConfig(compression_level=12)
        sizes = [len(standalone.simple_compress(np.ascontiguousarray(column), settings)) for column in grid.T]
        found["pcodec 12, a column at a time"] = 8 * sum(sizes) / count
    except ImportError:
        print("pcodec is not installed, and not measured")
    for name, bits in found.items():
        print(f"| {name} | {bits:.2f} |")


if __name__ == "__main__":
    main()
