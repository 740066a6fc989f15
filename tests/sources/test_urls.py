"""A person's files at s3:// and https://: read as those of a folder, fetched whole, and refused by name."""

import errno
import filecmp
import gc
import shutil
import threading
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import S3_FIXTURES, Short, put, web_server, work_in
from handmade import bytes_of, random_codec
from own_files import fetch
from PIL import Image
from werkzeug.wrappers import Response

from ae_pipeline.cli.stages.code import SOURCE_FILES, look
from ae_pipeline.errors import ConfigError, DataError, PipelineError, TargetError, UnreachableError
from ae_pipeline.kinds.state import Form, KindState, entry_of
from ae_pipeline.params import Params, SourceParams
from ae_pipeline.sources import build_source
from ae_pipeline.sources.own_files.opening import open_data
from ae_pipeline.sources.own_files.places import at_hand as places
from ae_pipeline.sources.own_files.places.at_hand import at_hand, work_folder
from ae_pipeline.sources.own_files.places.side_by_side import side_by_side

pytestmark = pytest.mark.server
running, s3 = S3_FIXTURES

RANDOM = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)


def picture(path, shape=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 255, shape, dtype=np.uint8)).save(path)


def photos(folder, s3):
    """Twelve pictures in two sub-folders, and what is no data; here and in the bucket."""
    for number in range(12):
        picture(folder / f"{'ab'[number % 2]}/näme {number:02}.png")
    for name in ("_SUCCESS", ".hidden.png", "a/.b.crc", "_old/c.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no data")
    put(s3, folder, "data/photos")
    # An object that stands for a folder, as consoles make it.
    s3.client.put_object(Bucket="bucket", Key="data/photos/", Body=b"")
    return folder


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def same_as_local(tmp_path, path, url, **options):
    """Every file that `fetch` leaves, byte for byte."""
    fetch(tmp_path, path=path, **options)
    shutil.move(tmp_path / "raw", tmp_path / "local")
    fetch(tmp_path, path=url, **options)
    names = names_in(tmp_path / "local")
    assert names_in(tmp_path / "raw") == names
    assert filecmp.cmpfiles(tmp_path / "local", tmp_path / "raw", names, shallow=False)[0] == names
    shutil.rmtree(tmp_path / "local")


@pytest.mark.parametrize("path", ["", "/", "/a", "/**/*.png", "/*", "/[ab]/*0[0-4].png", "/a/näme 0?.png"])
def test_what_a_url_means_is_what_the_same_path_means(path, s3, tmp_path, capsys):
    folder = photos(tmp_path / "photos", s3)
    same_as_local(tmp_path, f"{folder}{path}", f"s3://bucket/data/photos{path}", kind="image")
    err = capsys.readouterr().err.splitlines()
    local, remote = (line.partition(" left out")[2] for line in err) if err else ("", "")
    assert local == remote


def test_columns_keys_and_labels_are_those_of_a_folder(s3, tmp_path):
    for year in (2020, 2021):
        file = tmp_path / f"tables/year={year}/part"  # no ending: it is Parquet by its first bytes
        file.parent.mkdir(parents=True)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(RANDOM.normal(size=40)), 4)
        pq.write_table(pa.table({"v": vectors, "word": list("abcdefghij")}), file)
    put(s3, tmp_path / "tables", "tables")
    same_as_local(tmp_path, tmp_path / "tables", "s3://bucket/tables", kind="vector", label="year")
    same_as_local(tmp_path, tmp_path / "tables/year=*", "s3://bucket/tables/year=*", kind="vector")
    photos(tmp_path / "photos", s3)
    same_as_local(tmp_path, tmp_path / "photos", "s3://bucket/data/photos", kind="image", label="folder")
    np.savez(tmp_path / "x.npz", v=RANDOM.normal(size=(9, 3)), n=np.arange(9))
    put(s3, tmp_path / "x.npz", "x.npz")
    same_as_local(tmp_path, tmp_path / "x.npz", "s3://bucket/x.npz", kind="vector")


def test_what_is_no_data_by_its_name_is_not_fetched_and_a_glob_lists_what_it_can_mean(s3, tmp_path):
    photos(tmp_path / "photos", s3)
    fetch(tmp_path, path="s3://bucket/data/photos/a/*.png", kind="image")
    keys = [asked.key for asked in s3.requests if asked.method == "GET" and asked.key.endswith(("png", "crc"))]
    assert sorted(key[-6:] for key in keys) == [f"{number:02}.png" for number in range(0, 12, 2)]
    assert all("prefix=data%2Fphotos%2Fa%2F" in asked.query for asked in s3.requests if "list-type" in asked.query)


