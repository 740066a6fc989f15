"""Killed anywhere, or run twice at a time: every file is in the store once."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import random_pixels
from inboxes import (
    params_with,
    put,
    put_image,
    put_table,
    reasons,
    run,
    schemas,
    settle,
    store_of,
    stored,
    types_of,
)
from killing import killed_at_every_step

from ae_pipeline.data.idx import write_idx
from ae_pipeline.errors import TargetError
from ae_pipeline.operation.inbox.batches import statistics_path
from ae_pipeline.operation.inbox.run import encode_inbox
from ae_pipeline.store.latent_store import LatentStore


def test_the_numbers_of_a_batch_stand_beside_the_store(codec, box, tmp_path):
    put(box / "a.parquet", 1, rows=2000)
    done = run(tmp_path, codec)
    store = store_of(tmp_path, codec)
    part = LatentStore.open(store).manifest.parts[0]
    errors = pq.read_table(store / part.name)["error"].to_numpy().astype(np.float64)
    assert done.mean_error == pytest.approx(errors.mean())
    assert done.median_error == pytest.approx(np.median(errors))
    assert done.p95_error == pytest.approx(np.percentile(errors, 95))
    assert (done.max_error, done.bytes_in, done.bytes_out) == (errors.max(), 2000 * 20, part.bytes)
    written = json.loads(statistics_path(store, 1).read_text())
    of_the_run = ("joined_parts", "why_not_joined")  # and not of the batch
    assert written == {
        key: value for key, value in json.loads(json.dumps(done.__dict__)).items() if key not in of_the_run
    }
    assert done.statistics()["files"] == 1
    # Lost, as by a crash after the commit: the next run has them from the store.
    statistics_path(store, 1).unlink()
    put(box / "b.parquet", 2)
    run(tmp_path, codec)
    again = json.loads(statistics_path(store, 1).read_text())
    unknown = {
        *("quarantined", "failed", "waiting", "why_waiting", "left_alone", "known"),
        *("colour_to_grey", "transparency_dropped", "seconds"),
    }
    assert {key for key in again if again[key] is None} == unknown
    assert {**written, **dict.fromkeys(unknown)} == again
    assert json.loads(statistics_path(store, 2).read_text())["rows"] == 30


def test_one_run_at_a_time(codec, box, tmp_path):
    put(box / "a.parquet", 1)

    def start_another(rows):
        with pytest.raises(TargetError, match="another run is writing"):
            run(tmp_path, codec)

    assert encode_inbox(params_with(), tmp_path, codec, progress=start_another).rows == 30


def test_parts_of_an_interrupted_run_do_not_count_where_the_columns_are_others_now(codec, box, tmp_path):
    class Cut(Exception):  # noqa: N818 (no error of the package)
        """Stands for whatever stops a run."""

    done = []

    def cut_after_two(rows):
        done.append(rows)
        if len(done) == 2:
            raise Cut

    put_table(box / "a.parquet", 1, id=["a"], label=pa.array([1], pa.int16()))
    put_table(box / "b.parquet", 2, id=["b"], label=pa.array([2], pa.int8()))
    with pytest.raises(Cut):
        encode_inbox(params_with(), tmp_path, codec, progress=cut_after_two)
    assert len(list((tmp_path / "data" / "growing").glob(".*.partial/part-*"))) == 2
    # Another file begins the store: the part of b.parquet has its number, its rows and its column names, but int16.
    put_table(box / "a.parquet", 3, id=["c"], label=pa.array([3], pa.int64()))
    assert run(tmp_path, codec).rows == 2
    store = store_of(tmp_path, codec)
    assert len(schemas(store)) == 1
    assert types_of(store)["label"] == "int64"


SCRIPT = """
from ae_pipeline.operation.inbox.run import encode_inbox
from ae_pipeline.params import Params

PARAMS = Params.model_validate({"encode": {"device": "cpu"}})

def run(folder):
    encode_inbox(PARAMS, folder, folder / "codec")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tables", "images and a table"])
def test_killed_at_any_step_every_file_is_in_the_store_once(kind, codec, tmp_path):
    template = tmp_path / "template"
    box = template / "data" / "inbox"
    shutil.copytree(codec, template / "codec")
    if kind == "tables":
        put(box / "a.parquet", 1)
        assert run(template, codec).rows == 30
        put(box / "b.parquet", 2)
        (box / "bad.parquet").write_text("bad")
    else:
        for number in range(3):
            put_image(box / f"{number}.png", number)
        put_table(box / "table.parquet", label=[1, 2])
        put_image(box / "bad.png", 9, size=(3, 3))
    settle(box)
    mixed = ["table.parquet#0", "table.parquet#1", "0.png", "1.png", "2.png"]
    left = killed_at_every_step(SCRIPT, template, tmp_path / "killed")
    assert len(left) > 20
    for folder in left:
        done = run(folder, codec)
        store = store_of(folder, codec)
        expected = [*range(100, 130), *range(200, 230)] if kind == "tables" else mixed
        assert stored(store)["id"].to_pylist() == expected
        assert any(path.name.startswith("bad") for path in box.iterdir())
        assert list(reasons(folder)) == [f"bad.{'parquet' if kind == 'tables' else 'png'}"]
        assert (folder / "data" / "quarantine" / next(iter(reasons(folder)))).exists()
        assert statistics_path(store, done.snapshot).exists()
        again = run(folder, codec)
        assert (again.snapshot, again.files) == (done.snapshot, [])
        growing = folder / "data" / "growing"
        assert sorted(item.name for item in growing.iterdir()) == [".inbox", store.name, f"{store.name}.batches"]
        assert not list(folder.rglob("*.tmp"))


@pytest.mark.slow
def test_killed_while_a_changed_file_leaves_the_quarantine_it_is_in_the_store_once(codec, tmp_path):
    """And while images and labels go in that waited for each other."""
    template = tmp_path / "template"
    box, quarantine = template / "data" / "inbox", template / "data" / "quarantine"
    shutil.copytree(codec, template / "codec")
    (box / "sub").mkdir(parents=True)
    (box / "sub" / "a.parquet").write_text("half")
    write_idx(box / "x-labels.idx1-ubyte", np.arange(2))
    settle(box)
    assert run(template, codec).waiting == 1
    put_table(quarantine / "sub" / "a.parquet", 1, id=["a"], label=[5])
    write_idx(box / "x-images-idx3-ubyte", random_pixels((2, 5, 4), "uint8"))
    settle(box)
    left = killed_at_every_step(SCRIPT, template, tmp_path / "killed")
    assert len(left) > 20
    for folder in left:
        done = run(folder, codec)
        assert (done.why_waiting, done.failed) == ({}, {})
        rows = stored(store_of(folder, codec))
        assert sorted(rows["id"].to_pylist()) == ["a", "x-images-idx3-ubyte#0", "x-images-idx3-ubyte#1"]
        assert sorted(rows["label"].to_pylist()) == [0, 1, 5]
        assert reasons(folder) == {}
        assert not (folder / "data" / "quarantine" / "sub" / "a.parquet").exists()
        again = run(folder, codec)
        assert (again.files, again.why_waiting, again.failed) == ([], {}, {})
        assert not list(folder.rglob("*.tmp"))
