"""A workspace for a table: through the stages, and by commands, until the user's own table comes back."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_tables import related_columns

from ae_pipeline.cli.preflight import preflight
from ae_pipeline.cli.stages import STAGES, run_stage
from ae_pipeline.errors import ConfigError
from ae_pipeline.files import read_small
from ae_pipeline.params import Params

BOUND = 0.02


@pytest.fixture(scope="module")
def table():
    """With free text, which stays as it is, and a column of a type that is none of the record's."""
    made = related_columns(300)
    words = [f"remark {number}" if number % 3 else None for number in range(300)]
    lists = pa.array([[number, 1] for number in range(300)])
    return made.add_column(1, "remark", pa.array(words)).append_column("list", lists)


@pytest.fixture(scope="module")
def workspace(table, tmp_path_factory):
    root = tmp_path_factory.mktemp("workspace")
    pq.write_table(table, root / "mine.parquet")
    params = Params.model_validate(
        {
            "source": {
                "name": "files",
                "files": {
                    "path": str(root / "mine.parquet"),
                    "kind": "table",
                    "settings": {"max_error": BOUND, "absolute": {"price": 20}},
                    "test_fraction": 0.2,
                },
            },
            "codec": {"family": "context"},
            "encode": {"layout": "stream", "row_group_rows": 2000, "data_sets": ["test"]},
            "train": {"epochs": 2, "batch_size": 64, "learning_rate": 0.01},
            "evaluate": {"gate": {"beat_pca": False}},
        }
    )
    (root / params.paths.raw).mkdir(parents=True)
    preflight(params, root)
    for stage in STAGES[:-1]:
        run_stage(stage, params, root)
    return root


def check(found, wanted):
    assert found.schema.equals(wanted.schema)
    for name in wanted.column_names:
        if name in ("size", "width", "price", "seen"):
            values = wanted.column(name).drop_null().to_numpy()
            bound = 20 if name == "price" else BOUND * (values.max() - values.min()) + 1e-9
            assert found.column(name).is_valid().equals(wanted.column(name).is_valid())
            assert np.abs(found.column(name).drop_null().to_numpy() - values).max() <= bound, name
        else:
            assert found.column(name).equals(wanted.column(name)), name


@pytest.mark.slow
def test_the_table_comes_back_from_the_store_alone(workspace, table, ae, tmp_path):
    codec = workspace / "data/codec"
    parts = [tmp_path / f"{number}.parquet" for number in range(2)]
    pq.write_table(table[:200], parts[0])
    pq.write_table(table[200:], parts[1])
    store = tmp_path / "store"
    assert ae("encode", parts[0], "--codec", codec, "--store", store, "--max-error", "0.02")[0] == 0
    assert ae("append", store, parts[1])[0] == 0
    (tmp_path / "all").mkdir()
    for part in parts:
        part.rename(tmp_path / "all" / part.name)
    code, out, _ = ae("verify", store, "--deep", "--source", tmp_path / "all")
    assert (code, "result      whole" in out) == (0, True)
    assert ae("decode", store, "--out", tmp_path / "mine", "--format", "parquet")[0] == 0
    files = sorted((tmp_path / "mine").glob("*.parquet"))
    found = pa.concat_tables([pq.read_table(file) for file in files])
    check(found.select(table.column_names), table)


def test_what_is_measured_says_what_is_promised(workspace):
    metrics = json.loads(read_small(workspace / "reports/metrics.json"))
    assert 0 < metrics["max_error"] <= BOUND
    assert metrics["mse"] <= metrics["max_error"] ** 2
    # The rows of a table point nowhere, and an epoch is a column: there is no search to measure, and no curve to draw.
    assert not metrics.keys() & {"cosine", "recall_at_10"}
    pictures = {path.name for path in (workspace / "reports/pictures").iterdir()}
    assert pictures == {"error_by_value.png", "error_histogram.png", "rate_distortion.png"}


def test_a_codec_that_promises_less_than_is_asked_for_is_refused(workspace, ae, tmp_path):
    code, _, error = ae(
        "encode", workspace / "mine.parquet", "--codec", workspace / "data/codec", "--store", tmp_path / "s", "--exact"
    )
    assert (code, "but every value as it was is asked for" in error) == (1, True)


def test_a_table_with_other_columns_is_refused_by_their_names(workspace, table, ae, tmp_path):
    pq.write_table(table.drop_columns(["price"]), tmp_path / "other.parquet")
    code, _, error = ae(
        "encode", tmp_path / "other.parquet", "--codec", workspace / "data/codec", "--store", tmp_path / "s"
    )
    assert (code, "has no column `price`" in error) == (1, True)


def test_tables_need_a_codec_that_keeps_bounds(tmp_path):
    values = {"source": {"name": "files", "files": {"path": str(tmp_path), "kind": "table"}}}
    pq.write_table(related_columns(20), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"autoencoder, but source.files.kind is table; set it to context"):
        preflight(Params.model_validate(values), tmp_path)
