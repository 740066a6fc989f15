"""`ae-pipeline status`: each section tells what is, and one that cannot be told leaves the others as they are.

tests/flows/test_flow_operation.py asks it beside a real Prefect server.
"""

import json
import os
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from inboxes import OLD, params_with, put, run, settle
from trainings import set_alias

from ae_pipeline.operation.inbox.batches import statistics_path
from ae_pipeline.operation.status.files import look_at_stores, look_into_inbox, look_into_quarantine
from ae_pipeline.operation.status.machine import is_little, look_at_checkout, look_at_disks
from ae_pipeline.operation.status.page import attention, reason

SECRET = "geheim"


def ask(ae):
    code, output, errors = ae("status", "--json")
    assert errors == ""
    return code, json.loads(output)


@pytest.mark.slow
def test_champion_and_challenger_are_told_and_what_cannot_be_told_is_said(ae, workspace, monkeypatch):
    code, page = ask(ae)
    assert code == 4
    models = page["models"]
    assert (models["champion"], models["challenger"]["version"], models["drift"]) == (None, "3", None)
    assert models["challenger"]["mse"] > 0
    assert [sentence.partition(":")[0] for sentence in page["attention"]] == ["prefect"]
    assert "no flows/overview.py in" in page["prefect"]["error"]
    set_alias("2")
    code, text, _ = ae("status")
    assert code == 4
    assert "needs attention\n  - prefect: no flows/overview.py in" in text
    for line in (
        "champion    synthetic-ae version 2: MSE ",
        "unknown: the alias was set in MLflow",
        "            challenger version 3: MSE ",
        "flows       cannot be told, see above\n",
        "inbox       0 file(s) waiting in data/inbox\n",
        "quarantine  0 file(s) in data/quarantine\n",
        "stores      none yet",
        "drift       no batch has been measured",
        "at work     nobody",
        "disk        .: ",
    ):
        assert line in text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:9")
    code, text, _ = ae("status")
    assert code == 4
    assert "  - models: MLflow at http://127.0.0.1:9 failed: nothing answers there (connection refused)" in text
    assert "champion    cannot be told, see above\n" in text
    assert "stores      none yet" in text
    assert SECRET not in text


