"""The benchmark of vectors: product quantisation and integers beside PCA, judged by the neighbours that they keep."""

import sys
from dataclasses import asdict

import numpy as np
import pytest
from handmade import write_rows

from ae_pipeline.codec.header import Scaling
from ae_pipeline.evaluation.measures.metrics import psnr_of
from ae_pipeline.experiments.benchmark.curves import savings
from ae_pipeline.experiments.benchmark.lossless import measure_lossless
from ae_pipeline.experiments.benchmark.points import MSE, OURS, RECALL, Point, take_rows
from ae_pipeline.experiments.benchmark.report import draw, format_report
from ae_pipeline.experiments.benchmark.vector_codes import _pieces, measure_vector_codes
from ae_pipeline.experiments.benchmark.verdict import judge
from ae_pipeline.params.operation import BenchParams

ROWS, VALUES = 400, 12
PARAMS = BenchParams(pq_bits=[32, 96])


def vectors(rows, seed, dtype="float32"):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(5).normal(size=(20, VALUES))
    values = centres[random.integers(0, 20, rows)] + 0.3 * random.normal(size=(rows, VALUES))
    return (values * 20).round().astype(dtype) if np.dtype(dtype).kind != "f" else values.astype(dtype)


def taken(folder, dtype="float32", rows=ROWS):
    """The rows to measure on, and the train split."""
    test, train = (write_rows(folder / f"{seed}.parquet", vectors(rows, seed, dtype)) for seed in (1, 2))
    return take_rows(test, rows, Scaling(offset=-4.0, scale=8.0), folder / "taken"), train


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    pytest.importorskip("faiss", reason="pip install 'ae-pipeline[alternatives]'")
    rows, train = taken(tmp_path_factory.mktemp("vectors"))
    points, left_out = measure_vector_codes(rows, train, PARAMS, 10_000)
    assert left_out == []
    return rows, {point.name: point for point in points}


@pytest.mark.slow
def test_codes_of_vectors_take_the_bits_that_they_say_and_more_of_them_keep_more(measured):
    rows, points = measured
    assert set(points) == {"int8", "int4", "PQ 4x8", "OPQ 4x8", "PQ 12x8", "OPQ 12x8"}
    assert points["PQ 4x8"].bits_per_row == pytest.approx(32, rel=0.15)  # entropy-coded, with the header of a page
    for few, many in (("PQ 4x8", "PQ 12x8"), ("OPQ 4x8", "OPQ 12x8"), ("int4", "int8")):
        assert points[few].mse > points[many].mse
        assert points[few].metrics["recall_at_10"] < points[many].metrics["recall_at_10"]
        assert points[few].metrics["cosine"] < points[many].metrics["cosine"]
    assert {point.measured_rows for point in points.values()} == {len(rows)}


def test_code_books_and_rotations_count_once(measured):
    _, points = measured
    books = 256 * VALUES * 2
    assert points["PQ 4x8"].codec_bytes == points["PQ 12x8"].codec_bytes == books
    assert points["OPQ 4x8"].codec_bytes == books + VALUES * VALUES * 2
    assert points["int8"].codec_bytes == 8 * VALUES
    assert points["PQ 4x8"].bits_per_row_with_codec == points["PQ 4x8"].bits_per_row + 8 * books / ROWS


