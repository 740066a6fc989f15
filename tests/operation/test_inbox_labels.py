"""Images and labels in IDX files find each other, however spelt; nothing is encoded without labels too early."""

import gzip
import itertools
import shutil

import numpy as np
import pytest
from handmade import random_pixels
from inboxes import reasons, run, settle, store_of, stored

from ae_pipeline.data.idx import idx_name, write_idx
from ae_pipeline.sources.idx import IdxSource

PIXELS = random_pixels((6, 5, 4), "uint8")
LABELS = np.arange(6, dtype=np.uint8)
SPELLINGS = [  # images and labels
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("train-images.idx3-ubyte", "train-labels.idx1-ubyte"),
    ("train-images.idx3-ubyte", "train-labels-idx1-ubyte"),
    ("TRAIN-IMAGES-IDX3-UBYTE", "Train-Labels.IDX1-UBYTE"),
    ("train_images_idx3_ubyte", "train_labels_idx1_ubyte"),
    ("train-images.idx3", "train-labels.idx1"),
    ("train-images.idx", "train-labels.idx"),
    ("train.idx3-ubyte", "train.idx1-ubyte"),
    ("images-train.idx3", "labels-train.idx1"),
    ("train-images", "train-labels"),
]
OTHERS = [
    ("images-idx3-ubyte", "labels-idx1-ubyte"),
    ("images.idx3", "labels.idx1"),
    ("t10k-images.idx3-ubyte", "test-labels.idx1-ubyte"),
    ("emnist-letters-train-images-idx3-ubyte", "emnist-letters-train-labels-idx1-ubyte"),
    ("qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx2-int"),
]


