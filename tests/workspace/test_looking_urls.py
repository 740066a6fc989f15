"""`ae-pipeline inspect` and `init` with a URL: the same as for a folder, of as many files as are fetched for a look."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import S3_FIXTURES, put, web_server, work_in
from clone import read_yaml
from PIL import Image

from ae_pipeline.errors import DataError
from ae_pipeline.workspace.looking import fetching
from ae_pipeline.workspace.looking.look import look
from ae_pipeline.workspace.looking.report import describe, trouble

pytestmark = pytest.mark.server
running, s3 = S3_FIXTURES

RANDOM = np.random.default_rng(6)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    yield
    assert not list((tmp_path / "temporary").glob("ae-pipeline*"))


def pictures(folder, number):
    for one in range(number):
        path = folder / f"{'ab'[one % 2]}/{one:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RANDOM.integers(0, 255, (6, 5), dtype=np.uint8)).save(path)
    return folder


def got(server, ending):
    return sorted(asked.key for asked in server.requests if asked.method == "GET" and asked.key.endswith(ending))


@pytest.mark.slow
def test_a_url_is_looked_at_as_a_folder_is(ae, s3, tmp_path):
    put(s3, pictures(tmp_path / "photos", 40), "photos")
    code, local, _ = ae("inspect", "photos", "--json")
    assert code == 0
    code, remote, err = ae("inspect", "s3://bucket/photos", "--json")
    assert (code, err) == (0, "")
    local, remote = json.loads(local), json.loads(remote)
    assert remote.pop("fetched") == {"files": 40, "bytes": local["bytes"]}
    assert (local.pop("fetched"), remote.pop("path"), local.pop("path")) == (None, "s3://bucket/photos", "photos")
    for guess in ("training_seconds", "worth"):
        local.pop(guess), remote.pop(guess)
    assert remote == local
    assert "fetched" not in describe(look("s3://bucket/photos"))


def test_of_many_files_some_are_fetched_from_all_places_and_the_rest_is_counted(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "MOST_FILES", 10)
    put(s3, pictures(tmp_path / "photos", 40), "photos")
    looked = look("s3://bucket/photos")
    keys = got(s3, ".png")
    assert len(keys) == 10
    assert {key.split("/")[2] for key in keys} == {"a", "b"}
    assert (looked.files, looked.records, looked.tally.records, looked.folders) == (40, 40, 10, ["a", "b"])
    assert looked.nbytes == sum(path.stat().st_size for path in (tmp_path / "photos").rglob("*.png"))
    lines = describe(looked).splitlines()
    assert "; 10 of them, " in lines[1]
    assert lines[1].endswith(" were fetched, and what follows is of these")
    assert any(line.startswith("next ") and line.endswith(" --data s3://bucket/photos") for line in lines)


def test_rows_of_tables_that_were_not_fetched_are_estimated_by_their_bytes(s3, tmp_path, monkeypatch):
    for number in range(8):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(RANDOM.normal(size=600)), 6)
        (tmp_path / "t").mkdir(exist_ok=True)
        pq.write_table(pa.table({"v": vectors}), tmp_path / f"t/{number}.parquet")
    put(s3, tmp_path / "t", "t")
    monkeypatch.setattr(fetching, "MOST_BYTES", 2 * (tmp_path / "t/0.parquet").stat().st_size + 99)
    looked = look("s3://bucket/t/*.parquet")
    assert len(got(s3, ".parquet")) == 2
    assert (looked.files, looked.tally.records, looked.rows) == (8, 200, pytest.approx(800, abs=2))
    assert f"about {looked.records}; what follows is of 200 of them" in describe(looked)


def test_one_file_is_fetched_where_all_are_large_and_none_where_they_are_too_large(ae, s3, tmp_path, monkeypatch):
    put(s3, pictures(tmp_path / "photos", 4), "photos")
    monkeypatch.setattr(fetching, "MOST_BYTES", 9)
    assert look("s3://bucket/photos").sample.files == 1
    monkeypatch.setattr(fetching, "LARGEST_FILE", 9)
    s3.requests.clear()
    code, _, err = ae("init", "mine", "--data", "s3://bucket/photos")
    assert code == 1
    assert err.startswith("error: s3://bucket/photos has files of 0.0 GB and more, and none of more than ")
    assert got(s3, ".png") == []


def test_a_server_that_does_not_say_how_long_a_file_is_escapes_no_bound(ae, tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", RANDOM.normal(size=(500_000, 16)).astype("f4"))
    data = (tmp_path / "a.npy").read_bytes()
    with web_server({"/a.npy": data}) as server:
        code, out, _ = ae("inspect", f"{server.url}/unsaid/a.npy", "--kind", "vector")
        assert (code, "500,000" in out) == (0, True)
        monkeypatch.setattr(fetching, "LARGEST_FILE", 1 << 20)
        server.sent = 0
        code, _, err = ae("inspect", f"{server.url}/unsaid/a.npy", "--kind", "vector")
        assert code == 1
        assert f"error: {server.url}/unsaid/a.npy has more than 0.0 GB, of which nothing is fetched for a look; " in err
        assert server.sent < len(data)


def test_what_is_wrong_is_said_with_urls(ae, s3, tmp_path):
    put(s3, pictures(tmp_path / "photos", 8), "photos")
    s3.client.put_object(Bucket="bucket", Key="photos/a/bad.png", Body=b"no picture")
    s3.client.put_object(Bucket="bucket", Key="photos/a/worse.png", Body=b"no picture")
    s3.client.put_object(Bucket="bucket", Key="photos/notes.txt", Body=b"words")
    looked = look("s3://bucket/photos")
    (reason,) = looked.left_out
    assert reason.records == 2
    assert reason.example.startswith(("s3://bucket/photos/a/bad.png ", "s3://bucket/photos/a/worse.png "))
    glob = "'s3://bucket/photos/**/*.png'"
    assert any(glob in line for line in trouble(looked))
    assert look(glob.strip("'")).problems == []
    s3.client.put_object(Bucket="bucket", Key="photos/x.npy", Body=b"x")
    with pytest.raises(DataError, match=r"^s3://bucket/photos has several sorts of files: .*'s3://bucket/photos/\*\*/"):
        look("s3://bucket/photos")
    for words, found in {
        ("s3://bucket/none",): "error: there is no s3://bucket/none; ",
        ("gs://bucket/none",): "error: gs://bucket/none cannot be read: ",
    }.items():
        code, out, err = ae("inspect", *words)
        assert (code, out) == (1, "")
        assert err.startswith(found)


def test_a_workspace_gets_the_url(ae, s3, tmp_path):
    put(s3, pictures(tmp_path / "photos", 40), "photos")
    assert ae("init", "mine", "--data", "s3://bucket/photos/**/*.png")[0] == 0
    source = read_yaml(tmp_path / "mine/params.yaml")["source"]
    assert (source["name"], source["files"]["path"]) == ("files", "s3://bucket/photos/**/*.png")
    code, _, err = ae("init", "other", "--data", "https://me:pw@localhost/a.npy?key=secret")
    assert code == 1
    assert err.startswith("error: https://localhost/a.npy has a user or a query beside that, which git and MLflow ")
