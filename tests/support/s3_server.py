"""A real S3 server on loopback: moto's, which keeps what it is given and honours If-None-Match and If-Match.

    with serving() as server:
        server.make_bucket("bucket")            # s3fs finds the server through server.environment
        server.requests                         # what was asked for and sent
        server.hooks.append(hook)               # hook(request) runs before a request is looked at, outside the lock;
    server.answered.append(hook)            # after it has had its effect. What a hook returns is answered instead.
    server.careless = True                  # conditions are ignored, as old servers do

One request is answered at a time: S3 decides conditional puts atomically, moto looks first and writes then.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote

from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from s3_user import S3User
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response


@dataclass
class Asked:
    """A request and its answer; `sent` are the bytes of the answer's body."""

    method: str
    key: str
    query: str
    condition: str | None
    status: int = 0
    sent: int = 0


class Quiet(WSGIRequestHandler):
    def log(self, *args):
        pass


class S3Server(S3User):
    attempts = 1

    def __init__(self):
        self.requests: list[Asked] = []
        self.hooks: list[Callable[[Asked], Response | None]] = []
        self.answered: list[Callable[[Asked], Response | None]] = []
        self.careless = False
        self._lock = threading.Lock()
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self) -> None:
        """Forget every bucket, request and hook."""
        self.requests.clear()
        self.hooks.clear()
        self.answered.clear()
        self.careless = False
        for account in get_backend("s3").values():
            for backend in account.values():
                backend.reset()

    def make_bucket(self, name: str) -> None:
        self.client.create_bucket(Bucket=name)

    def _answer(self, environ, start_response):
        asked = Asked(
            environ["REQUEST_METHOD"],
            unquote(environ["PATH_INFO"]).lstrip("/"),
            environ["QUERY_STRING"],
            environ.get("HTTP_IF_MATCH") or environ.get("HTTP_IF_NONE_MATCH"),
        )
        if self.careless:
            environ.pop("HTTP_IF_MATCH", None)
            environ.pop("HTTP_IF_NONE_MATCH", None)
        answer = self._ask(self.hooks, asked)
        if answer is None:
            with self._lock:
                answer = Response.from_app(self._app, environ, buffered=True)
            asked.status, asked.sent = answer.status_code, len(answer.data)
            self.requests.append(asked)
            answer = self._ask(self.answered, asked) or answer
        return answer(environ, start_response)

    @staticmethod
    def _ask(hooks, asked):
        for hook in list(hooks):
            answer = hook(asked)
            if answer is not None:
                return answer
        return None


@contextmanager
def serving() -> Iterator[S3Server]:
    server = S3Server()
    try:
        yield server
    finally:
        server.stop()
