"""`dvc repro` in a temporary clone, on a person's own files: a folder of pictures, a Parquet file of vectors."""

import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clone import ran
from PIL import Image

from ae_pipeline.cli.stages import CODE, STAGES
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.store.latent_store import LatentStore

pytestmark = pytest.mark.slow


def use(clone, **options):
    clone.change({"source": {"name": "files", "files": options}, "evaluate": {"gate": {"max_mse": None}}})


def draw(random, tone):
    """A bright bar on a ground of one colour."""
    picture = np.full((12, 10, 3), tone, np.uint8)
    picture[random.integers(1, 11)] = random.integers(100, 255, 3)
    return picture


def test_a_folder_of_pictures_comes_back_as_pictures(clone, tmp_path):
    random, drawn = np.random.default_rng(0), {}
    for number in range(600):
        colour = ("dark", "light")[number % 2]
        name = f"{colour}/{number:03}.{('png', 'bmp', 'webp')[number % 3]}"
        (clone.folder / "photos" / colour).mkdir(parents=True, exist_ok=True)
        drawn[name] = draw(random, (10, 90)[number % 2])
        Image.fromarray(drawn[name]).save(clone.folder / "photos" / name, lossless=True)
    use(clone, path="photos", label="folder")
    code, output = clone.run("ae-pipeline", "check")
    assert code == 0, output
    _, output = clone.dvc("repro")
    assert ran(output) == [CODE, *STAGES]
    rows = {}
    for split in ("train", "validation", "test"):
        block = SampleSet.open(clone.folder / "data/prepared" / split).load()
        for line, pixels in zip(block.attributes.to_pylist(), block.pixels, strict=True):
            rows[line["id"]] = line
            np.testing.assert_array_equal(pixels, drawn[line["source_file"]])
            assert line["label"] == line["source_file"].split("/")[0]
    assert sorted(rows) == list(range(600))
    assert [rows[number]["source_file"] for number in range(600)] == sorted(drawn)
    metrics = json.loads((clone.folder / "reports/metrics.json").read_text())
    assert metrics["r2"] > 0.5
    assert "cosine" not in metrics
    assert "recall_at_10" not in metrics
    store = clone.folder / "data/latents/test"
    clone.run("ae-pipeline", "decode", str(store), "--out", str(tmp_path / "out"), "--format", "png")
    index = pq.read_table(tmp_path / "out/index.parquet").to_pylist()
    assert len(index) == LatentStore.open(store).manifest.totals.rows
    for line in index:
        with Image.open(tmp_path / "out" / line["file"]) as picture:
            assert (picture.mode, picture.size) == ("RGB", (10, 12))
    assert ran(clone.dvc("repro")[1]) == [CODE]
    os.utime(clone.folder / "photos/dark/000.png", (0, 0))
    assert ran(clone.dvc("repro")[1]) == [CODE, "download"], "a touched file is read again, and its rows are the same"
    (clone.folder / "photos").rename(clone.folder / "away")
    _, output = clone.dvc("repro")
    assert ran(output) == [CODE]
    assert "the source's files cannot be looked at: there is no photos" in output
    (clone.folder / "away").rename(clone.folder / "photos")


def test_a_parquet_file_of_vectors_comes_back_as_vectors_with_its_columns(clone):
    random = np.random.default_rng(1)
    vectors = (random.normal(size=(900, 3)) @ random.normal(size=(3, 16))).astype(np.float32)
    words = [f"word {number}" for number in range(900)]
    sure = [None if number % 7 == 0 else number / 8 for number in range(900)]
    table = pa.table(
        {"id": words, "emb": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 16), "sure": sure}
    )
    pq.write_table(table, clone.folder / "embeddings.parquet", row_group_size=100)
    use(clone, path="embeddings.parquet", kind="vector", label=None)
    clone.change({"model": {"dense": {"output_activation": "linear"}}})
    clone.dvc("repro")
    seen = {}
    for split in ("train", "validation", "test"):
        block = SampleSet.open(clone.folder / "data/prepared" / split).load()
        assert block.pixels.dtype == np.float32
        for line, row in zip(block.attributes.to_pylist(), block.pixels, strict=True):
            number = int(line["id"].split()[1])
            seen[number] = split
            assert line["sure"] == sure[number]
            np.testing.assert_array_equal(row, vectors[number])
    assert sorted(seen) == list(range(900))
    metrics = json.loads((clone.folder / "reports/metrics.json").read_text())
    test = [number for number, split in seen.items() if split == "test"]
    decoded = SampleSet.open(clone.folder / "data/decoded/test").load()
    ids = [int(word.split()[1]) for word in decoded.attributes.column("id").to_pylist()]
    assert sorted(ids) == sorted(test)
    x, y = vectors[ids].astype(float), decoded.pixels.astype(float)
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert metrics["cosine"] == pytest.approx(cosine.mean(), abs=1e-6)
    assert 0.3 < metrics["recall_at_10"] <= 1
    assert metrics["pca_recall_at_10"] is not None


def test_what_cannot_be_read_ends_the_stage_with_the_file_and_says_what_to_do(clone):
    data = io.BytesIO()
    Image.fromarray(draw(np.random.default_rng(2), 50)).save(data, "PNG")
    (clone.folder / "photos/dark/cut.png").write_bytes(data.getvalue()[:-40])
    use(clone, path="photos", kind="image", label="folder")
    code, output = clone.dvc("repro", "download", check=False)
    assert code != 0
    assert "photos/dark/cut.png is not a readable image" in output
    assert "set source.files.skip_unreadable to true" in output
    assert "Traceback" not in output
    use(clone, path="photos", kind="image", label="folder", skip_unreadable=True)
    assert "1 left out (left_out.parquet)" in clone.dvc("repro", "download")[1]
