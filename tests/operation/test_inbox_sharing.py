"""Files of every kind share one store, whatever comes first."""

import itertools

import numpy as np
import pandas as pd
import pytest
from handmade import random_codec, random_pixels
from inboxes import put_image, put_table, run, schemas, settle, store_of, stored, types_of
from PIL import Image

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.idx import open_idx, write_idx
from ae_pipeline.files import sha256_file
from ae_pipeline.operation.inbox.batches import batch_facts
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store

ROWS = 60


@pytest.fixture(scope="module")
def mnist(mnist_raw):
    """Images and labels of the first rows of MNIST's test split, for each kind of file others."""
    images, labels = (open_idx(mnist_raw / f"t10k-{name}-ubyte") for name in ("images-idx3", "labels-idx1"))
    cut = [slice(ROWS * number, ROWS * (number + 1)) for number in range(3)]
    return {kind: (images[part], labels[part]) for kind, part in zip(("idx", "pandas", "images"), cut, strict=True)}


@pytest.fixture(scope="module")
def mnist_codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnist") / "codec"
    random_codec(folder, (28, 28))
    return folder


def deliver(kind, box, pixels, labels):
    """As somebody would write these rows, with what they have at hand."""
    if kind == "idx":
        write_idx(box / "some-images-idx3-ubyte", pixels)
        write_idx(box / "some-labels-idx1-ubyte", labels)
    elif kind == "pandas":
        rows = {"label": labels.astype(np.int64), "pixels": [row.tobytes() for row in pixels]}
        pd.DataFrame(rows).to_parquet(box / "frame.parquet")
    else:
        for row, image in enumerate(pixels):
            Image.fromarray(image).save(box / f"{row:02}.png")
    settle(box)


EXPECTED = {  # ids, labels
    "idx": lambda labels: ([f"some-images-idx3-ubyte#{row}" for row in range(ROWS)], labels.tolist()),
    "pandas": lambda labels: ([f"frame.parquet#{row}" for row in range(ROWS)], labels.tolist()),
    "images": lambda labels: ([f"{row:02}.png" for row in range(ROWS)], [None] * ROWS),
}


@pytest.mark.parametrize("order", list(itertools.permutations(EXPECTED)), ids="-".join)
def test_files_of_every_kind_share_one_store_in_any_order_of_arrival(order, mnist, mnist_codec, box, tmp_path):
    for kind in order:
        deliver(kind, box, *mnist[kind])
        assert run(tmp_path, mnist_codec).quarantined == {}
    store = store_of(tmp_path, mnist_codec)
    assert types_of(store) == {"id": "string", "label": "int64", "file_sha256": "fixed_size_binary[32]"}
    assert len(schemas(store)) == 1
    rows = stored(store)
    expected = [EXPECTED[kind](mnist[kind][1]) for kind in order]
    assert rows["id"].to_pylist() == [name for ids, _ in expected for name in ids]
    assert rows["label"].to_pylist() == [label for _, labels in expected for label in labels]
    files = [name.split("#")[0] for name in rows["id"].to_pylist()]
    assert rows["file_sha256"].to_pylist() == [bytes.fromhex(sha256_file(box / name)) for name in files]
    decoded = decode_store(LatentStore.open(store), tmp_path / "decoded", device="cpu").load()
    assert decoded.attributes.equals(rows)
    pixels = np.concatenate([mnist[kind][0] for kind in order])
    real = Codec.load(mnist_codec)
    assert np.array_equal(decoded.pixels, real.decode(real.encode(pixels)))


def test_files_of_every_kind_in_one_run(mnist, mnist_codec, box, tmp_path):
    for kind, rows in mnist.items():
        deliver(kind, box, *rows)
    done = run(tmp_path, mnist_codec)
    assert (done.rows, done.snapshot, done.quarantined) == (3 * ROWS, 1, {})
    assert sorted(batch_facts(store_of(tmp_path, mnist_codec), 1)["files"]) == sorted(done.files)
    (tmp_path / "data" / "growing" / ".inbox" / "ledger.json").unlink()
    again = run(tmp_path, mnist_codec)
    assert (again.snapshot, again.files, again.known) == (1, [], ROWS + 2)


@pytest.mark.parametrize("labelled", ["a", "b"])
def test_whether_the_first_idx_file_has_labels_does_not_matter(labelled, codec, box, tmp_path):
    for name in ("a", "b"):
        write_idx(box / f"{name}-images-idx3-ubyte", random_pixels((3, 5, 4), "uint8", seed=ord(name)))
        if name == labelled:
            write_idx(box / f"{name}-labels-idx1-ubyte", np.array([1, 2, 3], np.uint8))
    settle(box)
    assert run(tmp_path, codec).quarantined == {}
    labels, none = [1, 2, 3], [None] * 3
    expected = labels + none if labelled == "a" else none + labels
    assert stored(store_of(tmp_path, codec))["label"].to_pylist() == expected


def test_a_table_may_be_called_like_a_batch_of_images(codec, box, tmp_path):
    put_table(box / "images.parquet", 1, x=[1, 2])
    put_image(box / "z.png", 1)
    assert run(tmp_path, codec).quarantined == {}
    assert batch_facts(store_of(tmp_path, codec), 1)["files"] == ["images.parquet", "z.png"]
    assert run(tmp_path, codec).known == 2