def test_a_work_folder_may_have_a_name_like_a_glob(s3, tmp_path):
    photos(tmp_path / "photos", s3)
    (tmp_path / "[proj]*").mkdir()
    splits = fetch(tmp_path / "[proj]*", path="s3://bucket/data/photos/b/*", kind="image")
    names = {name for split in splits.values() for name in split.attributes["source_file"].to_pylist()}
    assert sorted(names) == [f"näme {number:02}.png" for number in range(1, 12, 2)]


def test_records_that_are_left_out_are_named_by_their_url(s3, tmp_path):
    photos(tmp_path / "photos", s3)
    s3.client.put_object(Bucket="bucket", Key="data/photos/a/bad.png", Body=b"\x89PNG no more")
    with pytest.raises(DataError, match=r"s3://bucket/data/photos has 1 record.*s3://bucket/data/photos/a/bad\.png "):
        fetch(tmp_path, path="s3://bucket/data/photos", kind="image")
    fetch(tmp_path, path="s3://bucket/data/photos", kind="image", skip_unreadable=True)
    (left,) = pq.read_table(tmp_path / "raw/left_out.parquet").to_pylist()
    assert left["record"] == "a/bad.png"
    assert left["reason"].startswith("s3://bucket/data/photos/a/bad.png ")


# --- What cannot be read ---------------------------------------------------------------------------------------------


def refused(url, tmp_path):
    with pytest.raises((DataError, ConfigError)) as error:
        fetch(tmp_path, path=url, kind="image")
    assert not list((tmp_path / "raw").iterdir())
    return str(error.value)


def test_a_url_at_which_there_is_nothing_to_read_says_so(s3, tmp_path):
    photos(tmp_path / "photos", s3)
    s3.client.put_object(Bucket="bucket", Key="data/t.parquet", Body=b"PAR1")
    for url, words in {
        "s3://bucket/none": "there is no s3://bucket/none; see how it is spelt",
        "s3://bucket/data/photos/*.gif": "there are no files at s3://bucket/data/photos/*.gif; ",
        "s3://bucket/zzz/*.gif": "there is no s3://bucket/zzz/*.gif; ",
        "s3://gone/data": "there is no bucket gone (s3://gone/data); see how",
        "s3://bucket/data": "s3://bucket/data has several sorts of files: 12 files of one record each (photos/a/",
    }.items():
        assert refused(url, tmp_path).startswith(words)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gs://bucket/data", r"^gs://bucket/data cannot be read: .* not from gs://; copy it"),
        ("zip://a::s3://bucket/data", r"not from zip://"),
        ("s3://", r"names no bucket; give s3://BUCKET/PATH"),
        ("s3://*/x", r"names no bucket"),
        ("s3://bucket//data", r"^s3://bucket//data has two slashes in a row; write one"),
        ("s3://me:secret@bucket/data", r"^s3://bucket/data holds credentials"),
        ("https://example.org/a.npy?key=secret", r"^https://example.org/a.npy has a user or a query beside that"),
        ("https://me:secret@example.org/a.npy", r"^https://example.org/a.npy has a user or a query beside that"),
        ("https://example.org/", r"names no file"),
        ("https://example.org/*.npy", r"web servers list no files"),
    ],
)
def test_a_url_of_another_form_is_refused_before_any_server_is_asked(url, words, tmp_path):
    with pytest.raises(ConfigError, match=words) as error:
        build_source(SourceParams.model_validate({"name": "files", "files": {"path": url}})).announce()
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("key", ["data/x//b.png", "data/x/../b.png", "data/x/a.png/b.png", f"data/x/{'n' * 300}.png"])
def test_a_key_that_no_file_can_have_is_refused_by_name(key, s3, tmp_path):
    for name in ("data/x/a.png", key):
        s3.client.put_object(Bucket="bucket", Key=name, Body=b"1")
    with pytest.raises(DataError, match=r"^s3://bucket/data/x/.* cannot be a file .*; rename it there, or move it"):
        fetch(tmp_path, path="s3://bucket/data/x", kind="image")
    assert not (tmp_path / "b.png").exists()


