r"""Stores and data in folders and files whose names are not UTF-8, such as the bytes `caf\xe9`; terminals of ASCII."""

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import warm
from handmade import bytes_of, encode, random_codec, random_pixels, write_rows

from ae_pipeline.files import arrow_file, recorded_name
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format.manifest import read_manifest
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store

pytestmark = pytest.mark.usefixtures("warm_commands")

ODD = os.fsdecode(b"caf\xe9")
ASCII = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}


@pytest.fixture
def odd(tmp_path):
    """A folder of that name with a codec, two data sets and a store, and the same in a usual one."""
    try:
        (tmp_path / ODD).mkdir()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    random_codec(tmp_path / "codec")
    for number in range(2):
        pixels = random_pixels((20, 5, 4), "uint8", number)
        write_rows(tmp_path / f"{number}.parquet", pixels, id=list(range(20)), größe=[number] * 20)
    encode(tmp_path / "0.parquet", tmp_path / "codec", tmp_path / "store")
    subprocess.run(["cp", "-r", "codec", "store", "0.parquet", "1.parquet", ODD], check=True, cwd=tmp_path)
    return tmp_path


def run(cwd, *arguments, code=0, environment=ASCII):
    done = subprocess.run(
        [sys.executable, "-m", "ae_pipeline", *arguments], capture_output=True, text=True, check=False, cwd=cwd,
        env={**os.environ, **warm.environment(**environment)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
def test_a_store_in_a_folder_whose_name_is_not_utf_8_is_whole_and_grows(odd):
    place = f"{ODD}/store"
    assert "whole" in run(odd, "verify", place)[0]
    assert "caf\\xe9/store" in run(odd, "info", place)[0]
    assert os.fsencode(json.loads(run(odd, "info", place, "--json")[0])["store"]) == b"caf\xe9/store"
    run(odd, "append", place, f"{ODD}/1.parquet", "--device", "cpu")
    deep = run(odd, "verify", place, "--deep", "--source", f"{ODD}/0.parquet", "--source", f"{ODD}/1.parquet")[0]
    assert "2 parts, encoded again from the data, are the same byte for byte" in deep
    run(odd, "vacuum", place)
    part = odd / place / read_manifest(odd / place).parts[0].name
    whole = part.read_bytes()
    part.write_bytes(whole[:-1])
    run(odd, "verify", place, "--json", code=1)
    run(odd, "repair", place, "--source", f"{ODD}/0.parquet", "--device", "cpu")
    assert part.read_bytes() == whole


@pytest.mark.slow
def test_encode_and_decode_write_the_same_bytes_there_as_anywhere(odd):
    given = ["--codec", f"{ODD}/codec", "--device", "cpu"]
    run(odd, "encode", f"{ODD}/0.parquet", *given, "--store", f"{ODD}/new")
    (part,), there = read_manifest(odd / "store").parts, bytes_of(odd / ODD / "new")
    for out in ("decoded", "decoded.parquet"):
        run(odd, "decode", f"{ODD}/new", "--out", f"{ODD}/{out}", "--device", "cpu")
    run(odd, "decode", f"{ODD}/new", "--out", f"{ODD}/images", "--format", "png", "--device", "cpu")
    decode_store(LatentStore.open(odd / "store"), odd / "decoded", device="cpu")
    assert bytes_of(odd / "decoded") == bytes_of(odd / ODD / "decoded")
    assert there[part.name] == (odd / "store" / part.name).read_bytes()
    assert pq.read_table(arrow_file(odd / ODD / "decoded.parquet")).num_rows == 20
    assert len(bytes_of(odd / ODD / "images")) == 21
    assert "mse" in json.loads(run(odd, "evaluate", f"{ODD}/0.parquet", "--store", f"{ODD}/new", "--json")[0])


@pytest.mark.slow
def test_a_file_whose_name_is_not_utf_8_is_recorded_spelt_out(odd):
    data = f"{ODD}.parquet"
    os.replace(odd / "0.parquet", odd / data)
    run(odd, "encode", data, "--codec", "codec", "--store", "new", "--device", "cpu")
    manifest = read_manifest(odd / "new")
    assert (manifest.source.name, manifest.parts[0].shard.file) == ("caf\\xe9.parquet", "caf\\xe9.parquet")
    assert verify_store(odd / "new").whole
    assert "byte for byte" in run(odd, "verify", "new", "--deep", "--source", data)[0]
    assert "caf\\\\xe9.parquet" in run(odd, "info", "new", "--json")[0]
    assert recorded_name("größe 日本") == "größe 日本"


@pytest.mark.slow
def test_what_a_terminal_cannot_show_is_spelt_out(odd):
    usual = {"PYTHONIOENCODING": "utf-8"}
    assert "größe" in run(odd, "info", "store", environment=usual)[0]
    assert "gr\\xf6\\xdfe" in run(odd, "info", "store")[0]
    where = ["--where", '"größe" = 1 AND', "--out", "out"]
    assert "gr\\xf6\\xdfe" in run(odd, "decode", "store", *where, code=1)[1]
    assert "--row-group-rows" in run(odd, "encode", "--help")[0]
    assert "no store at caf\\xe9/none" in run(odd, "verify", f"{ODD}/none", code=1)[1]
