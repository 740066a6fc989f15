"""An inbox takes clips of sound: each file with all its frames, as one part; what cannot be kept goes to quarantine."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from handmade import random_codec
from inboxes import run, settle, store_of, stored
from killing import killed_at_every_step

from ae_pipeline.data.arrow_types import type_to_json
from ae_pipeline.kinds import build_kind
from ae_pipeline.kinds.state import Form, entry_of
from ae_pipeline.store.latent_store import LatentStore

RATE = 8000
AUDIO = build_kind("audio")


def put(path, samples, channels=1, seed=0, rate=RATE, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng([seed, samples]).normal(0, 0.1, (samples, channels))
    soundfile.write(path, values, rate, **how)


def codec_of(folder, form):
    state = AUDIO.State(form=form, block=32, frame=64, rate=RATE)
    random_codec(folder, (64,), "float32", kind=entry_of("audio", state))
    return folder


@pytest.fixture
def sound_codec(tmp_path):
    return codec_of(tmp_path / "sound-codec", Form(sort="files"))


def test_clips_are_taken_whole_and_come_back_under_their_names(ae, sound_codec, box, tmp_path):
    put(box / "b.wav", 1000)
    put(box / "sub/a.flac", 700, 2)
    put(box / "none.wav", 0)
    shutil.copy(box / "b.wav", box / "same.wav")
    put(box / "other.wav", 500, rate=11_025)
    put(box / "many.wav", 500, 3)
    put(box / "cut.wav", 500)
    (box / "cut.wav").write_bytes((box / "cut.wav").read_bytes()[:-7])
    (box / "x.mp3").write_bytes(b"no sound")
    settle(box)
    done = run(tmp_path, sound_codec)
    assert (done.files, done.rows, done.known) == (["b.wav", "none.wav", "sub/a.flac"], 16 + 1 + 2 * 11, 1)
    assert set(done.quarantined) == {"other.wav", "many.wav", "cut.wav", "x.mp3"}
    assert "cut.wav was cut short: 7 bytes are missing; restore it" in done.quarantined["cut.wav"]
    assert "other.wav has 11,025 samples a second, expected 8,000" in done.quarantined["other.wav"]
    assert "*.wav, *.flac, *.ogg, *.oga, *.opus" in done.quarantined["x.mp3"]
    assert not any("--skip-unreadable" in reason for reason in done.quarantined.values())
    store = store_of(tmp_path, sound_codec)
    parts = LatentStore.open(store).manifest.parts
    assert [(part.shard.file, part.rows) for part in parts] == [("b.wav", 16), ("none.wav", 1), ("a.flac", 22)]
    rows = stored(store)
    assert rows["id"].to_pylist()[:2] == ["b.wav#0", "b.wav#1"]
    assert set(rows["record"].to_pylist()) == {"b.wav", "none.wav", "sub/a.flac"}
    assert run(tmp_path, sound_codec).files == []
    # Another clip takes the place of one that is in the store, and stands beside it there.
    put(box / "sub/a.flac", 700, 2, seed=1)
    put(box / "sub/c.wav", 300)
    settle(box)
    done = run(tmp_path, sound_codec)
    assert (done.files, done.snapshot) == (["sub/a.flac", "sub/c.wav"], 2)
    assert ae("verify", store)[0] == 0
    assert ae("decode", store, "--out", tmp_path / "out")[0] == 0
    index = pq.read_table(tmp_path / "out/index.parquet")
    assert index["file"].to_pylist() == ["b.wav", "none.wav", "sub/a.wav", "sub/a~2.wav", "sub/c.wav"]
    lengths = [soundfile.info(tmp_path / "out" / name).frames for name in index["file"].to_pylist()]
    assert lengths == [1000, 0, 700, 700, 300]
    assert ae("decode", store, "--out", tmp_path / "x.parquet", "--format", "parquet")[0] == 0
    assert len(pq.read_table(tmp_path / "x.parquet")) == 5
    assert ae("decode", store, "--out", tmp_path / "y.parquet", "--format", "parquet", "--columns", "record")[0] == 0
    table = pq.read_table(tmp_path / "y.parquet")
    assert (table.column_names, len(table)) == (["record", "audio"], 5)


def test_clips_in_parquet_and_as_files_share_a_store(ae, box, tmp_path):
    clips = []
    for number, samples in enumerate((100, 640, 1)):
        put(tmp_path / f"{number}.wav", samples)
        clips.append((tmp_path / f"{number}.wav").read_bytes())
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    form = Form(sort="table", column="audio", type=type_to_json(kind), columns=("word", "audio"))
    codec = codec_of(tmp_path / "sound-codec", form)
    column = pa.array([{"bytes": clip, "path": f"{n}.wav"} for n, clip in enumerate(clips)], kind)
    pq.write_table(pa.table({"word": ["a", "b", "c"], "audio": column}), box / "a.parquet")
    pq.write_table(pa.table({"word": ["d"], "audio": pa.array([None], kind)}), box / "b.parquet")
    put(box / "c.wav", 200)
    settle(box)
    done = run(tmp_path, codec)
    assert (done.files, done.rows) == (["a.parquet", "c.wav"], 2 + 10 + 1 + 4)
    assert "has no sound" in done.quarantined["b.parquet"]
    store = store_of(tmp_path, codec)
    records = list(dict.fromkeys(stored(store)["record"].to_pylist()))
    # The number is that of a record's first row.
    assert records == ["a.parquet#0", "a.parquet#2", "a.parquet#12", "c.wav"]
    assert ae("decode", store, "--out", tmp_path / "x.parquet")[0] == 0
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["word"].to_pylist() == ["a", "b", "c", None]
    assert [clip["path"] for clip in table["audio"].to_pylist()] == ["0.wav", "1.wav", "2.wav", None]


SCRIPT = """
from ae_pipeline.operation.inbox.run import encode_inbox
from ae_pipeline.params import Params

PARAMS = Params.model_validate({"encode": {"device": "cpu"}})

def run(folder):
    encode_inbox(PARAMS, folder, folder / "codec")
"""


@pytest.mark.slow
def test_killed_at_any_step_a_clip_is_in_the_store_once_with_all_its_frames(tmp_path):
    template = tmp_path / "template"
    box = template / "data/inbox"
    codec_of(template / "codec", Form(sort="files"))
    put(box / "b.wav", 300, 2)
    settle(box)
    left = killed_at_every_step(SCRIPT, template, tmp_path / "killed")
    assert len(left) > 10
    for folder in left:
        done = run(folder, folder / "codec")
        rows = stored(store_of(folder, folder / "codec"))
        assert rows["id"].to_pylist() == [f"b.wav#{number}" for number in range(10)]
        again = run(folder, folder / "codec")
        assert (again.snapshot, again.files) == (done.snapshot, [])


def test_a_codec_of_pictures_takes_no_clips(codec, box, tmp_path):
    put(box / "a.wav", 100)
    settle(box)
    assert "a.wav is of no kind that is read; expected Parquet" in run(tmp_path, codec).quarantined["a.wav"]
