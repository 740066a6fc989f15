"""Tables and pictures of an evaluation: written for every kind of data set, the same bytes every time."""

import csv

import numpy as np
import pytest
from handmade import bytes_of, random_codec, random_pixels, write_rows
from own_columns import NAMES, columns_codec, save, table
from own_files import fetch
from PIL import Image

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import write_splits
from ae_pipeline.evaluation.evaluate import evaluate_codec, rate_distortion
from ae_pipeline.evaluation.pictures import _error_by_value, write_pictures, write_tables
from ae_pipeline.params import EncodeParams, PrepareParams

pytestmark = pytest.mark.slow

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
VECTOR_PICTURES = {"error_histogram.png", "rate_distortion.png", "neighbours.png", "error_by_value.png"}


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
            assert 200 <= picture.width <= 2000
            assert 300 <= picture.height <= 2000
            # Something is drawn: neither one colour, nor mostly ink.
            grey = np.asarray(picture.convert("L"))
            assert 0.005 < (grey < 250).mean() < 0.9


@pytest.fixture(scope="module")
def written(evaluation, tmp_path_factory):
    """Tables and pictures of `evaluation`."""
    folder = tmp_path_factory.mktemp("report")
    write_tables(folder / "tables", evaluation)
    write_pictures(folder / "pictures", evaluation, HISTORY)
    return folder


def test_every_picture_is_drawn(written):
    check_pictures(written / "pictures", PICTURES)


def test_tables_hold_the_numbers_of_the_evaluation(evaluation, written):
    tables = written / "tables"
    classes = read_table(tables / "per_class.csv")
    assert [(line["label"], int(line["rows"])) for line in classes] == [
        (str(line["label"]), line["rows"]) for line in evaluation.per_class()
    ]
    assert [float(line["mse"]) for line in classes] == [line["mse"] for line in evaluation.per_class()]
    histogram = read_table(tables / "error_histogram.csv")
    assert sum(int(line["rows"]) for line in histogram) == 150
    assert float(histogram[0]["mse"]) == pytest.approx(evaluation.rows.values["mse"].min())
    points = read_table(tables / "rate_distortion.csv")
    assert [(point["name"], float(point["mse"])) for point in points] == [
        ("autoencoder", evaluation.metrics["mse"]),
        ("PCA", evaluation.metrics["pca_mse"]),
    ]


def test_two_runs_give_the_same_bytes(evaluation, written, tmp_path):
    write_tables(tmp_path / "tables", evaluation)
    write_pictures(tmp_path / "pictures", evaluation, HISTORY)
    assert bytes_of(tmp_path) == bytes_of(written)
    assert len(bytes_of(tmp_path)) == 3 + 5


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((6, 5), "float32"), ((6, 5, 1), "uint8"), ((6, 5, 3), "int16"), ((6, 5, 2), "uint8"), ((2, 2, 4), "int8")],
    ids=str,
)
def test_one_image_of_any_channels_is_drawn(shape, dtype, tmp_path):
    evaluation = evaluate(tmp_path, shape, dtype, rows=1, label=["x"])
    write_tables(tmp_path / "tables", evaluation)
    write_pictures(tmp_path / "pictures", evaluation, HISTORY[:1])
    check_pictures(tmp_path / "pictures", PICTURES)


@pytest.mark.parametrize("shape", [(20,), (2, 3, 2, 3)], ids=str)
def test_samples_that_are_no_images_have_the_other_pictures(shape, tmp_path):
    evaluation = evaluate(tmp_path, shape, label=["a", None] * 6)
    write_tables(tmp_path / "tables", evaluation)
    write_pictures(tmp_path / "pictures", evaluation, None)
    of_vectors = VECTOR_PICTURES if len(shape) == 1 else set()
    check_pictures(tmp_path / "pictures", PICTURES - {"reconstructions.png", "learning_curves.png"} | of_vectors)


