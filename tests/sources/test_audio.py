"""Kind `audio`: clips become lapped frames, and WAV files again; what cannot be kept is refused by name."""

import io

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from own_files import pieces_of

from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.splits import write_splits
from ae_pipeline.errors import DataError
from ae_pipeline.kinds import build_kind, open_kind
from ae_pipeline.kinds.sound.lapped import frames_of, lap, unlap
from ae_pipeline.kinds.state import Form, entry_of
from ae_pipeline.params import PrepareParams, SourceParams
from ae_pipeline.sources import build_source

KIND = build_kind("audio")
RANDOM = np.random.default_rng(0)


def tone(samples, channels=1, rate=8000):
    time = np.arange(samples)[:, None] / rate
    return 0.4 * np.sin(2 * np.pi * (300 + 100 * np.arange(channels)) * time) + 0.1 * RANDOM.normal(
        size=(samples, channels)
    ).clip(-3, 3)


def sound(path, samples=3000, channels=1, rate=8000, **how):
    soundfile.write(path, tone(samples, channels, rate), rate, **how)
    return path


def state_of(*paths, **settings):
    return KIND.fit(Form(sort="files"), KIND.Options(**settings), iter(paths))


@pytest.mark.parametrize("samples", [0, 1, 15, 16, 17, 1000])
@pytest.mark.parametrize(("frame", "block"), [(16, 16), (32, 8)])
def test_frames_have_the_energy_of_the_samples_and_lead_back_to_them_however_they_are_cut(samples, frame, block):
    x = RANDOM.normal(size=(samples, 2))
    found = []
    for most, size in ((1, 7), (3, 1000), (100, 13)):
        pieces = [x[start : start + size] for start in range(0, max(1, samples), size)]
        found.append(np.concatenate(list(lap(pieces, samples, frame, block, most))))
    assert found[0].shape == (frames_of(samples, frame), frame, 2)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    np.testing.assert_allclose(np.square(found[0]).sum(), np.square(x).sum())
    back = np.concatenate(list(unlap([found[0][start : start + 2] for start in range(0, len(found[0]), 2)], block)))
    np.testing.assert_allclose(back[:samples], x, atol=1e-12)


def test_an_error_in_one_frame_fades_into_its_neighbours():
    frames = np.concatenate(list(lap([np.zeros((640, 1))], 640, 64, 64, 100)))
    frames[4] += 1
    heard = np.concatenate(list(unlap([frames], 64)))[:, 0]
    assert not heard[: 4 * 64 - 32].any()
    # Cut hard, it would begin with a step of 1; here no step between two samples is a tenth of that.
    edge = heard[4 * 64 - 32 : 4 * 64 + 32]
    assert np.abs(edge).max() > 0.5
    assert np.abs(np.diff(np.concatenate([[0.0], edge[:30]]))).max() < 0.1


@pytest.mark.parametrize(
    ("name", "channels", "samples", "how"),
    [
        ("a.wav", 1, 0, {}),
        ("a.wav", 1, 5000, {}),
        ("a.wav", 2, 100_001, {}),
        ("a.wav", 2, 777, {"subtype": "PCM_24"}),
        ("a.wav", 1, 777, {"subtype": "PCM_U8"}),
        ("a.flac", 1, 777, {"subtype": "PCM_24"}),
        ("a.flac", 2, 777, {"subtype": "PCM_16"}),
        ("a.wav", 1, 777, {"subtype": "FLOAT"}),
        ("a.ogg", 2, 3000, {"subtype": "VORBIS"}),
    ],
)
def test_a_clip_comes_back_with_its_length_rate_channels_and_samples(name, channels, samples, how, tmp_path):
    path = sound(tmp_path / name, samples, channels, **how)
    state = state_of(path)
    _, again = open_kind(KindEntry.model_validate_json(entry_of("audio", state).model_dump_json()), "here")
    assert again == state
    rows, columns = pieces_of(KIND.read_file(path, state), KIND, state)
    assert rows.dtype == np.float32
    pieces = [(rows[start : start + 7], columns.slice(start, 7)) for start in range(0, len(rows), 7)]
    KIND.write(pieces, tmp_path / "out.wav", state)
    before, rate = soundfile.read(path, always_2d=True)
    after, new_rate = soundfile.read(tmp_path / "out.wav", always_2d=True)
    assert (rate, before.shape) == (new_rate, after.shape)
    lossy = how.get("subtype") == "VORBIS"
    assert soundfile.info(tmp_path / "out.wav").subtype == ("PCM_16" if lossy else soundfile.info(path).subtype)
    np.testing.assert_allclose(after, before, atol=2**-15 if lossy else 6e-8 if how.get("subtype") == "FLOAT" else 0)
    with pytest.raises(FileExistsError):
        KIND.write(pieces, tmp_path / "out.wav", state)
    twice = pa.concat_tables([columns, columns])
    made = KIND.from_rows(np.concatenate([rows, rows]), twice, state)
    assert [one["bytes"] for one in made.to_pylist()] == [(tmp_path / "out.wav").read_bytes()] * 2
    (from_bytes,) = KIND.to_rows(made[1:], str, state)
    np.testing.assert_array_equal(pieces_of(from_bytes, KIND, state)[0].shape, rows.shape)
    if len(rows) > 1:
        with pytest.raises(DataError, match="decode all rows of its record"):
            KIND.from_rows(rows[:-1], columns[:-1], state)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_a_file_that_was_cut_short_is_named_and_not_taken_for_a_shorter_one(name, tmp_path):
    path = sound(tmp_path / name, 8000)
    state, whole = state_of(path), path.read_bytes()
    for size in (0, 10, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        found = KIND.read_file(path, state)
        assert isinstance(found, DataError)
        assert str(found).startswith(f"{path} ")
    if name != "a.wav":
        path.write_bytes(
            whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 255]) + whole[len(whole) // 2 + 1 :]
        )
        assert "damaged" in str(KIND.read_file(path, state))


