"""Metrics of whole clips: as anybody would compute them from the WAV files, however the rows come."""

import io
import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from handmade import random_codec
from PIL import Image

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.blocks import Block, joined
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import GateError
from ae_pipeline.evaluation.evaluate import evaluate_codec
from ae_pipeline.evaluation.gate import check_gate
from ae_pipeline.evaluation.measures.metrics import METRICS, Metric, ssim
from ae_pipeline.evaluation.measures.records.errors import measure_blocks, several_kind
from ae_pipeline.evaluation.measures.records.sound import LogMelDistance, SegmentalSnr, SoundSnr
from ae_pipeline.evaluation.pictures import write_pictures, write_tables
from ae_pipeline.kinds import build_kind
from ae_pipeline.kinds.state import Form, KindState, entry_of
from ae_pipeline.operation.champion.comparison import compare_codecs
from ae_pipeline.params import EncodeParams, GateParams
from ae_pipeline.params.operation import PromotionParams
from ae_pipeline.sources.own_files.opening import open_data

RANDOM = np.random.default_rng(0)
RATE = 8000
LINE = {"clip_rate": RATE}
SCALING = Scaling(offset=-1.0, scale=2.0)
CPU = EncodeParams(device="cpu")
KIND = build_kind("audio")
KIND_SPEC = SampleSpec((64,), "float32")
STATE = KIND.State(form=Form(sort="files"), block=32, frame=64, rate=RATE)


