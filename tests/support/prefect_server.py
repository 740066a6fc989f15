"""A real Prefect server on loopback, and flows as people run them: `python -m flows.NAME` in a clone."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import weakref
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from ready import copy_prefect_home


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class PrefectServer:
    """Use as a context manager; `environment` points programs at it."""

    def __init__(self, home):
        self.api = f"http://127.0.0.1:{free_port()}/api"
        self._client = None
        self.environment = {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.api,
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
            "DO_NOT_TRACK": "true",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }

    def __enter__(self):
        port = self.api.split(":")[2].split("/")[0]
        home = Path(self.environment["PREFECT_HOME"])
        copy_prefect_home(home)
        self._log = (home / "server.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port],
            env={**os.environ, **self.environment},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        until(self._answers, 120)
        return self

    def __exit__(self, *error):
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def _answers(self):
        assert self._process.poll() is None
        try:
            return urllib.request.urlopen(f"{self.api}/health", timeout=5).status == 200
        except (urllib.error.URLError, OSError):
            return False

    @contextlib.contextmanager
    def client(self):
        """Always the same one: to make one, and to answer its first question, takes six times as long as a question."""
        if self._client is None:
            self._client = SyncPrefectClient(self.api)
            self._client.__enter__()
            weakref.finalize(self, self._client.__exit__)
        yield self._client

    def runs(self):
        """Flow runs, oldest first."""
        with self.client() as client:
            return sorted(client.read_flow_runs(limit=200), key=lambda run: run.created)

    def tasks(self, run):
        """Task runs of a flow run, in the order they started."""
        with self.client() as client:
            chosen = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id]))
            found = client.read_task_runs(task_run_filter=chosen)
        return sorted(found, key=lambda task: task.start_time or task.created)

    def artifacts(self, run):
        """The artifacts by key."""
        with self.client() as client:
            chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
            return {found.key: found for found in client.read_artifacts(artifact_filter=chosen) if found.key}

    def logs(self, run):
        """Lines."""
        chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        lines, page = [], 200
        with self.client() as client:
            while len(found := client.read_logs(log_filter=chosen, offset=len(lines), limit=page)) == page:
                lines += found
        return [line.message for line in (*lines, *found)]


def until(condition, seconds=60):
    """Wait for something that must happen; fail when it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not happen within {seconds} s"
        time.sleep(0.3)  # asking takes a server longer than waiting
