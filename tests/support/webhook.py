"""A webhook on loopback: what was posted to it, and answers as a test wants them.

with webhook() as hook:
    hook.url, hook.posted       # paths, headers and JSON objects
    hook.status = 500           # what it answers; None: nothing, until `hook.release()`
"""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, dict(self.headers), json.loads(body)))
        if self.server.status is None:
            self.server.held.wait(60)
            return
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", f"{self.server.url}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        self.server.followed = True
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def webhook() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        server.posted, server.status, server.followed, server.held = [], 200, False, threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.held.set()
            server.shutdown()
            thread.join()