def test_integers_are_off_by_half_a_step_of_the_range_at_most(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    _, train = taken(tmp_path)
    rows = take_rows(train, ROWS, Scaling(offset=-4.0, scale=8.0), tmp_path / "same")
    point = measure_vector_codes(rows, train, PARAMS, 10_000)[0][0]
    step = (rows.pixels.max(axis=0) - rows.pixels.min(axis=0)) / 255
    assert point.name == "int8"
    assert 0.5 < point.mse / ((step**2).mean() / 12 / 8**2) <= 1.01


def test_integer_vectors_come_back_as_integers(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    _, train = taken(tmp_path, "int16")
    rows = take_rows(train, ROWS, Scaling(offset=-100.0, scale=200.0), tmp_path / "same")
    whole, halved = measure_vector_codes(rows, train, PARAMS, 10_000)[0]
    assert whole.mse < 1e-6  # fewer than 256 of them: but for a value at the end of a range
    assert halved.mse > 0


def test_without_faiss_the_report_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    rows, train = taken(tmp_path)
    points, (why,) = measure_vector_codes(rows, train, PARAMS, 10_000)
    assert [point.name for point in points] == ["int8", "int4"]
    assert why == "PQ, OPQ: the package faiss-cpu is not installed; pip install 'ae-pipeline[alternatives]'"


def test_too_few_rows_for_a_code_book_are_told(tmp_path):
    pytest.importorskip("faiss", reason="pip install 'ae-pipeline[alternatives]'")
    rows, train = taken(tmp_path, rows=200)
    points, (why,) = measure_vector_codes(rows, train, PARAMS, 10_000)
    assert len(points) == 2
    assert why.startswith("PQ, OPQ: 200 train rows, but a code book has 256 entries")


@pytest.mark.parametrize(
    ("values", "bits", "pieces"),
    [(256, 128, 16), (256, 512, 64), (784, 256, 28), (13, 64, 13), (7, 8, 1), (12, 500, 12)],
)
def test_pieces_are_of_one_length_and_as_near_as_can_be(values, bits, pieces):
    assert _pieces(values, bits) == pieces


def test_parquet_keeps_floats_in_streams_of_bytes_and_loses_nothing(tmp_path):
    rows, _ = taken(tmp_path)
    points = {point.name: point for point in measure_lossless(rows)[0]}
    split, plain = points["Parquet byte stream split, zstd 3"], points["Parquet zstd 3"]
    assert split.mse == 0
    assert split.metrics["recall_at_10"] == 1
    assert split.bits_per_row < plain.bits_per_row
    integers, _ = taken(tmp_path / "integers", "int16")
    assert not [point for point in measure_lossless(integers)[0] if "split" in point.name]


# The verdict, from numbers made by hand.


def point(family, bits, recall, mse, codec_bytes=0, setting="a"):
    metrics = {"mse": mse, "psnr": psnr_of(mse), "ssim": None, "cosine": 0.9, "recall_at_10": recall}
    with_codec = bits + 8 * codec_bytes / 1000
    return Point(f"{family} {setting}", family, setting, bits, with_codec, metrics, 1.0, 1.0, codec_bytes, 1000)


POINTS = [
    point(OURS, 100.0, 0.7, 0.004, 100_000),
    point("PCA", 130.0, 0.71, 0.005, 1_000),
    point("PCA", 200.0, 0.8, 0.002, 1_000, "b"),
    point("Parquet", 8000.0, 1.0, 0.0),
]


def test_at_equal_recall_another_wins_than_at_equal_error():
    few, many = (judge(RECALL.of(POINTS), rows) for rows in (1000, 100_000))
    assert few.choices[0].use == "PCA"
    assert few.choices[0].sentence.startswith(
        "At recall at 10 of 0.700 and 1,000 rows: use PCA a, which takes 138 bits"
    )
    assert many.choices[0].use == OURS
    assert many.choices[0].recall_at_10 == 0.7
    # 30 bits a row less, and 99,000 bytes more.
    assert few.choices[0].break_even_rows == pytest.approx(99_000 * 8 / 30, rel=0.01)
    assert judge(POINTS, 1000).choices[0].sentence.startswith("At MSE 0.00400 (24.0 dB) and 1,000 rows")


def test_beyond_our_recall_it_says_what_takes_over():
    limit = judge(RECALL.of(POINTS), 10**6).limit
    assert limit.startswith("Beyond recall at 10 of 0.700 none of these codecs goes: use PCA")
    assert limit.endswith("Parquet a, 8,000 bits per row, finds every neighbour.")


def test_points_without_a_recall_are_not_judged_by_it():
    bare = point("JPEG", 5.0, None, 0.001)
    assert RECALL.of([bare]) == []
    assert (bare.quality, bare.error) == (MSE, 0.001)


def test_the_report_has_both_verdicts_and_the_savings_over_recall():
    ours = [POINTS[0], point(OURS, 150.0, 0.78, 0.003, 100_000, "b")]
    points = [*ours, *POINTS[1:]]
    by_recall = RECALL.of(points)
    result = {
        "data_set": "files",
        "samples": "float32 12",
        "row_counts": {"measured": 1000, "train": 5000, "validation": 500, "test": 1000},
        "date": "2026-11-30",
        "machine": {"processor": "x", "cpus": 2, "threads": 1, "cuda": None, "load": 0.0, "versions": {}},
        "mean_mse": 0.01,
        "warnings": [],
        "verdict": asdict(judge(points, 1000)),
        "verdict_by_recall": asdict(judge(by_recall, 1000)),
        "bd_rate": [asdict(saving) for saving in savings(points, 1000)],
        "bd_rate_by_recall": [asdict(saving) for saving in savings(by_recall, 1000)],
        "left_out": [],
        "rows": [each.as_dict() for each in points],
    }
    text = format_report(result)
    assert text.index("## Verdict, at equal recall at 10") < text.index("## Verdict, at equal MSE")
    assert "| PCA | not counted | -2" in text
    assert "| 0.71 to 0.78 |" in text
    assert "SSIM" not in text
    assert "recall at 10" in draw(result).axes[0].get_ylabel()
