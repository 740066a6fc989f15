"""Files that are not taken yet, or not at all, are named with the reason; no wrong clock makes one wait for ever."""

import json
import os
import time

import fsspec
import pytest
from inboxes import OLD, put, reasons, run, settle

from ae_pipeline.operation.inbox.files.listing import InboxFile, why_unsettled

TOMORROW = time.time() + 86_400
WAIT = 0.2  # seconds, for inbox.settle_seconds


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def test_a_file_from_the_future_is_taken_when_two_runs_find_it_unchanged(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    os.utime(box / "a.parquet", (TOMORROW, TOMORROW))
    first = run(tmp_path, codec, settle_seconds=WAIT)
    assert (first.files, first.waiting) == ([], 1)
    assert "s in the future, so a clock is wrong" in first.why_waiting["a.parquet"]
    assert first.summary().startswith("0 file(s), 0 rows encoded; 0 in quarantine; 1 waiting (a.parquet: its time of")
    time.sleep(WAIT)
    put(box / "a.parquet", 2)  # somebody writes on
    os.utime(box / "a.parquet", (TOMORROW + 1, TOMORROW + 1))
    assert run(tmp_path, codec, settle_seconds=WAIT).waiting == 1
    time.sleep(WAIT)
    third = run(tmp_path, codec, settle_seconds=WAIT)
    assert (third.files, third.waiting) == (["a.parquet"], 0)
    again = run(tmp_path, codec, settle_seconds=WAIT)
    assert (again.files, again.known, again.waiting) == ([], 1, 0)


def test_two_runs_in_a_row_are_not_two_looks(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    os.utime(box / "a.parquet", (TOMORROW, TOMORROW))
    for _ in range(3):
        assert run(tmp_path, codec, settle_seconds=3600).waiting == 1
    # Nobody's clock matters to somebody who does not want to wait.
    assert run(tmp_path, codec, settle_seconds=0).files == ["a.parquet"]


def test_a_bad_file_from_the_future_goes_to_quarantine(codec, box, tmp_path):
    (box / "a.parquet").write_text("bad")
    os.utime(box / "a.parquet", (TOMORROW, TOMORROW))
    assert run(tmp_path, codec, settle_seconds=WAIT).quarantined == {}
    time.sleep(WAIT)
    assert list(run(tmp_path, codec, settle_seconds=WAIT).quarantined) == ["a.parquet"]
    assert list(reasons(tmp_path)) == ["a.parquet"]


def test_a_url_whose_clock_is_ahead(codec, memory, tmp_path):
    import datetime

    put(tmp_path / "a.parquet", 1)
    memory.pipe("/bucket/in/a.parquet", (tmp_path / "a.parquet").read_bytes())
    memory.store["/bucket/in/a.parquet"].created = datetime.datetime.fromtimestamp(TOMORROW, datetime.UTC)
    settings = {"location": "memory://bucket/in", "settle_seconds": WAIT}
    assert "in the future" in run(tmp_path, codec, **settings).why_waiting["a.parquet"]
    time.sleep(WAIT)
    assert run(tmp_path, codec, **settings).files == ["a.parquet"]


def seen(changed):
    return InboxFile("a", "a", "", "", changed)


@pytest.mark.parametrize(
    ("changed", "unchanged_for", "expected"),
    [
        (900.0, 0, None),  # long ago
        (990.0, 0, "it was changed 10 s ago, less than inbox.settle_seconds (30)"),
        (990.0, 30, None),  # two looks
        (1010.0, 0, "its time of change is 10 s in the future, so a clock is wrong"),
        (1010.0, 29, "its time of change is 10 s in the future, so a clock is wrong"),
        (1010.0, 31, None),
        (None, 0, "its storage does not say when it was changed"),
        (None, 31, None),
    ],
)
def test_when_a_file_may_be_taken(changed, unchanged_for, expected):
    found = why_unsettled(seen(changed), lambda _file, _now: unchanged_for, 30, now=1000.0)
    assert found is None if expected is None else found.startswith(expected)


def test_a_clock_that_was_set_back_does_not_count_as_two_looks(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    os.utime(box / "a.parquet", (TOMORROW, TOMORROW))
    run(tmp_path, codec, settle_seconds=10)
    path = tmp_path / "data" / "growing" / ".inbox" / "ledger.json"
    ledger = json.loads(path.read_text())
    for time_of_look, waiting in ((time.time() + 1000, 1), ("x", 1), (time.time() - 1000, 0)):
        ledger["seen"]["a.parquet"][1] = time_of_look
        path.write_text(json.dumps(ledger))
        assert run(tmp_path, codec, settle_seconds=10).waiting == waiting


ALONE = {
    "README.md": "a note",
    "sub/readme": "a note",
    "Thumbs.db": "a file of the system",
    "desktop.ini": "a file of the system",
    ".DS_Store": "hidden",
    "_SUCCESS": "hidden",
    "a.parquet.filepart": "unfinished",
    "a.PARQUET.Part": "unfinished",
    "a.png.crdownload": "unfinished",
    "a.tmp": "unfinished",
    "a.parquet._COPYING_": "unfinished",
    "a.parquet~": "unfinished",
    "~$a.xlsx": "unfinished",
    "a.parquet.sha256": "a note",
}


@pytest.mark.parametrize("where", ["folder", "URL"])
def test_what_is_left_alone_is_named(where, codec, box, memory, tmp_path):
    settings = {} if where == "folder" else {"location": "memory://bucket/in"}
    for name in (*ALONE, ".git/config", "lost+found/x.parquet", "readme.parquet"):
        path = box / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"x")
        memory.pipe(f"/bucket/in/{name}", b"x")
    settle(box)
    for entry in memory.store.values():
        entry.created = entry.created.fromtimestamp(OLD, entry.created.tzinfo)
    done = run(tmp_path, codec, **settings)
    assert list(done.quarantined) == ["readme.parquet"]
    assert set(done.left_alone) == {*ALONE, ".git/", "lost+found/"}
    for name, why in ALONE.items():
        assert why in done.left_alone[name]
    assert done.statistics()["left_alone"] == len(ALONE) + 2
    assert "16 left alone (" in done.summary()
    assert (box / "README.md").exists()


def test_links_and_what_is_no_file_are_named(codec, box, tmp_path):
    put(tmp_path / "a.parquet", 1)
    (box / "a.parquet").symlink_to(tmp_path / "a.parquet")
    (box / "folder").symlink_to(tmp_path)
    os.mkfifo(box / "pipe.parquet")
    done = run(tmp_path, codec)
    assert done.left_alone == {"a.parquet": "a link", "folder": "a link", "pipe.parquet": "no file"}
    assert (done.files, done.quarantined) == ([], {})
