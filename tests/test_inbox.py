"""The inbox: what is new is encoded once, whatever happens; what is bad goes to quarantine, and the rest goes on."""

import gzip
import io
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import random_codec, random_pixels, write_rows
from killing import killed_at_every_step
from PIL import Image

from ae_pipeline.batches import batch_facts, statistics_path
from ae_pipeline.codec import Codec
from ae_pipeline.codec_header import read_header
from ae_pipeline.errors import ConfigError, StoreError, TargetError
from ae_pipeline.idx import write_idx
from ae_pipeline.inbox import encode_inbox
from ae_pipeline.latent_store import LatentStore
from ae_pipeline.params import Params

GIT = {"commit": None, "dirty": None}
OLD = time.time() - 3600


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """The folder of an untrained codec for uint8 5x4."""
    folder = tmp_path_factory.mktemp("inbox") / "codec"
    random_codec(folder)
    return folder


@pytest.fixture
def box(tmp_path):
    folder = tmp_path / "data" / "inbox"
    folder.mkdir(parents=True)
    return folder


def params_with(**inbox):
    return Params.model_validate({"encode": {"device": "cpu"}, "inbox": inbox})


def run(root, codec, **inbox):
    return encode_inbox(params_with(**inbox), root, codec, git=GIT)


def settle(folder):
    for file in folder.rglob("*"):
        os.utime(file, (OLD, OLD))


def put(path, number, rows=30):
    """A Parquet file of rows that no other number has."""
    write_rows(
        path, random_pixels((rows, 5, 4), "uint8", seed=number), id=list(range(100 * number, 100 * number + rows))
    )
    os.utime(path, (OLD, OLD))


def put_image(path, number, size=(4, 5), mode="L", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "I;16": ()}[mode]
    pixels = random_pixels((*size[::-1], *channels), "uint16" if mode == "I;16" else "uint8", seed=number)
    Image.fromarray(pixels).save(path, **options)
    os.utime(path, (OLD, OLD))
    return pixels


def stored(store):
    """All rows of a store, as one table."""
    opened = LatentStore.open(store)
    return pa.concat_tables(rows.attributes for part in opened.manifest.parts for rows in opened.read_part(part, 1000))


def store_of(root, codec):
    return root / "data" / "growing" / read_header(codec).fingerprint[:12]


def reasons(root):
    folder = root / "data" / "quarantine"
    found = {str(file.relative_to(folder)): file.read_text().splitlines() for file in folder.rglob("*.reason.txt")}
    assert all(len(lines) == 3 and lines[1].startswith("time: 2") for lines in found.values())
    return {name.removesuffix(".reason.txt"): lines[0] for name, lines in found.items()}