def sounds(samples, channels=1, noise=0.05):
    time = np.arange(samples)[:, None] / RATE
    clip = 0.4 * np.sin(2 * np.pi * (300 + 2000 * time) * time) + 0.01 * RANDOM.normal(size=(samples, channels))
    clip[: samples // 4] *= 0.001
    return clip, clip + noise * RANDOM.normal(size=clip.shape)


def measured(make, original, decoded, size=777):
    measure = make(LINE)
    for start in range(0, max(1, len(original)), size):
        measure.add(original[start : start + size], decoded[start : start + size])
    return measure.value()


def segmental_by_hand(original, decoded):
    found = []
    for start in range(0, len(original) - 159, 160):
        x, y = original[start : start + 160], decoded[start : start + 160]
        found.append(np.clip(10 * np.log10((x**2).sum() / ((x - y) ** 2).sum()), -10, 35))
    return np.mean(found)


def log_mel_by_hand(original, decoded):
    """Bands as sums over bins, one window after the other."""
    top = 2595 * np.log10(1 + 4000 / 700)
    edges = [700 * (10 ** (top * n / 41 / 2595) - 1) for n in range(42)]
    shape = np.array([0.5 - 0.5 * np.cos(2 * np.pi * (n + 1) / 201) for n in range(200)])

    def energies(window):
        power = np.abs(np.fft.rfft(window * shape, 512)) ** 2 / (512 * (shape**2).sum() / 4)
        bands = np.zeros(40)
        for band, (low, middle, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
            for place, value in enumerate(power):
                hertz = place * RATE / 512
                if low < hertz < high:
                    bands[band] += value * min((hertz - low) / (middle - low), (high - hertz) / (high - middle))
        return 10 * np.log10(np.maximum(bands, 1e-8))

    starts = range(0, len(original) - 199, 80)
    return np.mean([np.abs(energies(original[n : n + 200]) - energies(decoded[n : n + 200])).mean() for n in starts])


def test_metrics_are_those_of_the_plain_definitions_however_a_clip_is_cut():
    original, decoded = sounds(3000)
    expected = {
        SoundSnr: 10 * np.log10((original**2).sum() / ((original - decoded) ** 2).sum()),
        SegmentalSnr: segmental_by_hand(original[:, 0], decoded[:, 0]),
        LogMelDistance: log_mel_by_hand(original[:, 0], decoded[:, 0]),
    }
    for make, value in expected.items():
        for size in (13, 777, 5000):
            assert measured(make, original, decoded, size) == pytest.approx(value, rel=1e-9), make


def test_a_sine_of_full_scale_has_an_energy_of_one_and_what_is_below_80_decibel_does_not_count():
    time = np.arange(RATE)[:, None] / RATE
    sine = np.sin(2 * np.pi * 1000 * time)
    assert measured(LogMelDistance, sine, 0.5 * sine) < 20 * np.log10(2) + 0.01
    assert measured(LogMelDistance, 1e-4 * sine, 5e-5 * sine) == 0
    assert measured(LogMelDistance, 1e-3 * sine, 5e-4 * sine) > 0.05


def test_ends_of_the_scales():
    clip, other = sounds(1000)
    silence = np.zeros_like(clip)
    values = {
        make: [measured(make, *pair) for pair in ((clip, clip), (silence, silence), (silence, other))]
        for make in (SoundSnr, SegmentalSnr, LogMelDistance)
    }
    assert values[SoundSnr] == [np.inf, pytest.approx(np.nan, nan_ok=True), pytest.approx(np.nan, nan_ok=True)]
    assert values[SegmentalSnr] == [35, 35, -10]
    assert values[LogMelDistance][:2] == [0, 0]
    assert values[LogMelDistance][2] > 20
    for make in values:
        empty = measured(make, clip[:0], clip[:0])
        assert np.isnan(empty)
        assert not np.isnan(measured(make, clip[:7], other[:7]))


def rows_of(clip, record, subtype="PCM_16"):
    """(the samples as the file has them, the rows as a block)."""
    file = io.BytesIO()
    soundfile.write(file, clip, RATE, subtype, format="WAV")
    (found,) = KIND.to_rows(pa.array([file.getvalue()], pa.binary()), str, STATE)
    pieces = list(found.pieces)
    names = KIND.row_columns(STATE).names
    columns = {name: np.concatenate([values[name] for _, values in pieces]) for name in names}
    rows = np.concatenate([values for values, _ in pieces])
    table = pa.table(
        {"id": range(len(rows)), "record": [record] * len(rows), "source_file": [f"{record}.wav"] * len(rows)}
    )
    for name in names:
        table = table.append_column(
            KIND.row_columns(STATE).field(name), pa.array(columns[name], KIND.row_columns(STATE).field(name).type)
        )
    file.seek(0)
    return soundfile.read(file, always_2d=True)[0], Block(table, rows)


def cut(block, size):
    return [block[start : start + size] for start in range(0, len(block), size)]


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_clips_are_measured_as_their_files_are_and_one_that_lacks_rows_is_counted(size):
    wanted, before, after = [], [], []
    for number, (samples, channels) in enumerate([(1000, 1), (0, 1), (2501, 2), (900, 1)]):
        one, other = sounds(samples, channels)
        files, blocks = zip(*(rows_of(clip, number) for clip in (one, other)), strict=True)
        wanted.append([measured(make, *files) for make in (SoundSnr, SegmentalSnr, LogMelDistance)])
        before.append(blocks[0])
        after.append(Block(blocks[0].attributes, blocks[1].pixels))
    pairs = [cut(joined(blocks)[:-1], size) for blocks in (before, after)]
    found = measure_blocks(zip(*pairs, strict=True), SCALING, "audio", KIND, STATE)
    assert found.incomplete == 1
    assert found.table.column("record").to_pylist() == [0, 1, 2]
    assert found.table.column("source_file").to_pylist() == ["0.wav", "1.wav", "2.wav"]
    assert found.table.column("rows").to_pylist() == [16, 1, 80]
    names = ["clip_snr", "segmental_snr", "log_mel_distance"]
    lines = np.array([found.table.column(name).to_numpy() for name in names]).T
    np.testing.assert_allclose(lines, wanted[:3], rtol=1e-6)
    means = found.means()
    assert (means["records"], means["records_incomplete"]) == (3, 1)
    for place, name in enumerate(names):
        assert means[name] == pytest.approx(np.mean([wanted[0][place], wanted[2][place]]), rel=1e-6)
    rows = joined(before)[:16].pixels.astype(float), joined(after)[:16].pixels
    assert found.table.column("mse")[0].as_py() == pytest.approx(np.square((rows[1] - rows[0]) / 2).mean())


def test_what_came_back_whole_has_no_snr_and_perfect_others():
    _, block = rows_of(sounds(900)[0], 0)
    means = measure_blocks([(block, block)], SCALING, "audio", KIND, STATE).means()
    assert (means["clip_snr"], means["segmental_snr"], means["log_mel_distance"]) == (None, 35, 0)
    assert METRICS["clip_snr"].words(means["clip_snr"]) == "lossless"


def test_memory_is_that_of_a_piece_however_long_a_clip_is():
    def blocks(count):
        _, block = rows_of(sounds(6400)[0], 0)
        for number in range(count):
            columns = block.attributes.to_pydict()
            columns["frame"] = [frame + 100 * number for frame in columns["frame"]]
            columns["clip_samples"] = [6400 * count] * 100
            attributes = pa.table(columns, schema=block.attributes.schema)
            yield Block(attributes, block.pixels.copy()), Block(attributes, block.pixels + np.float32(0.01))

    peaks = []
    for count in (10, 10, 80):  # the first time loads what is needed
        tracemalloc.start()
        assert measure_blocks(blocks(count), SCALING, "audio", KIND, STATE).means()["records_incomplete"] == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1]


def test_records_of_a_kind_without_metrics_have_their_error_alone():
    _, block = rows_of(sounds(900)[0], 0)
    found = measure_blocks([(block, block)], SCALING, "somebodys", KIND, STATE)
    assert found.table.to_pylist() == [{"record": 0, "source_file": "0.wav", "rows": 15, "mse": 0}]
    assert found.means() == {"records": 1, "records_incomplete": 0}


def test_records_of_one_row_each_have_none():
    assert several_kind(None) is None
    assert several_kind(entry_of("vector", KindState(form=Form(sort="files")))) is None
    assert several_kind(entry_of("audio", STATE))[0].several


class Length:
    """A metric that somebody adds: seconds of a clip."""

    def __init__(self, line):
        self.samples, self.rate = 0, line["clip_rate"]

    def add(self, original, decoded):
        assert original.shape == decoded.shape
        self.samples += len(original)

    def value(self):
        return self.samples / self.rate


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips in a folder, and a codec for their frames that knows nothing."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "clips").mkdir()
    for number, samples in enumerate((4000, 800, 1600)):
        soundfile.write(folder / f"clips/{number}.wav", sounds(samples, 1 + number % 2)[0], RATE)
    soundfile.write(folder / "clips/silent.wav", np.zeros(160), RATE)
    soundfile.write(folder / "clips/without.wav", np.zeros(0), RATE)
    random_codec(folder / "codec", (64,), "float32", kind=entry_of("audio", STATE))
    random_codec(folder / "another", (64,), "float32", seed=1, kind=entry_of("audio", STATE))
    return folder


@pytest.mark.slow
def test_a_metric_of_records_that_is_added_is_where_the_others_are(clips, ae, tmp_path, monkeypatch):
    metric = Metric("seconds", "lower", "length, s", 2, of_records=Length, of_kind="audio")
    monkeypatch.setitem(METRICS, "seconds", metric)
    samples = open_data(clips / "clips", entry_of("audio", STATE), KIND_SPEC)
    evaluation = evaluate_codec(clips / "codec", samples, CPU, train=samples)
    metrics = evaluation.metrics
    assert metrics["records"] == 5
    assert metrics["seconds"] == metrics["pca_seconds"] == pytest.approx((0.5 + 0.1 + 0.2 + 0.02) / 5)
    assert {"clip_snr", "segmental_snr", "log_mel_distance", "pca_log_mel_distance"} <= metrics.keys()
    # A frame is no vector that anybody searches.
    assert not metrics.keys() & {"cosine", "recall_at_10", "pca_cosine", "pca_recall_at_10"}
    write_tables(tmp_path, evaluation)
    table = pq.read_table(tmp_path / "records.parquet")
    assert table.column_names[:4] == ["record", "source_file", "rows", "mse"]
    assert table.column("seconds").to_pylist() == [0.5, 0.1, 0.2, 0.02, 0]
    with pytest.raises(GateError, match=r"seconds is 0.164, the gate asks for at most 0.1"):
        check_gate(metrics, GateParams(beat_pca=False, max_seconds=0.1))
    verdict = compare_codecs(clips / "codec", clips / "another", samples, PromotionParams(), CPU)
    assert verdict.as_dict()["challenger"]["seconds"] == metrics["seconds"]
    assert "| log_mel_distance | " in verdict.as_markdown()
    assert ae("encode", clips / "clips", "--codec", clips / "codec", "--store", tmp_path / "store")[0] == 0
    code, out, _ = ae("evaluate", clips / "clips", "--store", tmp_path / "store", "--json")
    assert code == 0
    assert json.loads(out)["log_mel_distance"] == pytest.approx(metrics["log_mel_distance"])


@pytest.mark.slow
def test_the_report_shows_clips_and_no_frames_as_pictures(clips, tmp_path):
    samples = open_data(clips / "clips", entry_of("audio", STATE), KIND_SPEC)
    evaluation = evaluate_codec(clips / "codec", samples, CPU)
    chosen = {clip.title: clip for clip in evaluation.sounds}
    table = evaluation.rows.records.table
    distances = dict(zip(table["source_file"].to_pylist(), table["log_mel_distance"].to_pylist(), strict=True))
    del distances["without.wav"]
    assert chosen["worst"].columns["source_file"] == max(distances, key=distances.get)
    assert chosen["best"].columns["source_file"] == min(distances, key=distances.get)
    for clip in evaluation.sounds:
        original, _ = soundfile.read(clips / "clips" / clip.columns["source_file"], always_2d=True)
        np.testing.assert_array_equal(clip.original, original)
        assert clip.decoded.shape == original.shape
    write_pictures(tmp_path, evaluation, None)
    assert {path.name for path in tmp_path.iterdir()} == {"sounds.png", "error_histogram.png", "rate_distortion.png"}
    with Image.open(tmp_path / "sounds.png") as picture:
        grey = np.asarray(picture.convert("L"))
    assert 0.05 < (grey < 250).mean() < 0.9
    write_pictures(tmp_path / "again", evaluation, None)
    assert (tmp_path / "again/sounds.png").read_bytes() == (tmp_path / "sounds.png").read_bytes()


TILED = build_kind("image")


@pytest.mark.parametrize(
    ("size", "colour"), [((30, 41), None), ((30, 41, 3), None), ((9, 40, 3), "rgb"), ((2, 5), "rgb"), ((40, 3), None)]
)
def test_metrics_of_a_picture_are_those_of_all_its_pixels_at_once(size, colour):
    state = TILED.State(form=Form(sort="files"), tile=8, colour=colour)
    original = RANDOM.integers(0, 255, size, dtype=np.uint8)
    (found,) = TILED.to_rows(pa.array([picture_file(original)]), str, state)
    pieces = list(found.pieces)
    rows = np.concatenate([rows for rows, _ in pieces])
    columns = {name: np.concatenate([values[name] for _, values in pieces]) for name in pieces[0][1]}
    noisy = np.clip(rows + RANDOM.integers(-9, 9, rows.shape), 0, 255).astype(np.uint8)
    noisy[..., 1:] = noisy[..., :1] if colour and len(size) == 2 else noisy[..., 1:]
    attributes = pa.table({"id": np.arange(len(rows)), "record": np.zeros(len(rows), int), **columns})
    (file,) = TILED.from_rows(noisy, attributes, state).to_pylist()
    decoded = np.asarray(Image.open(io.BytesIO(file["bytes"])))
    blocks = [(Block(attributes, rows)[at : at + 5], Block(attributes, noisy)[at : at + 5]) for at in range(0, 90, 5)]
    scaling = Scaling(offset=0.0, scale=255.0)
    result = measure_blocks([pair for pair in blocks if len(pair[0])], scaling, "image", TILED, state)
    (line,) = result.table.to_pylist()
    x, y = (pixels[None] / 255 for pixels in (original, decoded))
    np.testing.assert_allclose(line["picture_psnr"], -10 * np.log10(np.square(x - y).mean()))
    np.testing.assert_allclose(line["picture_ssim"], ssim(original=x, decoded=y)[0])
    assert np.isnan(line["picture_ssim"]) == (size[0] < 3)
    assert result.means()["picture_psnr"] == line["picture_psnr"]
    short = [(before[:-1], after[:-1]) for before, after in blocks if len(before)]
    assert len(rows) == 1 or measure_blocks(short[-1:], scaling, "image", TILED, state).incomplete == 1


def picture_file(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
