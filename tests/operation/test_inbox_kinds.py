"""IDX and image files of the inbox become rows."""

import gzip
import shutil

import numpy as np
import pytest
from handmade import random_codec, random_pixels
from inboxes import put, put_image, run, settle, store_of, stored
from PIL import Image

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.idx import write_idx
from ae_pipeline.operation.inbox.batches import batch_facts
from ae_pipeline.store.latent_store import LatentStore


def test_parquet_files_are_taken_whatever_they_are_called(codec, box, tmp_path):
    """As `encode` reads them: by their endings, or by their first bytes."""
    names = ["a.pq", "b.PARQ", "c.Parquet", "d.parquet.snappy", "part-00000"]
    for number, name in enumerate(names):
        put(box / name, number)
    (box / "e.pq").write_text("no Parquet")
    settle(box)
    done = run(tmp_path, codec)
    assert done.files == names
    assert "e.pq is not a readable Parquet file" in done.quarantined["e.pq"]


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


def test_images_of_one_dimension_are_quarantined(codec, box, tmp_path):
    write_idx(box / "x-images-idx3-ubyte", np.arange(6))
    settle(box)
    done = run(tmp_path, codec)
    assert (
        "has one dimension, as labels have, but there is no file of images" in done.quarantined["x-images-idx3-ubyte"]
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
    assert (
        "b.png has unsigned values of 8 bits, expected uint16 as the codec has (uint16 5x4)"
        in done.quarantined["b.png"]
    )


def test_images_that_lose_something_are_counted(codec, box, tmp_path):
    gray = np.repeat(random_pixels((5, 4, 1), "uint8", seed=7), 3, axis=2)
    opaque = np.dstack([gray, np.full((5, 4), 255, np.uint8)])
    for name, pixels in {"gray": gray, "opaque": opaque, "glass": opaque - np.uint8([0, 0, 0, 1])}.items():
        Image.fromarray(pixels).save(box / f"{name}.png")
    put_image(box / "colour.png", 1, mode="RGB")
    put_image(box / "both.png", 2, mode="RGBA")
    Image.fromarray(random_pixels((5, 4, 3), "uint8", seed=3)).quantize(4).save(box / "palette.png")
    Image.fromarray(random_pixels((5, 4), "uint8", seed=4)).save(box / "key.png", transparency=0)
    settle(box)
    done = run(tmp_path, codec)
    assert (done.rows, done.colour_to_grey, done.transparency_dropped) == (7, 3, 2)
