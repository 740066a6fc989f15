"""What cannot be used goes to quarantine with its reason, and the rest goes on."""

import gzip
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from handmade import random_codec, random_pixels, write_rows
from inboxes import png, put, put_image, reasons, run, settle, write_table
from PIL import Image

from ae_pipeline.data.idx import write_idx

BAD = {
    "other-shape.parquet": (
        lambda path: write_table(path, id=[1], pixels=[[1] * 7]),
        "rows have 7 values, expected 20",
    ),
    "other-type.parquet": (lambda path: write_table(path, id=[1], pixels=[[0.5] * 20]), "do not fit uint8"),
    "nothing.parquet": (lambda path: write_table(path, id=pa.array([], pa.int64())), "has no column `pixels`"),
    "no-rows.parquet": (
        lambda path: write_table(path, pixels=pa.array([], pa.list_(pa.uint8()))),
        "holds no rows; expected at least one",
    ),
    "no-id.parquet": (
        lambda path: write_table(path, id=[1, None], pixels=[[1] * 20] * 2),
        "row 1 (the first one is 0) and perhaps others have no id",
    ),
    "id.parquet": (lambda path: write_table(path, id=[0.5], pixels=[[1] * 20]), "`id` is of type double"),
    "reserved.parquet": (
        lambda path: write_table(path, id=[1], error=[1], pixels=[[1] * 20]),
        "column names error are reserved",
    ),
    "columns.parquet": (
        lambda path: write_table(path, id=[1], label=[1], pixels=[[1] * 20]),
        "has columns that {store} does not have: label, expected id; drop them, rename them to one of these, or begin",
    ),
    "text-ids.parquet": (
        lambda path: write_table(path, id=["a"], pixels=[[1] * 20]),
        "column `id` is of type string, expected int64 as in {store}; convert it, or begin another store: rename ",
    ),
    "large-ids.parquet": (
        lambda path: write_table(path, id=pa.array([2**63], pa.uint64()), pixels=[[1] * 20]),
        "column `id` is of type uint64, and not all of its values fit int64 as in {store}: Integer value ",
    ),
    "no-ids.parquet": (
        lambda path: write_table(path, pixels=[[1] * 20]),
        "has no `id`, and its rows cannot be called by its name, because the ids of {store} are of type int64; give it",
    ),
    "digests.parquet": (
        lambda path: write_table(path, id=[1], file_sha256=["x"], pixels=[[1] * 20]),
        "column names file_sha256 are reserved in an inbox's store; rename or drop them",
    ),
    "text.parquet": (lambda path: path.write_text("hello"), "is not a readable Parquet file"),
    "empty.parquet": (lambda path: path.write_bytes(b""), "is not a readable Parquet file"),
    "notes.txt": (
        lambda path: path.write_text("hello"),
        "is of no kind that is read; expected Parquet (*.parquet, *.pq, ",
    ),
    "x-images-idx3-ubyte": (lambda path: path.write_bytes(b"\0\0\x08\x03"), "is truncated in its header"),
    "y-images-idx3-ubyte.gz": (lambda path: path.write_bytes(gzip.compress(b"\0" * 99)[:-9]), "truncated or damaged"),
    "z-images-idx3-ubyte": (
        lambda path: write_idx(path, np.zeros((2, 3, 4), np.uint8)),
        "holds samples of uint8 3x4, expected uint8 5x4",
    ),
    "size.png": (
        lambda path: put_image(path, 1, size=(9, 7)),
        "size.png is 7 high and 9 wide, expected 5 and 4 for uint8 5x4; scale it first",
    ),
    "half.png": (lambda path: path.write_bytes(png()[:-30]), "half.png is not a readable image"),
    "text.jpg": (lambda path: path.write_text("hello"), "text.jpg is not a readable image"),
    "deep.png": (
        lambda path: put_image(path, 1, mode="I;16"),
        "deep.png has unsigned values of 16 bits, expected uint8",
    ),
    "many.tif": (
        lambda path: put_image(path, 1, save_all=True, append_images=[Image.new("L", (4, 5))]),
        "many.tif holds 2 images, expected one",
    ),
    "good.png": (lambda path: put_image(path, 1), "has no `id`, and its rows cannot be called by its name"),
    "good-images-idx3-ubyte": (
        lambda path: write_idx(path, random_pixels((2, 5, 4), "uint8")),
        "has no `id`, and its rows cannot be called by its name",
    ),
}


def test_every_bad_file_is_quarantined_with_its_reason_and_the_rest_goes_on(codec, box, tmp_path):
    put(box / "0.parquet", 1)
    for name, (write, _) in BAD.items():
        write(box / name)
    put(box / "zz.parquet", 2)
    settle(box)
    done = run(tmp_path, codec)
    assert done.files == ["0.parquet", "zz.parquet"]
    assert set(done.quarantined) == set(BAD)
    for name, (_, message) in BAD.items():
        assert message.format(store=done.store) in done.quarantined[name]
        assert name in done.quarantined[name]
        assert "\n" not in done.quarantined[name]
        assert (tmp_path / "data" / "quarantine" / name).exists()
        assert str(tmp_path / "data" / "inbox") not in done.quarantined[name]
    assert reasons(tmp_path) == done.quarantined
    assert run(tmp_path, codec).quarantined == {}


def test_pixels_that_are_not_numbers_are_found_before_anything_is_appended(box, tmp_path):
    random_codec(tmp_path / "codec", dtype="float32")
    pixels = random_pixels((3000, 5, 4), "float32")
    write_rows(box / "a.parquet", pixels)
    pixels[2999, 4, 3] = np.nan
    write_rows(box / "b.parquet", pixels)
    settle(box)
    done = run(tmp_path, tmp_path / "codec")
    assert (done.files, done.rows) == (["a.parquet"], 3000)
    assert "b.parquet: pixels of 1 row (id 2999) are NaN" in done.quarantined["b.parquet"]


def test_two_bad_files_of_one_name_are_both_kept(codec, box, tmp_path):
    for text in ("one", "two", "two"):
        (box / "a.parquet").write_text(text)
        settle(box)
        assert list(run(tmp_path, codec).quarantined) == ["a.parquet"]
    kept = {file.read_text() for file in (tmp_path / "data" / "quarantine").glob("*.parquet")}
    assert kept == {"one", "two"}
    assert len(reasons(tmp_path)) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_quarantined(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    put(box / "b.parquet", 2)
    (box / "a.parquet").chmod(0)
    done = run(tmp_path, codec)
    assert done.files == ["b.parquet"]
    assert done.quarantined["a.parquet"].startswith("a.parquet cannot be read (Permission denied); give permission")


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no second file system")
def test_the_quarantine_may_be_on_another_file_system(codec, box, tmp_path):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        (box / "a.parquet").write_text("hello")
        settle(box)
        run(tmp_path, codec, quarantine=other)
        assert sorted(file.name for file in Path(other).iterdir()) == ["a.parquet", "a.parquet.reason.txt"]
    assert not list(box.iterdir())
