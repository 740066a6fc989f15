"""The harness of the fault tests sees what it claims to see: every change, whoever makes it."""

import os
import shutil
import signal
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tracing
from power_cut import Disk

pytestmark = pytest.mark.skipif(not tracing.available(), reason="processes cannot be watched here")


def change(folder):
    (folder / "new").mkdir()
    (folder / "new" / "text").write_text("text")
    os.replace(folder / "new" / "text", folder / "moved")
    shutil.copyfile(folder / "moved", folder / "copy")
    # C++ in a thread of its own: Python hears nothing of it.
    writer = threading.Thread(target=pq.write_table, args=(pa.table({"x": [1]}), folder / "table.parquet"))
    writer.start()
    writer.join()
    os.truncate(folder / "copy", 1)
    os.link(folder / "copy", folder / "link")
    (folder / "symlink").symlink_to("copy")
    descriptor = os.open(folder, os.O_RDONLY)
    os.close(os.open("below", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.fsync(descriptor)
    (folder / "copy").read_text()
    shutil.rmtree(folder / "new")
    (folder / "link").unlink()


STEPS = """
mkdir new / open new/text / write new/text / rename new/text -> moved / open copy / write copy /
open table.parquet / write table.parquet / truncate copy / link copy -> link / symlink symlink / open below / fsync . /
rmdir new / unlink link
"""


def once(steps):
    """Without repeated writes."""
    names = [str(step) for step in steps]
    return [name for number, name in enumerate(names) if names[number - 1 : number] != [name]]


def test_every_change_is_seen(tmp_path):
    steps, code = tracing.watch(lambda: change(tmp_path), tmp_path, lambda number, step: None)
    assert code == 0
    assert once(steps) == " ".join(STEPS.split()).split(" / ")
    assert sum(step.path == "table.parquet" for step in steps) > 5


def test_a_step_is_killed_before_it_happens(tmp_path):
    def kill(number, step):
        return signal.SIGKILL if str(step) == "write table.parquet" else None

    steps, code = tracing.watch(lambda: change(tmp_path), tmp_path, kill)
    assert code == -signal.SIGKILL
    assert once(steps)[-1] == "write table.parquet"
    assert (tmp_path / "table.parquet").read_bytes() == b""


def test_a_step_fails_as_if_the_disk_had_said_so(tmp_path):
    def fail(number, step):
        return -28 if step.call == "write" else None

    errors = tmp_path / "errors.txt"
    (tmp_path / "watched").mkdir()
    _, code = tracing.watch(lambda: change(tmp_path / "watched"), tmp_path / "watched", fail, errors)
    assert code == 1
    assert "[Errno 28] No space left on device" in errors.read_text()
    assert (tmp_path / "watched" / "new" / "text").read_bytes() == b""


def test_a_power_cut_takes_what_was_not_synced(tmp_path):
    def write():
        for name in ("synced", "unnamed", "unsynced"):
            with open(tmp_path / name, "wb") as file:
                file.write(b"12345678")
                file.flush()
                if name != "unsynced":
                    os.fsync(file.fileno())
            if name == "synced":
                descriptor = os.open(tmp_path, os.O_RDONLY)
                os.fsync(descriptor)

    disk = Disk(tmp_path)
    tracing.watch(write, tmp_path, lambda number, step: disk.before(step))
    assert disk.certain() == {"synced": b"12345678"}
    assert disk.torn() == {"synced": b"12345678", "unnamed": b"12345678", "unsynced": b"1234"}