def test_no_access_and_no_server_are_told_from_no_file(s3, tmp_path, monkeypatch):
    photos(tmp_path / "photos", s3)
    s3.hooks.append(lambda asked: Response(status=403))
    with pytest.raises(UnreachableError, match=r"^s3://bucket/data/photos may not be read: .*; give credentials"):
        fetch(tmp_path, path="s3://bucket/data/photos", kind="image")
    s3.hooks[:] = [lambda asked: Response(status=403) if asked.key.endswith("04.png") else None]
    with pytest.raises(UnreachableError, match=r"^s3://bucket/data/photos/a/näme 04.png may not be read: "):
        fetch(tmp_path, path="s3://bucket/data/photos", kind="image")
    assert not list((tmp_path / "raw").iterdir())


def test_an_answer_that_breaks_off_is_never_taken_for_a_file(s3, tmp_path, monkeypatch):
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    photos(tmp_path / "photos", s3)
    s3.answered.append(lambda asked: Short() if asked.key.endswith("04.png") and asked.method == "GET" else None)
    with pytest.raises(PipelineError, match=r"^s3://bucket/data/photos/a/näme 04.png (cannot be read: |changed while)"):
        fetch(tmp_path, path="s3://bucket/data/photos", kind="image")
    assert not list((tmp_path / "raw").iterdir())


@pytest.mark.parametrize("change", ["other", "longer", "gone"])
def test_a_file_that_changes_while_it_is_fetched_is_refused(change, s3, tmp_path):
    folder = photos(tmp_path / "photos", s3)
    key, last = "data/photos/a/näme 00.png", "11.png"

    def changing(asked):
        if asked.method == "GET" and asked.key.endswith(last):
            s3.hooks.clear()
            if change == "gone":
                s3.client.delete_object(Bucket="bucket", Key=key)
            else:
                body = (folder / ("b/näme 11.png" if change == "other" else "a/näme 00.png")).read_bytes()
                s3.client.put_object(Bucket="bucket", Key=key, Body=body + b"x" * (change == "longer"))

    s3.hooks.append(changing)
    with pytest.raises(
        DataError, match=r"^s3://bucket/data/photos/a/näme 00\.png changed while it was read; run again"
    ):
        fetch(tmp_path, path="s3://bucket/data/photos", kind="image")


def test_files_that_have_no_room_are_refused_before_one_is_fetched(s3, tmp_path, monkeypatch):
    photos(tmp_path / "photos", s3)
    monkeypatch.setattr(places.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 9))
    with pytest.raises(TargetError, match=r"^s3://bucket/data/photos has 0.0 GB in 12 file\(s\), .* are free at raw/"):
        fetch(Path(), path="s3://bucket/data/photos", kind="image")
    assert not [asked for asked in s3.requests if asked.method == "GET" and asked.key.endswith("png")]