def put_idx(path, values, packed=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_idx(path, values)
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


@pytest.mark.parametrize("packed", list(itertools.product([False, True], repeat=2)), ids=str)
@pytest.mark.parametrize("names", SPELLINGS + OTHERS, ids="-".join)
def test_labels_go_in_with_their_images(names, packed, codec, box, tmp_path):
    for name, values, gz in zip(names, (PIXELS, LABELS), packed, strict=True):
        put_idx(box / "sub" / name, values, gz)
    settle(box)
    done = run(tmp_path, codec)
    assert (len(done.files), done.quarantined, done.why_waiting) == (1, {}, {})
    assert stored(store_of(tmp_path, codec))["label"].to_pylist() == LABELS.tolist()
    again = run(tmp_path, codec)
    assert (again.files, again.quarantined, again.why_waiting) == ([], {}, {})


@pytest.mark.parametrize("names", SPELLINGS, ids="-".join)
def test_the_source_takes_the_same_spellings(names, tmp_path):
    for name, values in zip(names, (PIXELS, LABELS), strict=True):
        put_idx(tmp_path / "mine" / name, values)
        test = name.lower().replace("train", "test")
        put_idx(tmp_path / "mine" / test, values, packed=True)
    (tmp_path / "raw").mkdir()
    source = IdxSource(folder=str(tmp_path / "mine"))
    source.fetch(tmp_path / "raw")
    for split in source.read(tmp_path / "raw").values():
        assert np.array_equal(split.attributes["label"], LABELS)


@pytest.mark.parametrize("name", ["a.parquet", "a.midx", "train-images.png", "some-labels.parquet", "subimages", "x"])
def test_other_names_are_no_idx_files(name):
    assert idx_name(name) is None


def test_labels_wait_for_their_images(codec, box, tmp_path):
    put_idx(box / "x-labels-idx1-ubyte", LABELS)
    settle(box)
    for _ in range(2):
        done = run(tmp_path, codec)
        assert (done.files, done.quarantined) == ([], {})
        assert done.why_waiting == {"x-labels-idx1-ubyte": "it waits for its images"}
        assert "1 waiting (x-labels-idx1-ubyte: it waits for its images)" in done.summary()
    put_idx(box / "x-images.idx3-ubyte", PIXELS)
    settle(box)
    assert run(tmp_path, codec).files == ["x-images.idx3-ubyte"]
    assert stored(store_of(tmp_path, codec))["label"].to_pylist() == LABELS.tolist()


def test_images_are_held_back_while_labels_lie_beside_them_that_may_be_theirs(codec, box, tmp_path):
    put_idx(box / "images_a-idx3-ubyte", PIXELS)
    put_idx(box / "marks-b-labels-idx1-ubyte", LABELS)
    put_idx(box / "sub" / "c-images-idx3-ubyte", random_pixels((2, 5, 4), "uint8", seed=1))
    settle(box)
    for _ in range(2):
        done = run(tmp_path, codec)
        assert set(done.why_waiting) == {"images_a-idx3-ubyte", "marks-b-labels-idx1-ubyte"}
        assert "labels without images, marks-b-labels-idx1-ubyte" in done.why_waiting["images_a-idx3-ubyte"]
    (box / "marks-b-labels-idx1-ubyte").rename(box / "labels_a-idx1-ubyte")
    done = run(tmp_path, codec)
    assert (done.files, done.why_waiting) == (["images_a-idx3-ubyte"], {})
    assert stored(store_of(tmp_path, codec))["label"].to_pylist() == [None, None, *range(6)]


def test_images_wait_while_their_labels_are_copied_under_another_name(codec, box, tmp_path):
    put_idx(box / "x-images-idx3-ubyte", PIXELS)
    (box / "x-labels-idx1-ubyte.filepart").write_bytes(b"half")
    settle(box)
    done = run(tmp_path, codec)
    assert done.why_waiting == {"x-images-idx3-ubyte": "its labels are not whole yet: x-labels-idx1-ubyte.filepart"}
    assert set(done.left_alone) == {"x-labels-idx1-ubyte.filepart"}


def test_of_several_files_of_labels_the_one_spelt_alike_is_taken(codec, box, tmp_path):
    for ending in ("", ".gz"):
        put_idx(box / "x-labels-idx1-ubyte", LABELS if ending else LABELS + 10, packed=bool(ending))
        if ending:
            put_idx(box / "x-labels-idx1-ubyte", LABELS + 10)
    put_idx(box / "x-images-idx3-ubyte", PIXELS, packed=True)
    settle(box)
    done = run(tmp_path, codec)
    assert stored(store_of(tmp_path, codec))["label"].to_pylist() == LABELS.tolist()
    assert done.why_waiting == {"x-labels-idx1-ubyte": "its images have other labels; take one of the files away"}
    put_idx(box / "y-images.idx", random_pixels((6, 5, 4), "uint8", seed=3))
    put_idx(box / "y-labels-idx1-ubyte", LABELS)
    put_idx(box / "y_labels_idx1_ubyte", LABELS)
    settle(box)
    why = run(tmp_path, codec).why_waiting["y-images.idx"]
    assert why == "it has several files of labels: y-labels-idx1-ubyte, y_labels_idx1_ubyte; keep one of them"


@pytest.mark.parametrize("remembered", [True, False])
def test_labels_that_come_after_their_images_say_so(remembered, codec, box, tmp_path):
    put_idx(box / "x-images-idx3-ubyte", PIXELS)
    settle(box)
    assert run(tmp_path, codec).files == ["x-images-idx3-ubyte"]
    put_idx(box / "x-labels-idx1-ubyte", LABELS)
    settle(box)
    if not remembered:
        (tmp_path / "data" / "growing" / ".inbox" / "ledger.json").unlink()
    done = run(tmp_path, codec)
    assert (done.files, list(done.quarantined)) == ([], ["x-labels-idx1-ubyte"])
    assert (
        "came after its images, x-images-idx3-ubyte, whose rows are in a store without labels"
        in (done.quarantined["x-labels-idx1-ubyte"])
    )
    assert reasons(tmp_path) == done.quarantined


@pytest.mark.parametrize("remembered", [True, False])
def test_labels_in_a_store_are_known_and_others_for_the_same_images_are_not_ignored(remembered, codec, box, tmp_path):
    put_idx(box / "x-images-idx3-ubyte", PIXELS)
    put_idx(box / "x-labels-idx1-ubyte", LABELS)
    settle(box)
    run(tmp_path, codec)
    if not remembered:
        (tmp_path / "data" / "growing" / ".inbox" / "ledger.json").unlink()
    done = run(tmp_path, codec)
    assert (done.files, done.known, done.quarantined, done.why_waiting) == ([], 1, {}, {})
    put_idx(box / "x-labels-idx1-ubyte", LABELS[::-1])
    settle(box)
    done = run(tmp_path, codec)
    assert "has other labels than the rows that its images" in done.quarantined["x-labels-idx1-ubyte"]


def test_labels_whose_images_were_encoded_and_deleted_hold_nothing_back(codec, box, tmp_path):
    put_idx(box / "x-images-idx3-ubyte", PIXELS)
    put_idx(box / "x-labels-idx1-ubyte", LABELS)
    settle(box)
    run(tmp_path, codec)
    (box / "x-images-idx3-ubyte").unlink()
    put_idx(box / "y-images-idx3-ubyte", random_pixels((2, 5, 4), "uint8", seed=1))
    settle(box)
    done = run(tmp_path, codec)
    assert (done.files, done.why_waiting, done.quarantined) == (["y-images-idx3-ubyte"], {}, {})


def test_labels_that_other_images_have_too_stay_when_one_file_of_images_is_bad(codec, box, tmp_path):
    put_idx(box / "x-images-idx3-ubyte", PIXELS[:, :4])
    put_idx(box / "x-images.idx3-ubyte", PIXELS)
    put_idx(box / "x-labels-idx1-ubyte", LABELS)
    settle(box)
    done = run(tmp_path, codec)
    assert (done.files, list(done.quarantined)) == (["x-images.idx3-ubyte"], ["x-images-idx3-ubyte"])
    assert stored(store_of(tmp_path, codec))["label"].to_pylist() == LABELS.tolist()
    shutil.rmtree(box)
