"""Pictures, clips, tables: an encode that is killed at any step leaves no store, and the next run finishes it."""

import shutil

import numpy as np
import pytest
import soundfile
from faults import START, Operation, check, commits_once, do
from handmade import bytes_of, random_codec, random_pixels
from killing import stopped_at_every_step
from own_columns import columns_codec, save, table
from PIL import Image

from ae_pipeline.kinds import build_kind
from ae_pipeline.kinds.image import ImageState
from ae_pipeline.kinds.state import Form, entry_of

ENCODE = """
from ae_pipeline.codec.header import read_header
from ae_pipeline.sources.own_files import grouping
from ae_pipeline.sources.own_files.opening import open_data

grouping.GROUP_FILES = 4

def work(folder):
    header = read_header(folder / "codec")
    samples = open_data(folder / "data", header.kind, header.spec)
    encode_samples(samples, folder / "codec", folder / "out/store", PARAMS, name="x", git={})
"""


def pictures(folder, tile=None):
    kind = entry_of("image", ImageState(form=Form(sort="files"), tile=tile))
    random_codec(folder / "codec", (tile, tile) if tile else (5, 4), kind=kind)
    for number, pixels in enumerate(random_pixels((7, 5, 4), "uint8")):
        path = folder / "data" / f"{'ab'[number // 4]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number % 5 :] if tile else pixels).save(path)


def tiles(folder):
    """Pictures of several sizes."""
    pictures(folder, tile=4)


def clips(folder):
    """Clips have several frames each; one has no sound at all."""
    state = build_kind("audio").State(form=Form(sort="files"), block=16, frame=16, rate=8000)
    random_codec(folder / "codec", (16,), "float32", kind=entry_of("audio", state))
    for number, samples in enumerate((50, 0, 16, 33, 90)):
        path = folder / "data" / f"{'ab'[number // 4]}/{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, samples), 8000)


def columns(folder):
    """Two tables, of which columns of numbers are taken together."""
    columns_codec(folder / "codec", table(9))
    (folder / "data").mkdir()
    for name in "ab":
        save(folder / "data" / f"{name}.parquet", table(9))


@pytest.mark.slow
@pytest.mark.parametrize("make", [pictures, tiles, clips, columns])
def test_an_encode_of_own_files_that_is_killed_at_any_step(make, tmp_path, monkeypatch):
    monkeypatch.setattr("ae_pipeline.sources.own_files.grouping.GROUP_FILES", 4)
    template = tmp_path / "template"
    make(template)
    whole = shutil.copytree(template, tmp_path / "whole")
    do(ENCODE, whole)
    assert len(list((whole / "out/store").glob("part-*"))) == 2
    wanted = Operation("encode", START + ENCODE, "out/store", template, bytes_of(whole))
    stopped = stopped_at_every_step(wanted.script, template, tmp_path / "stopped", "SIGKILL")
    assert commits_once([check(wanted, left) for left in stopped])
