"""A bucket with files, and a web server with some, for tests of data at URLs.

running, s3 = S3_FIXTURES                       # fixtures: the server of a module, and it with one empty bucket
put(s3, folder, "photos")                       # what is in a folder, or a file, as objects below a key
"""

import tempfile
import threading
from contextlib import contextmanager

import pytest
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT
from s3_server import serving
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response


@pytest.fixture(scope="module")
def _running():
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        server.lead_here(patch)
        yield server


@pytest.fixture
def _s3(running):
    running.reset()
    running.make_bucket("bucket")
    running.requests.clear()
    return running


S3_FIXTURES = _running, _s3


def put(server, place, key):
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    for file in files:
        name = file.relative_to(place).as_posix() if file != place else ""
        # Not through HTTP, which takes ten times as long.
        (backend,) = get_backend("s3")[ACCOUNT].values()
        backend.put_object("bucket", f"{key}/{name}".rstrip("/"), file.read_bytes())
    server.requests.clear()


class Short(Response):
    """An answer that ends before it is whole."""

    def __call__(self, environ, start_response):
        start_response("200 OK", [("Content-Length", "500"), ("Connection", "close")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"x" * 100]


class _Quiet(WSGIRequestHandler):
    def log(self, *args):
        pass


_PIECE = 1 << 16


@contextmanager
def web_server(files):
    """Files by path; `/forbidden` is refused, and `/broken` ends before it is whole.

    Below `/unsaid` a file comes in pieces, and nothing says how long it is. The server counts what it `sent` of it.
    """

    @Request.application
    def answer(request):
        path = request.environ["REQUEST_URI"].partition("?")[0]
        if path == "/forbidden":
            return Response(status=403)
        if path == "/broken":
            return Short()
        if path.startswith("/unsaid"):
            return Response(pieces(files[path.removeprefix("/unsaid")]), direct_passthrough=True)
        return Response(files[path]) if path in files else Response(status=404)

    def pieces(data):
        for start in range(0, len(data), _PIECE):
            server.sent += len(data[start : start + _PIECE])
            yield data[start : start + _PIECE]

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.sent = 0
    server.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def work_in(folder, monkeypatch):
    """Make a folder the current one, and one in it that of temporary files."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))
    (folder / "temporary").mkdir()