def test_a_folder_without_a_pipeline_is_an_error(ae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output, errors = ae("status")
    assert (code, output) == (1, "")
    assert "params.yaml" in errors


def test_files_wait_until_they_are_in_a_store_or_in_quarantine(box, codec, tmp_path):
    params = params_with()
    look = partial(look_into_inbox, params, tmp_path)
    assert (look()["waiting"], look()["oldest"]) == (0, None)
    put(box / "a.parquet", 1)
    put(box / "sub/b.parquet", 2)
    (box / "bad.parquet").write_bytes(b"<html>")
    (box / ".hidden").touch()
    settle(box)
    found = look()
    assert (found["waiting"], found["files"]) == (3, ["a.parquet", "bad.parquet", "sub/b.parquet"])
    assert found["left_alone"] == 1
    came = datetime.fromisoformat(found["oldest"])  # not when the file was changed, which is an hour ago
    assert datetime.now(UTC) - came < timedelta(minutes=10)
    assert run(tmp_path, codec).rows == 60
    assert look()["waiting"] == 0
    quarantine = look_into_quarantine(params, tmp_path)
    assert (quarantine["files"], quarantine["newest"][0]["file"]) == (1, "bad.parquet")
    assert "time:" not in quarantine["newest"][0]["reason"]
    put(box / "c.parquet", 3)
    assert look()["files"] == ["c.parquet"]


def test_growth_is_that_of_the_last_seven_days(box, codec, tmp_path):
    assert look_at_stores(params_with(), tmp_path) == []
    bytes_out = []
    for number in (1, 2, 3):
        put(box / f"{number}.parquet", number)
        bytes_out.append(run(tmp_path, codec).bytes_out)
    (store,) = look_at_stores(params_with(), tmp_path)
    assert (store["rows"], store["snapshot"], store["parts"]) == (90, 3, 3)
    week = store["last_seven_days"]
    assert week == {"rows": 90, "bytes": sum(bytes_out), "snapshots": 3}
    first = statistics_path(tmp_path / "data/growing" / store["store"], 1)
    os.utime(first, (OLD - 8 * 24 * 3600,) * 2)
    (store,) = look_at_stores(params_with(), tmp_path)
    assert store["last_seven_days"] == {"rows": 60, "bytes": sum(bytes_out[1:]), "snapshots": 2}


@pytest.mark.parametrize(
    ("free", "total", "little"), [(4, 100, True), (6, 100, False), (0.9, 10, True), (1.1, 10, False)]
)
def test_when_little_room_is_left(free, total, little):
    assert is_little(int(free * 2**30), int(total * 2**30)) is little


def test_each_disk_is_named_once(tmp_path):
    disks = look_at_disks(params_with(), tmp_path)
    assert disks[0]["place"] == "."
    assert len(disks) <= 2  # there may be another one of temporary files


def test_who_is_at_work_is_named_as_long_as_the_process_lives(tmp_path):
    from ae_pipeline.operation.ownership import REBUILD, hold

    with hold(tmp_path, REBUILD, "flow run amber-fox"):
        assert look_at_checkout(tmp_path)["at_work"] == ["flow run amber-fox"]
        holder = tmp_path / ".ae-pipeline/rebuild.holder"
        text = holder.read_text()
    assert look_at_checkout(tmp_path)["at_work"] == []
    holder.write_text(text.replace(f'"pid": {os.getpid()}', '"pid": 2147483'))  # it was killed
    assert look_at_checkout(tmp_path)["at_work"] == []


RUN = {"name": "amber-fox", "state": "Failed", "failed": True, "message": "stage `train` failed: no memory"}
WELL = {**RUN, "state": "Completed", "failed": False}
FLOW = {"last": WELL, "failed_within_a_day": [], "at_work": [], "late": 0, "next": None}
PAGE = {
    "models": {"drift": None},
    "inbox": {"waiting": 1, "oldest": "2026-11-29T12:00:00+00:00", "unreadable": {}},
    "quarantine": {"files": 0, "folder": "data/quarantine"},
    "disks": [{"place": ".", "free": 5 << 30, "little": False}],
}
SLOT = {"deployment": "nightly", "taken": 1, "of": 1, "by": [RUN]}


@pytest.mark.parametrize(
    ("flows", "slots", "workers", "words"),
    [
        ({"rebuild": FLOW}, [SLOT], ["one"], []),
        ({"rebuild": {**FLOW, "last": None}}, [], [], []),
        ({"rebuild": {**FLOW, "last": RUN}}, [], [], ["rebuild: Failed, stage `train` failed: no memory"]),
        ({"rebuild": {**FLOW, "failed_within_a_day": [RUN]}}, [], [], []),
        ({"monitor": {**FLOW, "failed_within_a_day": [RUN]}}, [], [], ["monitor: Failed, stage"]),
        ({"rebuild": {**FLOW, "late": 2}}, [], [], ["rebuild: 2 run(s) are late"]),
        ({"rebuild": FLOW}, [SLOT], [], ["Prefect hears of no worker"]),
        ({"rebuild": FLOW}, [{**SLOT, "by": []}], ["one"], ["nightly: a slot is taken that no run holds"]),
    ],
)
def test_what_of_prefect_needs_somebody(flows, slots, workers, words):
    page = {**PAGE, "prefect": {"flows": flows, "slots": slots, "workers": workers}}
    found = attention(page, datetime(2026, 11, 29, 13, tzinfo=UTC))
    assert len(found) == len(words)
    assert all(sentence.startswith(begin) for sentence, begin in zip(found, words, strict=True))


def test_what_else_needs_somebody():
    prefect = {"flows": {}, "slots": [], "workers": []}
    page = {
        **PAGE,
        "prefect": prefect,
        "models": {"drift": {"drifted": True}},
        "quarantine": {"files": 2, "folder": "q"},
        "disks": [{"place": ".", "free": 1 << 29, "little": True}],
    }
    found = attention(page, datetime(2026, 12, 1, tzinfo=UTC))
    assert [sentence.split(" ")[:3] for sentence in found] == [
        ["the", "last", "batch"],
        ["1", "file(s)", "wait"],
        ["2", "file(s)", "in"],
        ["0.5", "GiB", "are"],
    ]


def test_a_long_reason_is_one_line():
    assert reason("stage `x` failed:\n  Traceback\n  line\nMemoryError: no") == "stage `x` failed: ... MemoryError: no"
    assert reason(None) == "no reason was given"
    assert len(reason("x" * 1000)) == 200