def test_three_batches_with_one_bad_file(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    put(box / "sub" / "b.parquet", 2)
    first = run(tmp_path, codec)
    store = store_of(tmp_path, codec)
    assert (first.store, first.snapshot, first.files, first.rows) == (str(store), 1, ["a.parquet", "sub/b.parquet"], 60)
    put(box / "c.parquet", 3)
    (box / "d.parquet").write_bytes((box / "c.parquet").read_bytes()[:-100])
    put(box / "e.parquet", 4)
    settle(box)
    second = run(tmp_path, codec)
    assert (second.snapshot, second.files, second.known) == (2, ["c.parquet", "e.parquet"], 2)
    assert list(second.quarantined) == ["d.parquet"]
    assert second.quarantined["d.parquet"].startswith("d.parquet is not a readable Parquet file: ")
    assert reasons(tmp_path) == second.quarantined
    assert sorted(file.name for file in box.iterdir()) == ["a.parquet", "c.parquet", "e.parquet", "sub"]
    assert (tmp_path / "data" / "quarantine" / "d.parquet").exists()
    put(box / "f.parquet", 5, rows=7)
    third = run(tmp_path, codec)
    assert (third.snapshot, third.rows, third.bytes_in, third.quarantined) == (3, 7, 140, {})
    assert stored(store)["id"].to_pylist() == [n for k in (1, 2, 3, 4) for n in range(100 * k, 100 * k + 30)] + [
        *range(500, 507)
    ]
    assert [LatentStore.open(store, number).manifest.totals.rows for number in (1, 2, 3)] == [60, 120, 127]
    again = run(tmp_path, codec)
    assert (again.snapshot, again.files, again.rows, again.mean_error, again.known) == (3, [], 0, None, 5)


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
    assert written == json.loads(json.dumps(done.__dict__))
    assert done.statistics()["files"] == 1
    # Lost, as by a crash after the commit: the next run has them from the store.
    statistics_path(store, 1).unlink()
    put(box / "b.parquet", 2)
    run(tmp_path, codec)
    again = json.loads(statistics_path(store, 1).read_text())
    unknown = {"quarantined", "waiting", "known", "seconds"}
    assert {key for key in again if again[key] is None} == unknown
    assert {**written, **dict.fromkeys(unknown)} == again
    assert json.loads(statistics_path(store, 2).read_text())["rows"] == 30


@pytest.mark.parametrize("there", [True, False], ids=["empty", "missing"])
def test_an_empty_inbox_is_no_mistake(there, codec, tmp_path):
    if there:
        (tmp_path / "data" / "inbox").mkdir(parents=True)
    done = run(tmp_path, codec)
    assert (done.snapshot, done.files, done.quarantined, done.rows) == (None, [], {}, 0)
    assert not store_of(tmp_path, codec).exists()


def test_the_same_content_under_another_name_adds_nothing(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    shutil.copy2(box / "a.parquet", box / "copy.parquet")
    assert run(tmp_path, codec).files == ["a.parquet"]
    shutil.copy2(box / "a.parquet", box / "0.parquet")
    (box / "a.parquet").unlink()
    done = run(tmp_path, codec)
    assert (done.snapshot, done.files, done.known, done.quarantined) == (1, [], 2, {})


def test_new_content_under_the_same_name_is_new(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    run(tmp_path, codec)
    put(box / "a.parquet", 2)
    assert run(tmp_path, codec).files == ["a.parquet"]
    assert stored(store_of(tmp_path, codec)).num_rows == 60


@pytest.mark.parametrize("how", ["deleted", "damaged", "of another inbox"])
def test_the_ledger_is_only_a_cache(how, codec, box, tmp_path):
    put(box / "a.parquet", 1)
    put(box / "b.parquet", 1, rows=9)
    write_idx(box / "c-images-idx3-ubyte", random_pixels((9, 5, 4), "uint8", seed=3))
    settle(box)
    first = run(tmp_path, codec)
    ledger = tmp_path / "data" / "growing" / ".inbox" / "ledger.json"
    assert set(json.loads(ledger.read_text())["files"]) >= set(first.files)
    if how == "deleted":
        ledger.unlink()
    elif how == "damaged":
        ledger.write_text('{"location": "data/inbox", "files": {"a.parquet": 7, "b.parquet": []}}')
    else:
        ledger.write_text(ledger.read_text().replace("data/inbox", "elsewhere"))
    done = run(tmp_path, codec)
    assert (done.snapshot, done.files, done.known) == (1, [], 2)


def test_files_encoded_under_an_earlier_champion_are_not_encoded_again(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    run(tmp_path, codec)
    random_codec(tmp_path / "next", seed=1)
    put(box / "b.parquet", 2)
    done = run(tmp_path, tmp_path / "next")
    assert (done.snapshot, done.files, done.known) == (1, ["b.parquet"], 1)
    assert done.store == str(store_of(tmp_path, tmp_path / "next")) != str(store_of(tmp_path, codec))


def test_a_damaged_store_stops_the_run_before_anything_is_encoded_twice(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    run(tmp_path, codec)
    (store_of(tmp_path, codec) / "_manifest.json").write_text("{")
    random_codec(tmp_path / "next", seed=1)
    with pytest.raises(StoreError, match="not readable JSON"):
        run(tmp_path, tmp_path / "next")


# Files that are not ready.


@pytest.mark.parametrize("name", [".a.parquet", "_a.parquet", "a.parquet.tmp", "a.parquet.part", "a.png.crdownload"])
def test_hidden_and_unfinished_files_are_left_alone(name, codec, box, tmp_path):
    put(box / "good.parquet", 1)
    for file in (box / name, box / "_hidden" / "a.parquet", box / ".hidden" / "a.parquet"):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"half")
    settle(box)
    done = run(tmp_path, codec)
    assert (done.files, done.quarantined, done.waiting) == (["good.parquet"], {}, 0)
    assert (box / name).exists()


def test_a_file_that_is_still_being_written_waits(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    (box / "b.parquet").write_bytes((box / "a.parquet").read_bytes()[:50])
    done = run(tmp_path, codec)
    assert (done.files, done.waiting, done.quarantined) == (["a.parquet"], 1, {})
    put(box / "b.parquet", 2)
    assert run(tmp_path, codec).files == ["b.parquet"]


def test_images_wait_for_labels_that_are_still_being_written(codec, box, tmp_path):
    write_idx(box / "x-images-idx3-ubyte", random_pixels((6, 5, 4), "uint8"))
    settle(box)
    write_idx(box / "x-labels-idx1-ubyte", np.arange(6))
    assert run(tmp_path, codec).waiting == 1
    settle(box)
    assert run(tmp_path, codec).files == ["x-images-idx3-ubyte"]
    assert stored(store_of(tmp_path, codec))["label"].to_pylist() == list(range(6))


def test_one_run_at_a_time(codec, box, tmp_path):
    put(box / "a.parquet", 1)

    def start_another(rows):
        with pytest.raises(TargetError, match="another run is writing"):
            run(tmp_path, codec)

    assert encode_inbox(params_with(), tmp_path, codec, git=GIT, progress=start_another).rows == 30


# IDX and images.


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_idx_files_with_labels(packed, codec, box, tmp_path):
    pixels = random_pixels((2500, 5, 4), "uint8")
    write_idx(box / "t10k-images-idx3-ubyte", pixels)
    write_idx(box / "t10k-labels-idx1-ubyte", np.arange(2500) % 10)
    if packed:
        for file in list(box.iterdir()):
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    settle(box)
    name = "t10k-images-idx3-ubyte" + ".gz" * packed
    done = run(tmp_path, codec)
    assert (done.files, done.rows, done.quarantined) == ([name], 2500, {})
    rows = stored(store_of(tmp_path, codec))
    assert rows["id"].to_pylist() == [f"{name}#{row}" for row in range(2500)]
    assert rows["label"].to_pylist() == [row % 10 for row in range(2500)]
    store = LatentStore.open(store_of(tmp_path, codec))
    assert store.manifest.parts[0].shard.file == name
    latents = np.concatenate([rows.latents for rows in store.read_part(store.manifest.parts[0], 10_000)])
    assert np.array_equal(latents, Codec.load(codec).encode(pixels))
    shutil.copy2(box / name, box / f"another-{name}")
    assert run(tmp_path, codec).files == []


def test_real_mnist(mnist_raw, tmp_path, box):
    random_codec(tmp_path / "mnist-codec", (28, 28))
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        shutil.copy(mnist_raw / name, box / name)
    settle(box)
    assert run(tmp_path, tmp_path / "mnist-codec").rows == 10_000


def test_idx_files_and_what_pandas_writes_share_a_store(codec, box, tmp_path):
    """Texts of pandas are large_string, ours string: the same to whoever has the files."""
    pixels = random_pixels((3, 5, 4), "uint8", seed=1)
    rows = {"id": ["a", "b", "c"], "pixels": [row.tobytes() for row in pixels]}
    pd.DataFrame(rows).to_parquet(box / "frame.parquet")
    assert pq.read_schema(box / "frame.parquet").field("id").type == pa.large_string()
    settle(box)
    assert run(tmp_path, codec).rows == 3
    write_idx(box / "more-images-idx3-ubyte", random_pixels((4, 5, 4), "uint8", seed=2))
    settle(box)
    second = run(tmp_path, codec)
    assert (second.rows, second.quarantined) == (4, {})
    ids = stored(store_of(tmp_path, codec))["id"].to_pylist()
    assert ids == ["a", "b", "c", *(f"more-images-idx3-ubyte#{row}" for row in range(4))]


def test_labels_without_images_are_quarantined(codec, box, tmp_path):
    write_idx(box / "x-labels-idx1-ubyte", np.arange(6))
    settle(box)
    done = run(tmp_path, codec)
    assert (
        "has one dimension, as labels have, but there is no file of images" in done.quarantined["x-labels-idx1-ubyte"]
    )


def test_labels_that_do_not_fit_take_their_images_along(codec, box, tmp_path):
    write_idx(box / "x-images-idx3-ubyte", random_pixels((6, 5, 4), "uint8"))
    write_idx(box / "x-labels-idx1-ubyte", np.arange(5))
    settle(box)
    reason = "x-labels-idx1-ubyte has shape [5]; expected one label for each of 6 images"
    assert run(tmp_path, codec).quarantined == {
        "x-images-idx3-ubyte": reason,
        "x-labels-idx1-ubyte": f"x-images-idx3-ubyte, which it belongs to: {reason}",
    }
    assert not list(box.iterdir())


def test_images_of_every_kind(codec, box, tmp_path):
    pixels = {"a.png": put_image(box / "a.png", 1), "sub/b.bmp": put_image(box / "sub" / "b.bmp", 2)}
    pixels["c.tif"] = put_image(box / "c.tif", 3)
    pixels["d.webp"] = put_image(box / "d.webp", 4, lossless=True)
    put_image(box / "e.JPG", 5, format="jpeg")
    color = put_image(box / "f.png", 6, mode="RGB")
    pixels["f.png"] = np.asarray(Image.fromarray(color).convert("L"))
    shutil.copy2(box / "a.png", box / "same-as-a.png")
    done = run(tmp_path, codec)
    names = ["a.png", "c.tif", "d.webp", "e.JPG", "f.png", "sub/b.bmp"]
    assert (done.files, done.rows, done.known, done.quarantined) == (names, 6, 1, {})
    store = LatentStore.open(store_of(tmp_path, codec))
    (part,) = store.manifest.parts
    (rows,) = store.read_part(part, 100)
    assert rows.attributes["id"].to_pylist() == names
    for row, name in enumerate(names):
        if name in pixels:
            assert np.array_equal(rows.latents[row], Codec.load(codec).encode(pixels[name][None])[0]), name
    put_image(box / "g.png", 7)
    (box / "a.png").rename(box / "renamed.png")
    (tmp_path / "data" / "growing" / ".inbox" / "ledger.json").unlink()
    assert run(tmp_path, codec).files == ["g.png"]
    assert batch_facts(store.path, 1)["files"] == names


def test_color_images(box, tmp_path):
    random_codec(tmp_path / "codec", (5, 4, 3))
    pixels = put_image(box / "a.png", 1, mode="RGB")
    put_image(box / "b.png", 2, mode="RGBA")
    put_image(box / "c.png", 3, mode="L")
    assert run(tmp_path, tmp_path / "codec").files == ["a.png", "b.png", "c.png"]
    store = LatentStore.open(store_of(tmp_path, tmp_path / "codec"))
    (rows,) = store.read_part(store.manifest.parts[0], 100)
    assert np.array_equal(rows.latents[0], Codec.load(tmp_path / "codec").encode(pixels[None])[0])


def test_deep_images(box, tmp_path):
    random_codec(tmp_path / "codec", dtype="uint16")
    put_image(box / "a.png", 1, mode="I;16")
    put_image(box / "b.png", 2)
    done = run(tmp_path, tmp_path / "codec")
    assert (done.files, list(done.quarantined)) == (["a.png"], ["b.png"])
    assert "b.png is of Pillow's mode L, whose values are not uint16 5x4" in done.quarantined["b.png"]


# Bad files.


def write_table(path, **columns):
    pq.write_table(pa.table(columns), path)


BAD = {
    "other-shape.parquet": (lambda path: write_table(path, pixels=[[1] * 7]), "rows have 7 values, expected 20"),
    "other-type.parquet": (lambda path: write_table(path, pixels=[[0.5] * 20]), "do not fit uint8"),
    "nothing.parquet": (lambda path: write_table(path, id=pa.array([], pa.int64())), "has no column `pixels`"),
    "no-rows.parquet": (
        lambda path: write_table(path, pixels=pa.array([], pa.list_(pa.uint8()))),
        "holds no rows; expected at least one",
    ),
    "no-id.parquet": (lambda path: write_table(path, id=[1, None], pixels=[[1] * 20] * 2), "some rows have no id"),
    "id.parquet": (lambda path: write_table(path, id=[0.5], pixels=[[1] * 20]), "`id` is of type double"),
    "reserved.parquet": (
        lambda path: write_table(path, id=[1], error=[1], pixels=[[1] * 20]),
        "column names error are reserved",
    ),
    "columns.parquet": (
        lambda path: write_table(path, id=[1], label=[1], pixels=[[1] * 20]),
        "has the columns id: int64, label: int64, expected id: int64 as in ",
    ),
    "text.parquet": (lambda path: path.write_text("hello"), "is not a readable Parquet file"),
    "empty.parquet": (lambda path: path.write_bytes(b""), "is not a readable Parquet file"),
    "notes.txt": (lambda path: path.write_text("hello"), "is of no kind that is read; expected *.parquet, "),
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
    "deep.png": (lambda path: put_image(path, 1, mode="I;16"), "deep.png is of Pillow's mode I;16"),
    "many.tif": (
        lambda path: put_image(path, 1, save_all=True, append_images=[Image.new("L", (4, 5))]),
        "many.tif holds 2 images, expected one",
    ),
    "good.png": (lambda path: put_image(path, 1), "has the columns id: string, file_sha256"),
}


def png():
    file = io.BytesIO()
    Image.fromarray(random_pixels((5, 4), "uint8")).save(file, "png")
    return file.getvalue()


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
        assert message in done.quarantined[name]
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
    assert "b.parquet: 1 rows have pixels that are NaN" in done.quarantined["b.parquet"]


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


# Other places.


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def test_an_inbox_may_be_a_url(codec, memory, tmp_path):
    put(tmp_path / "a.parquet", 1)
    memory.pipe("/bucket/in/a.parquet", (tmp_path / "a.parquet").read_bytes())
    memory.pipe("/bucket/in/sub/a.parquet", b"not Parquet")
    memory.pipe("/bucket/in/.hidden/b.parquet", b"not Parquet")
    settings = {"location": "memory://bucket/in", "settle_seconds": 0.0}
    assert run(tmp_path, codec, **{**settings, "settle_seconds": 60.0}).waiting == 2
    done = run(tmp_path, codec, **settings)
    assert (done.files, list(done.quarantined)) == (["a.parquet"], ["sub/a.parquet"])
    assert done.quarantined["sub/a.parquet"].startswith("sub/a.parquet is not a readable Parquet file")
    assert (tmp_path / "data" / "quarantine" / "sub" / "a.parquet").read_bytes() == b"not Parquet"
    # It is still in the inbox, which is not ours to change; and is not tried again, also without the ledger.
    assert memory.exists("/bucket/in/sub/a.parquet")
    for _ in range(2):
        done = run(tmp_path, codec, **settings)
        assert (done.files, done.known, done.quarantined) == ([], 1, {})
        (tmp_path / "data" / "growing" / ".inbox" / "ledger.json").unlink()
    assert not (tmp_path / "data" / "growing" / ".inbox" / "files").exists()
    memory.pipe("/bucket/in/c.png", png())
    assert list(run(tmp_path, codec, **settings).quarantined) == ["c.png"]


def test_an_inbox_url_may_be_empty(codec, memory, tmp_path):
    assert run(tmp_path, codec, location="memory://nothing/here").files == []


def test_an_inbox_that_cannot_be_opened_says_so(codec, tmp_path):
    with pytest.raises(ConfigError, match=r"inbox\.location 'nope://x' cannot be opened: Protocol not known: nope; "):
        run(tmp_path, codec, location="nope://x")
    with pytest.raises(ConfigError, match=r"inbox\.quarantine 'in/bad' is in the inbox 'in', whose files are taken"):
        run(tmp_path, codec, location="in", quarantine="in/bad")
    assert run(tmp_path, codec, location="in", quarantine="in/_bad").files == []


# Killed anywhere.

SCRIPT = """
from ae_pipeline.inbox import encode_inbox
from ae_pipeline.params import Params

PARAMS = Params.model_validate({"encode": {"device": "cpu"}})

def run(folder):
    encode_inbox(PARAMS, folder, folder / "codec", git={"commit": None, "dirty": None})
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tables", "images"])
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
        put_image(box / "bad.png", 9, size=(3, 3))
    settle(box)
    left = killed_at_every_step(SCRIPT, template, tmp_path / "killed")
    assert len(left) > 20
    for folder in left:
        done = run(folder, codec)
        store = store_of(folder, codec)
        expected = [*range(100, 130), *range(200, 230)] if kind == "tables" else ["0.png", "1.png", "2.png"]
        assert stored(store)["id"].to_pylist() == expected
        assert [path.name for path in sorted(box.iterdir())][-1].startswith("bad")
        assert list(reasons(folder)) == [f"bad.{'parquet' if kind == 'tables' else 'png'}"]
        assert (folder / "data" / "quarantine" / next(iter(reasons(folder)))).exists()
        assert statistics_path(store, done.snapshot).exists()
        again = run(folder, codec)
        assert (again.snapshot, again.files) == (done.snapshot, [])
        growing = folder / "data" / "growing"
        assert sorted(item.name for item in growing.iterdir()) == [".inbox", store.name, f"{store.name}.batches"]
        assert not list(folder.rglob("*.tmp"))