def test_a_full_disk_is_no_fault_of_the_server(ae, s3, tmp_path, monkeypatch):
    def full(source, target, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    photos(tmp_path / "photos", s3)
    monkeypatch.setattr(fsspec.filesystem("s3"), "get_file", full)
    code, _, err = ae("inspect", "s3://bucket/data/photos")
    assert (code, err) == (
        *(1,),
        "error: No space left on device; free space, give permission, or choose another path, then run the same "
        "command again\n",
    )


def test_an_error_waits_for_no_silent_server_and_begins_nothing_more(monkeypatch):
    monkeypatch.setattr("ae_pipeline.sources.own_files.places.side_by_side._GRACE_S", 0.01)
    answer, asked = threading.Event(), []

    def ask(number, ended):
        asked.append(number)
        if number == 20:
            raise DataError("refused")
        if number < 15:
            answer.wait()  # for ever, if it were waited for

    with pytest.raises(DataError, match="refused"):
        side_by_side(ask, range(1000))
    assert sorted(asked) == list(range(21))
    answer.set()


# --- DVC -------------------------------------------------------------------------------------------------------------


def test_no_server_is_asked_before_the_stage_runs(s3, tmp_path):
    params = Params.model_validate({"source": {"name": "files", "files": {"path": "s3://bucket/none"}}})
    one, other = (look(params, tmp_path) for _ in range(2))
    assert (one.digests[SOURCE_FILES], one.warnings) == (other.digests[SOURCE_FILES], [])
    assert build_source(params.source).announce() is None
    assert s3.requests == []


def test_what_a_killed_run_fetched_is_removed_by_the_next_one(tmp_path):
    with work_folder() as running:
        left = tmp_path / "temporary/ae-pipeline-fetched-left"
        (left / "url-1").mkdir(parents=True)
        with work_folder() as other:
            assert (running.is_dir(), other.is_dir(), left.exists()) == (True, True, False)
    assert not list((tmp_path / "temporary").iterdir())


# --- Commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def codec(tmp_path):
    kind = entry_of("image", KindState(form=Form(sort="files", label="folder")))
    random_codec(tmp_path / "codec", (6, 5), kind=kind)
    return tmp_path / "codec"


@pytest.mark.slow
def test_commands_take_urls_and_make_the_store_that_a_folder_makes(ae, codec, s3, tmp_path):
    folder, url = photos(tmp_path / "photos", s3), "s3://bucket/data/photos"
    shutil.rmtree(folder / "_old")
    assert ae("encode", folder, "--codec", codec, "--store", "local")[0] == 0
    code, _, err = ae("encode", url, "--codec", codec, "--store", "remote")
    assert code == 0
    assert f"file(s) of {url} left out, as no data goes by such names" in err
    assert bytes_of(tmp_path / "remote").keys() == bytes_of(tmp_path / "local").keys()
    parts = [name for name in bytes_of(tmp_path / "local") if name.startswith("part")]
    assert [(tmp_path / "remote" / name).read_bytes() for name in parts] == [
        (tmp_path / "local" / name).read_bytes() for name in parts
    ]
    assert ae("evaluate", url, "--store", "remote")[0] == 0
    assert "nothing added" in ae("append", "remote", url)[1]
    assert "are the same byte for byte" in ae("verify", "remote", "--deep", "--source", url)[1]
    (tmp_path / "remote" / parts[0]).unlink()
    assert ae("repair", "remote", "--source", url)[0] == 0
    picture(tmp_path / "more/c/new.png")
    put(s3, tmp_path / "more", "more")
    assert ae("append", "remote", "s3://bucket/more/")[0] == 0
    assert ae("encode", "s3://bucket/none", "--codec", codec, "--store", "b") == (
        *(1, ""),
        "error: there is no s3://bucket/none; see how it is spelt, or give another file, folder or glob\n",
    )
    gc.collect()
    assert not list((tmp_path / "temporary").iterdir())


def test_prepared_parquet_is_read_from_a_url(ae, s3, tmp_path):
    from handmade import random_pixels, write_rows

    pixels = random_pixels((9, 5, 4), "uint8", 1)
    for number in range(2):
        (tmp_path / "data").mkdir(exist_ok=True)
        write_rows(tmp_path / f"data/{number}.parquet", pixels, id=list(range(9 * number, 9 * number + 9)))
    (tmp_path / "data/_SUCCESS").touch()
    put(s3, tmp_path / "data", "prepared")
    random_codec(tmp_path / "codec")
    code, _, err = ae("encode", "s3://bucket/prepared", "--codec", "codec", "--store", "store")
    assert (code, err.splitlines()[0]) == (
        *(0,),
        "note: 1 file or folder in s3://bucket/prepared left out, as no data goes by such names: _SUCCESS",
    )
    samples, local = (open_data(place, None, None) for place in ("s3://bucket/prepared", tmp_path / "data"))
    assert (samples.digest, samples.rows) == (local.digest, 18)
    np.testing.assert_array_equal(samples.load().pixels, local.load().pixels)
    del samples
    gc.collect()
    assert not list((tmp_path / "temporary").iterdir())


# --- Web servers -----------------------------------------------------------------------------------------------------


def test_one_file_of_a_web_server(ae, tmp_path):
    np.save(tmp_path / "some vectors.npy", RANDOM.normal(size=(20, 4)))
    data = (tmp_path / "some vectors.npy").read_bytes()
    with web_server({"/in/some%20vectors.npy": data}) as server:
        same_as_local(tmp_path, tmp_path / "some vectors.npy", f"{server.url}/in/some%20vectors.npy", kind="vector")
        for path, words in {
            "/in/none.npy": r"there is no http://\S+/in/none.npy",
            "/forbidden": r"http://\S+/forbidden may not be read: ",
            "/broken": r"http://\S+/broken cannot be read: ",
        }.items():
            with (
                pytest.raises(PipelineError, match=words),
                at_hand(f"{server.url}{path}?key=secret", tmp_path, [""]) as found,
            ):
                found.fetch(places_of(found))
        with at_hand(f"{server.url}/in/some%20vectors.npy?key=secret") as found:
            assert "secret" not in found.shown + found.path
    with (
        pytest.raises(UnreachableError, match="cannot be read: ClientConnectorError: "),
        at_hand(f"{server.url}/a.npy"),
    ):
        pass


def places_of(found):
    from ae_pipeline.sources.own_files.listing import all_files

    return all_files(found.path, found.root)[0]