def test_without_labels_there_are_no_classes_and_without_history_no_curves(tmp_path):
    evaluation = evaluate(tmp_path, (6, 5), rows=2)
    write_tables(tmp_path / "tables", evaluation)
    write_pictures(tmp_path / "pictures", evaluation, None)
    assert set(bytes_of(tmp_path / "tables")) == {"error_histogram.csv", "per_class.csv", "rate_distortion.csv"}
    assert [line["label"] for line in read_table(tmp_path / "tables" / "per_class.csv")] == ["all"]
    check_pictures(tmp_path / "pictures", PICTURES - {"per_class_error.png", "learning_curves.png"})


def test_more_classes_than_bars_can_show_are_left_to_the_table(tmp_path):
    evaluation = evaluate(tmp_path, (20,), rows=300, label=[f"class {row}" for row in range(300)])
    write_pictures(tmp_path / "pictures", evaluation, None)
    check_pictures(tmp_path / "pictures", VECTOR_PICTURES)


def test_vectors_are_drawn_by_their_neighbours_and_by_the_error_of_each_value(tmp_path):
    evaluation = evaluate(tmp_path, (20,), "float32", rows=40)
    error, deviation = evaluation.rows.by_value
    assert error.shape == deviation.shape == (20,)
    assert (error**2).mean() == pytest.approx(evaluation.metrics["mse"])
    assert (deviation**2).mean() == pytest.approx(evaluation.metrics["mean_mse"])
    own, pca = rate_distortion(evaluation.metrics)
    assert own["recall_at_10"] == evaluation.metrics["recall_at_10"]
    assert pca["recall_at_10"] == evaluation.metrics["pca_recall_at_10"]
    write_pictures(tmp_path / "pictures", evaluation, None)
    check_pictures(tmp_path / "pictures", VECTOR_PICTURES)


def test_pictures_have_no_neighbours(evaluation):
    assert evaluation.rows.by_value is None
    assert "recall_at_10" not in rate_distortion(evaluation.metrics)[0]


def test_rows_that_lose_nothing_are_drawn(tmp_path):
    # Encoded and decoded again and again, rows settle on ones that come back as they are.
    codec = random_codec(tmp_path / "codec", (20,), levels=2)
    pixels = random_pixels((4, 20), "uint8")
    for _ in range(20):
        pixels = codec.decode(codec.encode(pixels))
    samples = write_rows(tmp_path / "rows.parquet", pixels, id=list(range(4)))
    evaluation = evaluate_codec(tmp_path / "codec", samples, CPU)
    assert evaluation.metrics["mse"] == 0
    assert evaluation.metrics["psnr"] is None
    write_tables(tmp_path / "tables", evaluation)
    write_pictures(tmp_path / "pictures", evaluation, None)
    check_pictures(tmp_path / "pictures", VECTOR_PICTURES - {"neighbours.png"})  # four rows have no ten neighbours


def test_values_that_were_columns_have_their_names_in_the_picture(tmp_path):
    save(tmp_path / "t.parquet", table())
    names = ["big", NAMES[1], "tiny"]
    splits = write_splits(
        fetch(tmp_path, path=tmp_path / "t.parquet", kind="vector", column=names), tmp_path / "in", PrepareParams()
    )
    columns_codec(tmp_path / "codec", table(), names)
    evaluation = evaluate_codec(tmp_path / "codec", splits["train"], CPU)
    assert evaluation.value_names == tuple(names)
    write_pictures(tmp_path / "pictures", evaluation, None)
    check_pictures(tmp_path / "pictures", VECTOR_PICTURES)


def test_names_stand_under_their_own_columns_and_many_or_long_ones_are_cut():
    error = np.array([[1.0, 2.0, 3.0], [5.0, 9.0, 7.0]])
    axis = _error_by_value(error, ["a", "$b^{$", "c" * 80]).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["\\$b^{\\$", "c" * 29 + "\u2026", "a"]
    many = _error_by_value(np.ones((2, 500)), [str(number) for number in range(500)]).axes[0]
    assert [label.get_text() for label in many.get_xticklabels()] == [str(number) for number in range(0, 500, 9)]
    assert _error_by_value(error).axes[0].get_xlabel() == "values of a vector, by deviation"
