"""Other people's readers open the parts of a store: pandas, DuckDB and Polars get latents, labels and errors."""

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest
from handmade import encode, random_codec, random_pixels, write_rows

from ae_pipeline.codec.codec import Codec
from ae_pipeline.store.format.entropy_coding import decompress
from ae_pipeline.store.format.layouts import LAYOUTS

ROWS, GROUP = 300, 128


class Expected:
    """A store of two parts, and what is in it."""

    def __init__(self, root, layout):
        random_codec(root / "codec", levels=256)
        pixels = random_pixels((2 * ROWS, 5, 4), "uint8", seed=1)
        self.labels = [None if row % 7 == 0 else f"class {row % 3}" for row in range(2 * ROWS)]
        for part in range(2):
            rows = slice(part * ROWS, (part + 1) * ROWS)
            ids = list(range(rows.start, rows.stop))
            write_rows(root / "data" / f"{part}.parquet", pixels[rows], id=ids, label=self.labels[rows])
        store = encode(root / "data", root / "codec", root / "store", layout=layout, row_group_rows=GROUP)
        self.folder = store.path
        self.glob = str(store.path / "*.parquet")
        self.layout = layout
        self.latents = Codec.load(root / "codec").encode(pixels)
        self.errors = np.concatenate(
            [rows.error for part in store.manifest.parts for rows in store.read_part(part, 99)]
        )

    def check(self, ids, labels, latents, errors):
        """Compare columns that a reader gave as plain sequences."""
        assert list(ids) == list(range(2 * ROWS))
        assert [label if isinstance(label, str) else None for label in labels] == self.labels
        if self.layout == "list":
            latents = np.stack([np.asarray(row) for row in latents])
        elif self.layout == "coded":
            latents = self.decoded(list(latents))
        else:
            latents = np.frombuffer(b"".join(latents), np.int8).reshape(len(latents), -1)
        assert latents.dtype == np.int8
        assert np.array_equal(latents, self.latents)
        assert np.array_equal(np.asarray(errors), self.errors)

    def decoded(self, blobs):
        """Readers get the stream of a row group in its first row, and nothing in the others."""
        groups = [slice(start, min(start + GROUP, ROWS)) for start in range(0, ROWS, GROUP)]
        streams = [blobs[part * ROWS :][group] for part in range(2) for group in groups]
        assert not any(any(others) for _, *others in streams)
        return np.concatenate([decompress(bytes(rows[0]), len(rows), self.latents.shape[1]) for rows in streams])


@pytest.fixture(scope="module", params=LAYOUTS)
def expected(request, tmp_path_factory):
    return Expected(tmp_path_factory.mktemp(request.param), request.param)


def test_pandas_opens_the_parts(expected):
    frames = [pd.read_parquet(part) for part in sorted(expected.folder.glob("*.parquet"))]
    frame = pd.concat(frames, ignore_index=True)
    assert str(frame["error"].dtype) == "float32"
    expected.check(frame["id"], frame["label"], frame["latent"], frame["error"])


def test_pandas_opens_the_whole_folder(expected):
    frame = pd.read_parquet(expected.folder)
    expected.check(frame["id"], frame["label"], frame["latent"], frame["error"])


def test_duckdb_opens_the_parts(expected):
    with duckdb.connect() as connection:
        query = "SELECT id, label, latent, error FROM read_parquet(?) ORDER BY id"
        rows = connection.execute(query, [expected.glob]).fetchnumpy()
        (kind,) = connection.execute("SELECT DISTINCT typeof(latent) FROM read_parquet(?)", [expected.glob]).fetchone()
    assert kind == ("TINYINT[]" if expected.layout == "list" else "BLOB")
    expected.check(rows["id"], rows["label"].tolist(), rows["latent"], rows["error"])


def test_duckdb_computes_on_latents_and_errors(expected):
    of_latents = "sum(list_sum(latent))" if expected.layout == "list" else "sum(octet_length(latent))"
    with duckdb.connect() as connection:
        query = f"SELECT {of_latents}, avg(error) FROM read_parquet(?)"
        total, mean = connection.execute(query, [expected.glob]).fetchone()
    latents = expected.latents
    if expected.layout == "coded":
        assert total > 0
    else:
        assert total == (latents.sum(dtype=np.int64) if expected.layout == "list" else latents.size)
    assert mean == pytest.approx(expected.errors.mean(dtype=np.float64))


def test_polars_opens_the_parts(expected):
    frame = pl.read_parquet(expected.glob).sort("id")
    assert frame.schema["latent"] == (pl.List(pl.Int8) if expected.layout == "list" else pl.Binary)
    assert frame.schema["error"] == pl.Float32
    expected.check(frame["id"].to_list(), frame["label"].to_list(), _rows(frame["latent"]), frame["error"].to_numpy())


def test_polars_filters_lazily(expected):
    worst = pl.scan_parquet(expected.glob).filter(pl.col("error") == pl.col("error").max()).select("id").collect()
    assert worst["id"].to_list() == np.flatnonzero(expected.errors == expected.errors.max()).tolist()


def test_pyarrow_opens_the_folder_as_a_data_set(expected):
    table = ds.dataset(expected.folder).to_table().sort_by("id")
    latents = table["latent"].to_pylist()
    if expected.layout == "list":
        latents = [np.asarray(row, np.int8) for row in latents]
    expected.check(table["id"].to_pylist(), table["label"].to_pylist(), latents, table["error"].to_numpy())


def _rows(column):
    return column.to_list() if column.dtype == pl.Binary else [row.to_numpy() for row in column]
