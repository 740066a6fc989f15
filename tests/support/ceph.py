"""A real S3 server on loopback: Ceph's gateway with a cluster of one monitor and one OSD in memory, as Debian has them.

skip_without_ceph()
with gateway() as server:
    server.client, server.environment       # as of s3_server.S3Server
"""

import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from s3_user import S3User

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph-authtool", "ceph")
_CONFIG = """
[global]
fsid = {fsid}
mon host = {monitor}
mon initial members = a
keyring = {folder}/keyring
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
public network = 127.0.0.0/8
ms bind ipv6 = false
ms bind port min = {first}
ms bind port max = {last}
run dir = {folder}
log file = {folder}/$name.log
admin socket = {folder}/$name.$pid.asok
[mon.a]
mon data = {folder}/mon
host = localhost
mon data avail crit = 0
[osd]
osd data = {folder}/osd
osd objectstore = memstore
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {folder}
"""
_CAPABILITIES = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *"),
    "osd.0": ("mon", "allow profile osd", "osd", "allow *"),
    "client.rgw": ("mon", "allow rwx", "osd", "allow rwx"),
}


def skip_without_ceph() -> None:
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"needs {missing[0]}: apt-get install ceph-common ceph-mon ceph-osd radosgw")


class Gateway(S3User):
    def __init__(self, folder: Path):
        self._folder, self._running = folder, []
        self._ports = _free_ports(12)
        (folder / "aws").touch()
        self.config = str(folder / "aws")
        self.url = f"http://127.0.0.1:{self._ports[0]}"

    def start(self) -> None:
        fsid, disk = str(uuid.uuid4()), str(uuid.uuid4())
        port, monitor, *rest = self._ports
        address = f"[v2:127.0.0.1:{monitor},v1:127.0.0.1:{rest[0]}]"
        (self._folder / "ceph.conf").write_text(
            _CONFIG.format(
                fsid=fsid, monitor=address, folder=self._folder, port=port, first=rest[1], last=rest[1] + 400
            )
        )
        for name in ("mon", "osd"):
            (self._folder / name).mkdir()
        for name, capabilities in _CAPABILITIES.items():
            pairs = zip(capabilities[::2], capabilities[1::2], strict=True)
            caps = [word for pair in pairs for word in ("--cap", *pair)]
            create = [] if (self._folder / "keyring").exists() else ["--create-keyring"]
            self._run("ceph-authtool", *create, "keyring", "--gen-key", "-n", name, *caps, config=False)
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, "monmap", config=False)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", "keyring")
        self._begin("ceph-mon", "-i", "a", "-f")
        self._run("ceph", "--connect-timeout", "60", "osd", "new", disk, "0")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._begin("ceph-osd", "-i", "0", "-f")
        self._begin("radosgw", "-n", "client.rgw", "-f")
        _until(self._answers)
        self._run("radosgw-admin", "-n", "client.rgw", "user", "create", "--uid=tester", "--display-name=tester",
                  "--access-key=tester", "--secret-key=secret")  # fmt: skip

    def stop(self) -> None:
        for process in reversed(self._running):
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        assert all(process.poll() is None for process in self._running), (self._folder / "said").read_text()[-2000:]
        with suppress(OSError):
            return urllib.request.urlopen(self.url, timeout=5).status == 200
        return False

    def _command(self, program: str, *arguments: str, config: bool = True) -> list[str]:
        return [program, *(["-c", str(self._folder / "ceph.conf")] if config else []), *arguments]

    def _run(self, *words: str, config: bool = True) -> None:
        done = subprocess.run(
            self._command(*words, config=config), cwd=self._folder, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stdout[-1000:]}{done.stderr[-1000:]}"

    def _begin(self, *words: str) -> None:
        with (self._folder / "said").open("a") as said:
            process = subprocess.Popen(
                self._command(*words), cwd=self._folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        self._running.append(process)


@contextmanager
def gateway() -> Iterator[Gateway]:
    # The path of a socket has about a hundred bytes, and pytest's folders are deep.
    with tempfile.TemporaryDirectory(prefix="ae-ceph-", ignore_cleanup_errors=True) as folder:
        made = Gateway(Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.stop()


def _until(condition, seconds=120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not happen within {seconds} s"
        time.sleep(0.2)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
