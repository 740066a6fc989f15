"""The file drift_reference.json: thresholds for any number of rows, and a file that is whole or refused."""

import json

import numpy as np
import pytest

from ae_pipeline.errors import CodecError, DataError
from ae_pipeline.evaluation.drift.reference import Calibrated, read_reference, write_reference

# The thresholds.


@pytest.mark.slow
def test_thresholds_fall_with_the_number_of_rows(calibrated):
    found = np.array([calibrated[1].thresholds(rows) for rows in (1, 5, 20, 50, 93, 200, 700, 3000, 10**5, 10**9)])
    assert (np.diff(found, axis=0) <= 0).all()
    assert (found[0] > 0.9).all()
    assert (found[3] > 2 * found[-1]).all()
    last = calibrated[1].calibration[-1]
    assert found[-1] == pytest.approx((last.error_drift, last.latent_drift))


@pytest.mark.slow
def test_few_rows_have_thresholds_by_the_square_root(calibrated):
    few, fewer = (calibrated[1].thresholds(rows)[1] for rows in (40, 10))
    # Nearly: 40 and 10 rows beside 6,000 held-out ones.
    assert fewer == pytest.approx(2 * few, rel=0.01)


def test_thresholds_between_calibrated_sizes_lie_between_theirs(tiny_reference):
    lines = [Calibrated(rows=100, error_drift=0.4, latent_drift=0.2)]
    lines.append(Calibrated(rows=400, error_drift=0.2, latent_drift=0.1))
    reference = tiny_reference.model_copy(update={"calibration": lines, "held_out_rows": 10**9})
    assert reference.thresholds(200) == pytest.approx((0.3, 0.15))
    assert reference.thresholds(25) == pytest.approx((0.8, 0.4))
    assert reference.thresholds(4000) == pytest.approx((0.2, 0.1))


# The file.


def test_a_reference_survives_its_file_and_is_small(calibrated, tmp_path):
    path = tmp_path / "reports" / "drift_reference.json"
    write_reference(path, calibrated[1])
    assert read_reference(path) == calibrated[1]
    assert read_reference(path, calibrated[1].codec_fingerprint) == calibrated[1]
    assert path.stat().st_size < 40_000


def test_the_reference_of_another_codec_is_refused(tiny_reference, tmp_path):
    write_reference(tmp_path / "reference.json", tiny_reference)
    with pytest.raises(
        CodecError, match=f"is of the codec {tiny_reference.codec_fingerprint[:12]}.*expected 000000000000"
    ):
        read_reference(tmp_path / "reference.json", "0" * 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2, expected 1"),
        ({"levels": 17}, "latent_counts must have one count for each of the levels"),
        ({"train_rows": 5}, "counts must sum to train_rows"),
        ({"error_edges": [2.0, 1.0]}, "error_edges must rise"),
        ({"error_counts": [1, 2]}, "error_counts must have two values"),
        ({"calibration": []}, "calibration: "),
        ({"calibration": [{"rows": 9, "error_drift": 0.1, "latent_drift": 1.5}]}, "less than or equal to 1"),
        ({"calibration": [{"rows": 9, "error_drift": 0.1, "latent_drift": 0.1}] * 2}, "must rise in rows"),
        ({"codec_fingerprint": "abc"}, "codec_fingerprint: "),
        ({"more": 1}, "more: "),
    ],
)
def test_a_damaged_reference_says_what_is_wrong(change, message, tiny_reference, tmp_path):
    path = tmp_path / "reference.json"
    path.write_text(json.dumps({**tiny_reference.model_dump(mode="json"), **change}))
    with pytest.raises(DataError, match=message) as caught:
        read_reference(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 1}'])
def test_what_is_no_reference_is_refused(content, tmp_path):
    path = tmp_path / "reference.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=str(path)):
        read_reference(path)


def test_a_missing_reference_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(DataError, match=r"no drift reference at .*dvc repro evaluate"):
        read_reference(tmp_path / "none.json")
