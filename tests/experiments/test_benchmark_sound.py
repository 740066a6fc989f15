"""The benchmark of sound: whole clips through FLAC and Opus, in kbit/s, judged by SNR and by what is heard."""

from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pyarrow.compute as pc
import pytest
import soundfile

from ae_pipeline.data.splits import write_splits
from ae_pipeline.evaluation.measures.metrics import psnr_of
from ae_pipeline.experiments.benchmark.curves import savings
from ae_pipeline.experiments.benchmark.points import LOG_MEL, OURS, snr_of, snr_quality, take_rows
from ae_pipeline.experiments.benchmark.report import draw, format_report
from ae_pipeline.experiments.benchmark.run import measure
from ae_pipeline.experiments.benchmark.sound_codecs import _Clip, _opus, measure_sound_codecs, packet_bytes
from ae_pipeline.experiments.benchmark.verdict import judge
from ae_pipeline.params import Params, PrepareParams, SourceParams
from ae_pipeline.sources import build_source
from ae_pipeline.training.batches import fit_scaling

RANDOM = np.random.default_rng(0)
SECONDS = [0.5, 0, 0.3, 1.0]


def speech(seconds, rate, channels):
    """Tones that glide, with some noise."""
    time = np.arange(round(seconds * rate))[:, None] / rate
    tones = sum(np.sin(2 * np.pi * (f + 200 * time) * time) / f for f in (200, 450, 1100, 2500))
    return (60 * tones + 0.01 * RANDOM.normal(size=(len(time), channels))).clip(-1, 1) * 0.5


def prepared(folder, rate=8000, channels=1, subtype="PCM_16"):
    (folder / "clips").mkdir(parents=True)
    for number, seconds in enumerate(SECONDS * 4):
        soundfile.write(folder / f"clips/{number}.wav", speech(seconds, rate, channels), rate, subtype)
    (folder / "raw").mkdir()
    files = {"path": str(folder / "clips"), "kind": "audio", "test_fraction": 0.4}
    source = build_source(SourceParams.model_validate({"name": "files", "files": files}))
    source.fetch(folder / "raw")
    return write_splits(source.read(folder / "raw"), folder / "prepared", PrepareParams())