def test_what_cannot_be_kept_is_refused_by_name(tmp_path):
    first = sound(tmp_path / "a.wav")
    other, many = sound(tmp_path / "b.wav", rate=44_100), sound(tmp_path / "c.wav", channels=3)
    state = state_of(first)
    assert "has 44,100 samples a second, expected 8,000" in str(KIND.read_file(other, state))
    assert "has 3 channels, expected 1 or 2" in str(KIND.read_file(many, state))
    with pytest.raises(
        DataError, match=r"2 rates of samples a second: 1 of 8,000 \(.*a.wav\), 1 of 44,100 \(.*b.wav\)"
    ):
        state_of(first, other)
    resampling = state_of(first, other, rate=8000)
    _, columns = pieces_of(KIND.read_file(other, resampling), KIND, resampling)
    assert columns.column("clip_rate")[0].as_py() == 8000
    assert abs(columns.column("clip_samples")[0].as_py() - 3000 * 8000 / 44_100) <= 1
    for value, why in ((np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (99.0, "has a sample of 99")):
        samples = tone(300)
        samples[7] = value
        soundfile.write(tmp_path / "d.wav", samples, 8000, subtype="FLOAT")
        with pytest.raises(DataError, match=why):
            KIND.read_file(tmp_path / "d.wav", state)
    with pytest.raises(DataError, match="is an array, expected sound files"):
        KIND.refuse_array((5, 6), np.dtype("float32"), "here")
    pipe = bytearray(first.read_bytes())
    pipe[40:44] = b"\xff" * 4
    first.write_bytes(pipe)
    assert "does not say how long it is" in str(KIND.read_file(first, state))


def test_a_missing_record_of_a_column_is_said_and_others_are_read(tmp_path):
    path = sound(tmp_path / "a.wav")
    state = state_of(path)
    column = pa.array([path.read_bytes(), None], pa.binary())
    assert KIND.takes(column.type)
    assert not KIND.takes(pa.string())
    found, missing = KIND.to_rows(column, lambda number: f"place {number}", state)
    np.testing.assert_array_equal(
        pieces_of(found, KIND, state)[0], pieces_of(KIND.read_file(path, state), KIND, state)[0]
    )
    assert str(missing).startswith("place 1 has no sound")


def test_clips_go_into_splits_whole_and_damaged_ones_are_counted(tmp_path):
    (tmp_path / "clips").mkdir()
    for number in range(12):
        sound(tmp_path / f"clips/{number:02}.wav", 200 + 100 * number, 1 + number % 2)
    file = io.BytesIO()
    soundfile.write(file, tone(500), 8000, format="WAV")
    (tmp_path / "clips/cut.wav").write_bytes(file.getvalue()[:-100])
    (tmp_path / "raw").mkdir()
    options = {"path": str(tmp_path / "clips"), "kind": "audio", "settings": {"block": 32, "blocks": 2}}
    with pytest.raises(DataError, match=r"1 record\(s\) or file\(s\) that cannot be read: .*cut.wav was cut short"):
        build_source(SourceParams.model_validate({"name": "files", "files": options})).fetch(tmp_path / "raw")
    options["skip_unreadable"] = True
    source = build_source(SourceParams.model_validate({"name": "files", "files": options}))
    (tmp_path / "again").mkdir()
    source.fetch(tmp_path / "again")
    sets = write_splits(source.read(tmp_path / "again"), tmp_path / "prepared", PrepareParams(rows_per_shard=40))
    names = []
    for split, samples in sets.items():
        assert samples.spec.shape == (64,)
        kind, state = open_kind(samples.kind, split)
        for shard in samples.shards:
            (block,) = samples.blocks(shard, 10_000)
            for clip in kind.from_rows(block.pixels, block.attributes, state).to_pylist():
                assert clip["bytes"] == (tmp_path / "clips" / clip["path"]).read_bytes()
                names.append(clip["path"])
    assert sorted(names) == [f"{number:02}.wav" for number in range(12)]
