"""Tables and pictures of an evaluation: written for every kind of data set, the same bytes every time."""

import csv

import numpy as np
import pytest
from handmade import bytes_of, random_codec, random_pixels, write_rows
from PIL import Image

from ae_pipeline.evaluation import evaluate_codec
from ae_pipeline.params import EncodeParams
from ae_pipeline.report import write_pictures, write_tables
from ae_pipeline.samples import SampleSet

CPU = EncodeParams(device="cpu")
HISTORY = [
    {"epoch": epoch, "train_loss": 0.5 / epoch, "validation_loss": 0.6 / epoch, "learning_rate": 0.01}
    for epoch in (1, 2, 3)
]
PICTURES = {
    "reconstructions.png",
    "error_histogram.png",
    "per_class_error.png",
    "learning_curves.png",
    "rate_distortion.png",
}


@pytest.fixture(scope="module")
def evaluation(tiny_codec, synthetic_prepared):
    train, test = (SampleSet.open(synthetic_prepared / name) for name in ("train", "test"))
    return evaluate_codec(tiny_codec, test, CPU, train=train)


def evaluate(folder, shape, dtype="uint8", rows=12, **columns):
    random_codec(folder / "codec", shape, dtype)
    pixels = random_pixels((rows, *shape), dtype, seed=1)
    samples = write_rows(folder / "rows.parquet", pixels, id=list(range(rows)), **columns)
    return evaluate_codec(folder / "codec", samples, CPU, train=samples)


def read_table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_pictures(folder, expected):
    assert {file.name for file in folder.iterdir()} == expected
    for file in folder.iterdir():
        with Image.open(file) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert 300 <= picture.width <= 2000
            assert 300 <= picture.height <= 2000
            # Something is drawn: neither one colour, nor mostly ink.
            grey = np.asarray(picture.convert("L"))
            assert 0.005 < (grey < 250).mean() < 0.9


def test_every_picture_is_drawn(evaluation, tmp_path):
    write_pictures(tmp_path, evaluation, HISTORY)
    check_pictures(tmp_path, PICTURES)


def test_there_is_no_learning_curve_without_a_history(evaluation, tmp_path):
    write_pictures(tmp_path, evaluation, None)
    check_pictures(tmp_path, PICTURES - {"learning_curves.png"})


def test_tables_hold_the_numbers_of_the_evaluation(evaluation, tmp_path):
    write_tables(tmp_path, evaluation)
    classes = read_table(tmp_path / "per_class.csv")
    assert [(line["label"], int(line["rows"])) for line in classes] == [
        (str(line["label"]), line["rows"]) for line in evaluation.per_class()
    ]
    assert [float(line["mse"]) for line in classes] == [line["mse"] for line in evaluation.per_class()]
    histogram = read_table(tmp_path / "error_histogram.csv")
    assert sum(int(line["rows"]) for line in histogram) == 150
    assert float(histogram[0]["mse"]) == pytest.approx(evaluation.rows.values["mse"].min())
    points = read_table(tmp_path / "rate_distortion.csv")
    assert [(point["name"], float(point["mse"])) for point in points] == [
        ("autoencoder", evaluation.metrics["mse"]),
        ("PCA", evaluation.metrics["pca_mse"]),
    ]


def test_two_runs_give_the_same_bytes(evaluation, tmp_path):
    for run in ("first", "second"):
        write_tables(tmp_path / run / "tables", evaluation)
        write_pictures(tmp_path / run / "pictures", evaluation, HISTORY)
    assert bytes_of(tmp_path / "first") == bytes_of(tmp_path / "second")
    assert len(bytes_of(tmp_path / "first")) == 3 + 5


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((6, 5), "uint8"), ((6, 5), "float32"), ((6, 5, 1), "uint8"), ((6, 5, 3), "int16"), ((6, 5, 2), "uint8")],
    ids=str,
)
def test_images_of_any_channels_are_drawn(shape, dtype, tmp_path):
    evaluation = evaluate(tmp_path, shape, dtype, label=[row % 3 for row in range(12)])
    write_tables(tmp_path / "tables", evaluation)
    write_pictures(tmp_path / "pictures", evaluation, HISTORY)
    check_pictures(tmp_path / "pictures", PICTURES)


@pytest.mark.parametrize("shape", [(20,), (2, 3, 2, 3)], ids=str)
def test_samples_that_are_no_images_have_the_other_pictures(shape, tmp_path):
    evaluation = evaluate(tmp_path, shape, label=["a", None] * 6)
    write_tables(tmp_path / "tables", evaluation)
    write_pictures(tmp_path / "pictures", evaluation, None)
    check_pictures(tmp_path / "pictures", PICTURES - {"reconstructions.png", "learning_curves.png"})


def test_data_without_labels_have_no_classes(tmp_path):
    evaluation = evaluate(tmp_path, (6, 5))
    write_tables(tmp_path / "tables", evaluation)
    write_pictures(tmp_path / "pictures", evaluation, HISTORY)
    assert "per_class.csv" not in bytes_of(tmp_path / "tables")
    check_pictures(tmp_path / "pictures", PICTURES - {"per_class_error.png"})


def test_one_row_alone_is_drawn(tmp_path):
    evaluation = evaluate(tmp_path, (6, 5), rows=1, label=[7])
    write_tables(tmp_path / "tables", evaluation)
    write_pictures(tmp_path / "pictures", evaluation, HISTORY[:1])
    check_pictures(tmp_path / "pictures", PICTURES)


def test_rows_that_lose_nothing_are_drawn(tmp_path):
    random_codec(tmp_path / "codec", (6, 5), seed=1)
    evaluation = evaluate_codec(tmp_path / "codec", _decoded_of(tmp_path), CPU)
    write_pictures(tmp_path / "pictures", evaluation, None)
    write_tables(tmp_path / "tables", evaluation)
    assert evaluation.metrics["mse"] < 1e-3


def _decoded_of(folder):
    """Rows that the codec gives back exactly, or nearly: what it decodes one latent to."""
    from ae_pipeline.codec import Codec

    codec = Codec.load(folder / "codec")
    pixels = random_pixels((4, 6, 5), "uint8")
    for _ in range(20):
        pixels = codec.decode(codec.encode(pixels))
    return write_rows(folder / "rows.parquet", pixels, id=list(range(4)))
