"""`ae-pipeline decode` and `info`, as a user types them: chosen rows, images, snapshots, damage, mistakes."""

import json
import re
import shutil

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import bytes_of, encode, flip_bit, random_codec, random_pixels, write_rows
from PIL import Image

from ae_pipeline.cli.decode import INCOMPLETE
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing.appending import append_samples


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of 3 parts, 40 rows each, ids 100 to 219, and one more part of 40 as its second snapshot."""
    folder = tmp_path_factory.mktemp("cli-decode")
    random_codec(folder / "codec")
    for part in range(4):
        ids = list(range(100 + 40 * part, 140 + 40 * part))
        columns = {"id": ids, "label": pa.array([n % 10 for n in ids], pa.uint8()), "name": [f"row {n}" for n in ids]}
        home = folder / "rows" if part < 3 else folder / "more"
        write_rows(home / f"{part}.parquet", random_pixels((40, 5, 4), "uint8", part), **columns)
    encode(folder / "rows", folder / "codec", folder / "store", row_group_rows=10)
    more = [SampleSet.open(folder / "more")]
    params = EncodeParams(device="cpu", row_group_rows=10)
    append_samples(folder / "store", more, folder / "codec", params, name="more", git={})
    return folder


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made / "store", tmp_path / "store")


@pytest.fixture(scope="module")
def whole(made):
    from ae_pipeline.store.reading.decode import decode_store

    return decode_store(LatentStore.open(made / "store"), made / "whole", device="cpu").load()


def test_chosen_ids_become_one_file(ae, store, whole, tmp_path):
    code, out, err = ae(
        "decode", store, "--out", tmp_path / "x.parquet", "--ids", "217, 101,103", "--ids", 259, "--json"
    )
    assert (code, err) == (0, "")
    assert json.loads(out) == {"out": str(tmp_path / "x.parquet"), "rows": 4, "samples": "uint8 5x4", "files": 1}
    found = SampleSet.open(tmp_path / "x.parquet").load()
    rows = [1, 3, 117, 159]
    assert found.attributes.equals(whole.attributes.take(rows))
    assert np.array_equal(found.pixels, whole.pixels[rows])


def test_conditions_columns_and_ids_go_together(ae, store, whole, tmp_path):
    options = ("--where", "label = 7 AND name <> 'row 107'", "--columns", "label", "--snapshot", 1)
    assert ae("decode", store, "--out", tmp_path / "out", *options)[0] == 0
    found = SampleSet.open(tmp_path / "out").load()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["part-00000.parquet"]
    assert found.attributes.column_names == ["id", "label"]
    assert found.attributes["id"].to_pylist() == list(range(117, 220, 10))
    assert np.array_equal(found.pixels, whole.pixels[17:120:10])
    # An id that does not fulfil the condition is in the store nevertheless.
    assert ae("decode", store, "--out", tmp_path / "both", "--ids", "107,108", "--where", "label = 8")[0] == 0
    assert SampleSet.open(tmp_path / "both").load().attributes["id"].to_pylist() == [108]


def test_rows_become_images_with_an_index(ae, store, whole, tmp_path):
    code, out, _ = ae("decode", store, "--out", tmp_path / "png", "--where", "label = 3", "--format", "png", "--json")
    assert code == 0
    assert json.loads(out)["files"] == 16
    index = pq.read_table(tmp_path / "png" / "index.parquet")
    assert index.column_names == ["id", "file", "label", "name"]
    assert len(list((tmp_path / "png").glob("*.png"))) == 16
    for number, file in zip(index["id"].to_pylist(), index["file"].to_pylist(), strict=True):
        assert file == f"{number}.png"
        assert np.array_equal(np.asarray(Image.open(tmp_path / "png" / file)), whole.pixels[number - 100])


def test_the_whole_store_as_one_file_holds_the_same_rows(ae, store, whole, tmp_path):
    assert ae("decode", store, "--out", tmp_path / "all.parquet")[0] == 0
    found = SampleSet.open(tmp_path / "all.parquet").load()
    assert found.attributes.equals(whole.attributes)
    assert np.array_equal(found.pixels, whole.pixels)


def test_an_earlier_snapshot_is_decoded_and_described(ae, store, whole, tmp_path):
    assert ae("decode", store, "--out", tmp_path / "one", "--snapshot", 1)[0] == 0
    assert np.array_equal(SampleSet.open(tmp_path / "one").load().pixels, whole.pixels[:120])
    values = json.loads(ae("info", store, "--snapshot", 1, "--json")[1])
    assert (values["snapshot"], values["snapshots"], values["rows"], values["parts"]) == (1, [1, 2], 120, 3)
    newest = json.loads(ae("info", store, "--json")[1])
    assert (newest["snapshot"], newest["snapshots"], newest["rows"]) == (2, [1, 2], 160)
    assert re.search(r"snapshots +1, 2\n", ae("info", store)[1])
    code, _, err = ae("decode", store, "--out", tmp_path / "three", "--snapshot", 3)
    assert code == 1
    assert "has no snapshot 3; it has 1, 2" in err
    assert not (tmp_path / "three").exists()


def test_a_store_behind_a_url_is_described_and_decoded(ae, store, whole, tmp_path):
    files = fsspec.filesystem("memory")
    files.put(str(store), "/bucket/store", recursive=True)
    try:
        assert json.loads(ae("info", "memory://bucket/store", "--json")[1])["rows"] == 160
        assert ae("decode", "memory://bucket/store", "--out", tmp_path / "all")[0] == 0
        assert np.array_equal(SampleSet.open(tmp_path / "all").load().pixels, whole.pixels)
        assert ae("decode", "memory://bucket/store", "--out", tmp_path / "x.parquet", "--ids", 110)[0] == 0
        assert np.array_equal(SampleSet.open(tmp_path / "x.parquet").load().pixels, whole.pixels[10:11])
    finally:
        files.rm("/bucket", recursive=True)


MISTAKES = {
    "ids that no row has": (["--ids", "101,99,1000"], "no rows with the ids 99, 1000; nothing was written"),
    "many of them": (["--ids", ",".join(map(str, range(85, 105)))], "85, 86, .* 94 and 5 more; nothing"),
    "ids that are none": (["--ids", "abc"], "no id 'abc': the ids of .* are integers"),
    "no ids": (["--ids", " , "], "--ids names nothing"),
    "no such column": (["--columns", "lable"], "no column 'lable' in the store; it has id, label"),
    "no attribute": (["--columns", "latent"], "'latent' is no attribute"),
    "a condition on nothing": (["--where", "lable = 7"], "names a column 'lable'; the store has id, label"),
    "no condition": (["--where", "label ="], "cannot understand the condition"),
    "text for a number": (["--where", "label = 'seven'"], "cannot compare 'seven' with a column of type uint8"),
    "no snapshot": (["--snapshot", "7"], "has no snapshot 7; it has 1, 2"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize(
    "options", [["--out", "x.parquet"], ["--out", "x"], ["--out", "x", "--format", "png"]], ids=" ".join
)
def test_a_mistake_is_one_line_and_nothing_is_written(mistake, options, ae, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, words = MISTAKES[mistake]
    code, out, err = ae("decode", store, *options, *arguments)
    assert (code, out) == (1, "")
    assert re.search(words, err)
    assert [line for line in err.strip().splitlines() if line.startswith("error: ")] == err.strip().splitlines()[-1:]
    assert "Traceback" not in err
    assert [item.name for item in tmp_path.iterdir()] == ["store"]


def test_targets_that_cannot_be_are_refused(ae, store, tmp_path):
    (tmp_path / "there.parquet").write_bytes(b"mine")
    for arguments, words in (
        (("--out", tmp_path / "there.parquet"), "exists already"),
        (("--out", tmp_path / "there.parquet" / "x", "--ids", 101), "there.parquet"),
        (("--out", store / "inside.parquet", "--ids", 101), "inside the store"),
        (("--out", store / "inside", "--format", "png"), "inside the store"),
        (("--out", tmp_path / "x.parquet", "--format", "png"), "give a folder"),
    ):
        before = bytes_of(tmp_path)
        code, _, err = ae("decode", store, *arguments)
        assert code == 1
        assert words in err
        assert bytes_of(tmp_path) == before


def test_info_of_a_codec_has_no_snapshots(ae, made):
    code, _, err = ae("info", made / "codec", "--snapshot", 1)
    assert code == 1
    assert "is a codec, and has no snapshots" in err


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(store):
    """The store with one wrong bit in its second part: ids 140 to 179."""
    part = LatentStore.open(store).manifest.parts[1]
    flip_bit(store / part.name, 200)
    return store, part.name


TARGETS = [["--out", "x"], ["--out", "x.parquet"], ["--out", "x", "--format", "png"]]


@pytest.mark.parametrize("options", TARGETS, ids=" ".join)
def test_damage_is_an_error_that_names_the_part(options, ae, damaged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store, name = damaged
    code, out, err = ae("decode", store, *options)
    assert (code, out) == (1, "")
    assert name in err
    assert [item.name for item in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("options", TARGETS, ids=" ".join)
def test_damaged_parts_can_be_skipped_and_what_is_missing_is_said(options, ae, damaged, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store, name = damaged
    code, out, err = ae("decode", store, *options, "--skip-damaged", "--json")
    assert code == INCOMPLETE
    values = json.loads(out)
    assert (values["rows"], values["missing_parts"], values["missing_rows"]) == (120, 1, 40)
    assert err.count(name) == 1
    assert "missing: 40 rows with ids from 140 to 179" in err
    assert "incomplete: could not read 1 of 4 parts, with 40 of 160 rows\n" in err
    left = [*range(40), *range(80, 160)]
    if "png" in options:
        assert pq.read_table(tmp_path / "x" / "index.parquet")["id"].to_pylist() == [100 + row for row in left]
    else:
        assert np.array_equal(SampleSet.open(tmp_path / options[1]).load().pixels, whole.pixels[left])


def test_an_undamaged_store_is_complete_with_skip_damaged_too(ae, store, tmp_path):
    code, out, err = ae("decode", store, "--out", tmp_path / "x", "--skip-damaged", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["missing_rows"] == 0


def test_ids_that_a_damaged_part_may_hold_are_missing_and_others_do_not_exist(ae, damaged, tmp_path):
    store, _ = damaged
    options = ("--out", tmp_path / "x.parquet", "--skip-damaged")
    code, _, err = ae("decode", store, *options, "--ids", "101,150,250")
    assert code == INCOMPLETE
    assert "not all of them may have been asked for" in err
    assert SampleSet.open(tmp_path / "x.parquet").load().attributes["id"].to_pylist() == [101, 250]
    (tmp_path / "x.parquet").unlink()
    code, _, err = ae("decode", store, *options, "--ids", "101,150,999")
    assert code == 1
    assert "no rows with the ids 999; nothing was written" in err
    # A part that cannot hold what is asked for is not looked at.
    assert ae("decode", store, *options, "--ids", "101,250")[0] == 0


@pytest.mark.parametrize("options", TARGETS, ids=" ".join)
def test_a_store_of_which_nothing_can_be_read_gives_nothing(options, ae, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in LatentStore.open(store).manifest.parts:
        flip_bit(store / part.name, 200)
    code, out, err = ae("decode", store, *options, "--skip-damaged")
    assert (code, out) == (1, "")
    assert "is damaged" in err
    assert [item.name for item in tmp_path.iterdir()] == ["store"]


def test_help_says_how_rows_are_chosen_and_what_the_exit_code_means(ae):
    code, out, _ = ae("decode", "--help")
    text = re.sub(r"[\s│]+", " ", out)
    assert code == 0
    for words in (
        "--ids",
        "--where",
        "--columns",
        "--snapshot",
        "--skip-damaged",
        "--format",
        f"exit with {INCOMPLETE}",
    ):
        assert words in text