def taken(folder, most=10_000, **how):
    sets = prepared(folder, **how)
    return take_rows(sets["test"], most, fit_scaling(sets["train"]), folder / "taken"), sets["train"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    rows, _ = taken(tmp_path_factory.mktemp("sound"))
    points, left_out = measure_sound_codecs(rows)
    assert left_out == []
    return rows, {point.name: point for point in points}


def test_flac_keeps_clips_and_opus_is_nearer_the_more_it_may_take(measured):
    rows, points = measured
    assert len(points) == 1 + 2 * 10
    assert (points["FLAC 8"].mse, points["FLAC 8"].metrics["log_mel_distance"]) == (0, 0)
    assert points["FLAC 8"].metrics["snr"] is None
    files = [points[f"Opus files {bits} kbit/s"] for bits in (6, 16, 64)]
    for few, many in pairwise(files):
        assert few.bits_per_row < many.bits_per_row
        assert few.metrics["log_mel_distance"] > many.metrics["log_mel_distance"]
        assert few.metrics["snr"] < many.metrics["snr"]
    assert {point.measured_rows for point in points.values()} == {len(rows)}


def test_what_counts_of_a_file_is_its_packets_or_all_of_it(measured):
    rows, points = measured
    for bits in (6, 64):
        whole, packets = (points[f"Opus {what} {bits} kbit/s"] for what in ("files", "packets"))
        assert whole.mse == packets.mse
        assert packets.codec_bytes == 19
        # Both headers of each file that has any samples, and a header of each page.
        clips = len(set(rows.attributes.filter(pc.field("clip_samples") > 0).column("record").to_pylist()))
        apart = (whole.bits_per_row - packets.bits_per_row) * len(rows) / 8
        assert 800 * clips < apart < 1000 * clips
    file = _opus(_Clip(speech(1, 8000, 1), 8000, "PCM_16"), 16_000)
    assert file.count(b"OggS") >= 3
    assert 0 < packet_bytes(file) < len(file) - 27 * file.count(b"OggS") - 19


def test_bits_are_kbit_a_second_of_sound(measured):
    rows, points = measured
    lengths = rows.attributes.filter(rows.attributes.column("frame").to_numpy() == 0).column("clip_samples")
    seconds = sum(lengths.to_pylist()) / 8000
    point = points["FLAC 8"]
    assert point.bits_per_row * point.rows_per_second == pytest.approx(point.bits_per_row * len(rows) / seconds)


@pytest.mark.parametrize(("rate", "channels", "subtype"), [(11_025, 2, "PCM_24"), (44_100, 1, "FLOAT")])
def test_other_rates_channels_and_samples(rate, channels, subtype, tmp_path, monkeypatch):
    monkeypatch.setattr("ae_pipeline.experiments.benchmark.sound_codecs._OPUS_BITS", (64_000,))
    rows, _ = taken(tmp_path, rate=rate, channels=channels, subtype=subtype)
    points, left_out = measure_sound_codecs(rows)
    if subtype == "FLOAT":
        assert left_out == ["FLAC: clips of FLOAT are none that it keeps exactly"]
    else:
        assert points[0].mse == 0
    assert points[-1].metrics["snr"] > 10


def test_clips_are_taken_whole(tmp_path):
    sets = prepared(tmp_path)
    ends = np.flatnonzero(np.diff(sets["test"].load().attributes.column("record").to_numpy())) + 1
    for most, wanted in (
        (int(ends[1]) + 1, ends[1]),
        (int(ends[1]), ends[1]),
        (1, ends[0]),
        (10**6, sets["test"].rows),
    ):
        rows = take_rows(sets["test"], most, fit_scaling(sets["train"]), tmp_path / f"taken{most}")
        assert len(rows) == wanted
        assert rows.metrics(rows.pixels)["log_mel_distance"] == 0


def result_of(points, rows):
    by_ear, by_error = LOG_MEL.of(points), snr_quality(rows.mean_mse).of(points)
    return {
        "data_set": "files",
        "samples": rows.samples.spec.describe(),
        "row_counts": {"measured": len(rows), "train": 7},
        "date": "2026-11-30",
        "mean_mse": rows.mean_mse,
        "rows_per_second": rows.rows_per_second,
        "warnings": [],
        "machine": {"processor": "x", "cpus": 1, "threads": 1, "cuda": None, "load": 0, "versions": {}},
        "verdict": asdict(judge(by_error, len(rows))),
        "bd_rate": [asdict(saving) for saving in savings(by_error, len(rows))],
        "verdict_by_log_mel_distance": asdict(judge(by_ear, len(rows))),
        "bd_rate_by_log_mel_distance": [asdict(saving) for saving in savings(by_ear, len(rows))],
        "left_out": [],
        "rows": [point.as_dict() for point in points],
    }


def test_the_verdicts_say_in_numbers_where_the_autoencoder_loses(measured):
    """A codec of ours whose samples are as near as Opus's at three times its bits, and which sounds worse."""
    rows, points = measured
    opus = points["Opus packets 16 kbit/s"]
    metrics = {**points["Opus packets 48 kbit/s"].metrics, "log_mel_distance": opus.metrics["log_mel_distance"] + 0.01}
    bits = 0.9 * opus.bits_per_row + 0.1 * points["Opus packets 24 kbit/s"].bits_per_row
    ours = [replace(opus, name="sound (coded)", family=OURS, setting="coded", bits_per_row=bits, metrics=metrics)]
    result = result_of([*ours, *points.values()], rows)
    (by_error,), (by_ear,) = (result[name]["choices"] for name in ("verdict", "verdict_by_log_mel_distance"))
    assert (by_error["use"], by_ear["use"]) == (OURS, "Opus packets")
    own = rows.rows_per_second * ours[0].bits_per_row / 1000
    snr = ours[0].metrics["snr"]
    assert by_error["sentence"].startswith(f"At an SNR of {snr:.1f} dB and {len(rows):,} rows: use sound")
    assert by_ear["sentence"].startswith("At a log-mel distance of ")
    assert f" takes {own:,.1f} kbit/s (" in by_ear["sentence"]
    text = format_report(result)
    assert "## Verdict, at equal log-mel distance: what is heard" in text
    assert "## Verdict, at equal SNR: the samples" in text
    assert (
        "| | kbit/s | bits per row | with codec | MSE | PSNR, dB | SNR, dB | segmental SNR, dB | log-mel distance, dB |"
        in text
    )
    assert "| **sound" in text
    figure = draw(result)
    assert [axis.get_ylabel() for axis in figure.axes][::2] == ["SNR, dB", "log-mel distance, dB (less is nearer)"]


def test_an_error_is_the_snr_that_it_leaves():
    assert snr_of(0.001, 0.1) == pytest.approx(20)
    assert snr_of(0, 0.1) is None
    assert psnr_of(0.001) == pytest.approx(30)
    assert snr_quality(0.1).words(0.001) == "an SNR of 20.0 dB"


@pytest.mark.slow
def test_sound_is_measured_against_what_is_fair_for_it(tmp_path):
    rows, train = taken(tmp_path)
    params = Params()
    bench = params.bench.model_copy(update={"pca_sizes": [32], "pca_levels": [16]})
    points, left_out = measure(rows, train, {}, params.model_copy(update={"bench": bench}))
    families = {point.family for point in points}
    assert {"PCA", "FLAC", "Opus files", "Opus packets", "zstd", "Parquet"} <= families
    assert not families & {"PQ", "OPQ", "integers", "WebP mosaic", "JPEG mosaic"}
    assert all("one byte" not in reason and "WebP" not in reason for reason in left_out)
    assert all("recall_at_10" not in point.metrics and "cosine" not in point.metrics for point in points)
    assert any("step" in point.setting for point in points if point.family == "PCA")
