"""Whatever one file does, and whatever happens to it, the others are encoded and the run says which failed and why."""

import errno
import os
import subprocess
import sys
import uuid

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from handmade import random_pixels
from inboxes import OLD, params_with, put, put_image, put_table, reasons, run, settle, store_of, stored

from ae_pipeline.data.idx import write_idx
from ae_pipeline.errors import ConfigError, DataError, StoreError, TargetError
from ae_pipeline.operation.inbox.files.faults import Fault, fault_of, reason_of
from ae_pipeline.operation.inbox.files.ledger import Ledger
from ae_pipeline.operation.inbox.files.listing import FileChangedError, Inbox, InboxError
from ae_pipeline.operation.inbox.files.names import put_name, shown
from ae_pipeline.operation.inbox.files.quarantine import Quarantine
from ae_pipeline.operation.inbox.run import encode_inbox
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store

NOT_UTF8 = os.fsdecode(b"caf\xe9.parquet")


def quarantine(root):
    return root / "data" / "quarantine"


# Names.


def test_a_file_whose_folder_says_what_it_does_not_goes_to_quarantine_and_comes_back(codec, box, tmp_path):
    for number, folder in enumerate(("plain", "year=2020", "year=2021")):
        (box / folder).mkdir()
        columns = {"kind": ["a", "b"]} | ({} if folder == "year=2020" else {"year": [2021, 2021]})
        put_table(box / folder / "a.parquet", number, **columns)
    done = run(tmp_path, codec)
    assert (done.rows, list(done.quarantined)) == (4, ["year=2020/a.parquet"])
    assert "lies in the folder `year=2020`, whose key would be lost" in done.quarantined["year=2020/a.parquet"]
    (box / "2020").mkdir()
    (quarantine(tmp_path) / "year=2020" / "a.parquet").rename(box / "2020" / "a.parquet")
    again = run(tmp_path, codec)
    assert (again.rows, again.quarantined) == (2, {})


def test_a_name_that_is_not_utf8_goes_to_quarantine(codec, box, tmp_path):
    for number, name in enumerate((NOT_UTF8, os.fsdecode(b"for\xeat/b.parquet"))):
        put(tmp_path / "a.parquet", number)
        (box / name).parent.mkdir(exist_ok=True)
        (tmp_path / "a.parquet").rename(box / name)
    put(box / "z.parquet", 3)
    done = run(tmp_path, codec)
    assert done.files == ["z.parquet"]
    assert set(done.quarantined) == {r"caf\xe9.parquet", r"for\xeat/b.parquet"}
    assert r"caf\xe9.parquet has a name that is not UTF-8" in done.quarantined[r"caf\xe9.parquet"]
    assert (quarantine(tmp_path) / NOT_UTF8).exists()
    assert done.summary().isascii()
    again = run(tmp_path, codec)
    assert (again.quarantined, again.known) == ({}, 1)


@pytest.mark.parametrize("bad", [True, False], ids=["bad", "good"])
@pytest.mark.parametrize("ending", [".parquet", ".png", "-images-idx3-ubyte"])
def test_the_longest_names(bad, ending, codec, box, tmp_path):
    name = "n" * (255 - len(ending)) + ending
    if bad:
        (box / name).write_bytes(b"bad")
    elif ending == ".parquet":
        put(box / name, 1)
    elif ending == ".png":
        put_image(box / name, 1)
    else:
        write_idx(box / name, random_pixels((3, 5, 4), "uint8"))
    put_table(box / "z.parquet", 2, x=[1]) if bad else None
    settle(box)
    done = run(tmp_path, codec)
    assert done.failed == {}
    if not bad:
        assert done.files == [name]
        return
    assert (done.files, list(done.quarantined)) == (["z.parquet"], [name])
    (kept,) = [path for path in quarantine(tmp_path).iterdir() if not path.name.endswith(".reason.txt")]
    assert kept.read_bytes() == b"bad"
    assert kept.name.startswith("nnn")
    assert kept.name.endswith(ending[-20:])
    assert list(reasons(tmp_path)) == [kept.name]


def test_names_of_several_lines(codec, box, tmp_path):
    put_table(box / "two\nlines.parquet", 1, x=[1])
    (box / "bad\nname.parquet").write_bytes(b"bad")
    settle(box)
    done = run(tmp_path, codec)
    assert done.files == ["two\nlines.parquet"]
    assert stored(store_of(tmp_path, codec))["id"].to_pylist() == ["two\nlines.parquet#0"]
    (reason,) = done.quarantined.values()
    assert reason.startswith(r"bad\nname.parquet is not a readable Parquet file")
    assert "\n" not in done.summary()


def test_places_in_quarantine_that_are_taken(codec, box, tmp_path):
    for name in ("a.parquet", "b/c.parquet", "d.parquet", "d.parquet.reason.txt", "e.parquet"):
        (box / name).parent.mkdir(exist_ok=True)
        (box / name).write_bytes(name.encode())
    (quarantine(tmp_path) / "a.parquet").mkdir(parents=True)
    (quarantine(tmp_path) / "b").write_text("a file")
    (quarantine(tmp_path) / "e.parquet.reason.txt").mkdir()
    settle(box)
    put(box / "z.parquet", 1)
    done = run(tmp_path, codec)
    assert (done.files, done.failed) == (["z.parquet"], {})
    kept = {path.read_bytes() for path in quarantine(tmp_path).rglob("*") if path.is_file()}
    assert kept >= {b"a.parquet", b"b/c.parquet", b"d.parquet", b"d.parquet.reason.txt", b"e.parquet", b"a file"}
    assert sum(b"time: 2" in content for content in kept) == 5


def test_a_quarantine_that_cannot_be_written_keeps_nothing_from_being_encoded(codec, box, tmp_path):
    (box / "a.parquet").write_bytes(b"bad")
    put(box / "z.parquet", 1)
    settle(box)
    quarantine(tmp_path).write_text("a file is in the way")
    for files in (["z.parquet"], []):
        done = run(tmp_path, codec)
        assert (done.files, done.quarantined) == (files, {})
        assert "a.parquet is not a readable Parquet file" in done.failed["a.parquet"]
        assert "and it cannot be put into quarantine: cannot make the folder" in done.failed["a.parquet"]
    assert (box / "a.parquet").exists()
    assert "; 1 FAILED (a.parquet: " in done.summary()
    quarantine(tmp_path).unlink()
    assert list(run(tmp_path, codec).quarantined) == ["a.parquet"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_a_quarantine_that_may_not_be_entered_or_written(mode, codec, box, tmp_path):
    (box / "a.parquet").write_bytes(b"bad")
    settle(box)
    put(box / "z.parquet", 1)
    quarantine(tmp_path).mkdir()
    quarantine(tmp_path).chmod(mode)
    try:
        done = run(tmp_path, codec)
    finally:
        quarantine(tmp_path).chmod(0o755)
    assert done.files == ["z.parquet"]
    assert done.failed["a.parquet"].endswith("and it cannot be put into quarantine: Permission denied")


def test_where_a_name_leads_in_quarantine():
    assert put_name("a/b.parquet") == "a/b.parquet"
    assert put_name("../../etc/x") == "%2E%2E/%2E%2E/etc/x"
    assert put_name("a//./b") == "a/%/%2E/b"
    assert put_name("x.reason.txt") == "x.reason.txt.file"
    assert max(len(part.encode()) for part in put_name("ä" * 300).split("/")) < 200
    assert shown("a\x1b[31m\n\udce9") == r"a\x1b[31m\n\xe9"
    assert shown("\ud800") == r"\ud800"


# Columns.


TENSORS = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
EXTENSIONS = {
    "tensors": pa.FixedShapeTensorArray.from_numpy_ndarray(TENSORS),
    "tensors, transposed": pa.FixedShapeTensorArray.from_numpy_ndarray(TENSORS.transpose(0, 2, 1)),
    "uuid": pa.array([uuid.UUID(int=number).bytes for number in range(2)], pa.uuid()),
    "json": pa.array(['{"a": 1}', "[]"], pa.json_()),
    "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8())),
    "opaque": pa.ExtensionArray.from_storage(pa.opaque(pa.string(), "x", "y"), pa.array(["a", "b"])),
}


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_columns_of_every_extension_type_are_kept(kind, codec, box, tmp_path):
    column = EXTENSIONS[kind]
    put_table(box / "a.parquet", 1, x=column)
    put_table(box / "b.parquet", 2, x=column)
    done = run(tmp_path, codec)
    assert (done.files, done.quarantined, done.failed) == (["a.parquet", "b.parquet"], {}, {})
    put_table(box / "c.parquet", 3, other=[1], x=column[:1])
    put_table(box / "d.parquet", 4, id=["d"])  # without the column
    done = run(tmp_path, codec)
    assert list(done.quarantined) == (["c.parquet", "d.parquet"] if kind.startswith("tensors") else ["c.parquet"])
    decoded = decode_store(LatentStore.open(store_of(tmp_path, codec)), tmp_path / "decoded", device="cpu").load()
    found = decoded.attributes["x"]
    assert found.type == column.type
    assert found.slice(0, 2).combine_chunks().equals(column)
    assert found.slice(4).null_count == len(done.files)


@pytest.mark.parametrize("lacking", [True, False])
def test_nulls_that_pyarrow_could_not_read_again_never_reach_a_store(lacking, codec, box, tmp_path):
    put_table(box / "a.parquet", 1, id=["a"], x=pa.array([[1, 2]], pa.list_(pa.int32(), 2)))
    assert run(tmp_path, codec).files == ["a.parquet"]
    others = {} if lacking else {"x": pa.array([None], pa.list_(pa.int32()))}
    put_table(box / "b.parquet", 2, id=["b"], **others)
    put_table(box / "c.parquet", 3, id=["c"], x=pa.array([[3, 4]], pa.list_(pa.int32(), 2)))
    done = run(tmp_path, codec)
    assert (done.files, list(done.quarantined)) == (["c.parquet"], ["b.parquet"])
    assert "column `x`" in done.quarantined["b.parquet"]
    assert stored(store_of(tmp_path, codec))["x"].to_pylist() == [[1, 2], [3, 4]]


def test_tensors_in_lists_do_not_block_the_others(codec, box, tmp_path):
    """Whether pyarrow can write them or not."""
    lists = pa.ListArray.from_arrays([0, 1, 2], EXTENSIONS["tensors, transposed"])
    put_table(box / "a.parquet", 1, id=["a", "b"], x=lists)
    put_table(box / "b.parquet", 2, id=["c"])
    done = run(tmp_path, codec)
    assert "b.parquet" in done.files
    assert "a.parquet" in (*done.files, *done.quarantined)


@pytest.mark.parametrize("damage", ["truncate -s 100", "rm"])
@pytest.mark.parametrize("name", ["a.parquet", "c.parquet"])
def test_what_happens_to_a_file_before_it_is_encoded_leaves_out_that_file(
    name, damage, codec, box, tmp_path, monkeypatch
):
    for number, file in enumerate(("a.parquet", "b.parquet", "c.parquet")):
        put(box / file, number)
    # Between looking at the files and encoding them, a run asks git for the commit.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\n{damage} '{box / name}' 2>/dev/null\nexit 1\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    done = encode_inbox(params_with(), tmp_path, codec)
    assert done.files == [file for file in ("a.parquet", "b.parquet", "c.parquet") if file != name]
    assert done.rows == 60
    assert done.quarantined == {}
    assert name in done.failed[name]
    assert f"; 1 FAILED ({name}: " in done.summary()


def test_what_hinders_all_files_is_no_file_s_fault(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    run(tmp_path, codec)
    put(box / "b.parquet", 2)
    params = params_with()
    layout = next(name for name in ("binary", "columns", "coded") if name != params.encode.layout)
    other = params.model_copy(update={"encode": params.encode.model_copy(update={"layout": layout})})
    with pytest.raises(DataError, match=r"encode\.layout is"):
        encode_inbox(other, tmp_path, codec)
    assert not quarantine(tmp_path).exists()
    assert run(tmp_path, codec).files == ["b.parquet"]


# Storage.


def test_an_unreadable_folder_is_named(codec, box, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    put(box / "a.parquet", 1)
    put(box / "sub" / "b.parquet", 2)
    (box / "sub").chmod(0)
    try:
        done = run(tmp_path, codec)
        assert done.files == ["a.parquet"]
        assert done.failed == {"sub/": "the folder cannot be read (Permission denied); give permission"}
        box.chmod(0)
        with pytest.raises(InboxError, match=r"cannot read the inbox data/inbox: .*Permission denied"):
            run(tmp_path, codec)
    finally:
        box.chmod(0o755)
        (box / "sub").chmod(0o755)


class Flaky(MemoryFileSystem):
    """A store that fails for one file, or from then on for everything."""

    protocol = "flaky"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    dead = False

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def get_file(self, rpath, lpath, **options):
        if "broken" in rpath:
            if "dead" in rpath:
                Flaky.dead = True
            raise RuntimeError("500 Internal Server Error")
        super().get_file(rpath, lpath, **options)

    def ls(self, path, **options):
        if Flaky.dead:
            raise RuntimeError("connection refused")
        return super().ls(path, **options)


@pytest.fixture
def flaky():
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    files = fsspec.filesystem("flaky")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    Flaky.dead = False


def test_one_file_of_a_url_that_cannot_be_fetched_is_named(codec, flaky, tmp_path):
    put(tmp_path / "a.parquet", 1)
    flaky.pipe("/in/z.parquet", (tmp_path / "a.parquet").read_bytes())
    flaky.pipe("/in/broken.parquet", b"x")
    settings = {"location": "flaky://in", "settle_seconds": 0.0}
    for files in (["z.parquet"], []):
        done = run(tmp_path, codec, **settings)
        assert (done.files, done.quarantined) == (files, {})
        assert done.failed == {"broken.parquet": "it cannot be used (RuntimeError: 500 Internal Server Error)"}
    flaky.pipe("/in/broken-dead.parquet", b"x")
    with pytest.raises(InboxError, match="cannot read the inbox flaky://in: connection refused"):
        run(tmp_path, codec, **settings)


def from_os(number, then=None):
    error = OSError(number, os.strerror(number))
    if then is None:
        return error
    then.__context__ = error
    return then


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DataError("bad"), Fault.FILE),
        (pa.ArrowInvalid("bad"), Fault.FILE),
        (NotImplementedError("bad"), Fault.FILE),
        (RecursionError("bad"), Fault.FILE),
        (OSError("image file is truncated"), Fault.FILE),
        (from_os(errno.ENAMETOOLONG), Fault.FILE),
        (from_os(errno.EIO), Fault.STORAGE),
        (from_os(errno.EIO, DataError("a.parquet is damaged: Input/output error")), Fault.STORAGE),
        (from_os(errno.ENOENT), Fault.CHANGING),
        (FileChangedError(), Fault.CHANGING),
        (from_os(errno.ENOSPC), Fault.RUN),
        (from_os(errno.EMFILE, DataError("a.parquet is not readable")), Fault.RUN),
        (MemoryError(), Fault.RUN),
        (pa.ArrowMemoryError("malloc of size 1 failed"), Fault.RUN),
        (RuntimeError("cannot allocate memory"), Fault.RUN),
        (StoreError("dead"), Fault.RUN),
        (TargetError("another run"), Fault.RUN),
        (InboxError("dead"), Fault.RUN),
    ],
    ids=lambda value: getattr(value, "name", repr(value)),
)
def test_whose_fault_an_error_is(error, expected):
    assert fault_of(error) is expected


def test_reasons_name_files_as_the_inbox_does():
    names = {"/copies/1/a\nb.parquet": "sub/a\nb.parquet"}
    assert reason_of(DataError("/copies/1/a\nb.parquet is bad.\nmore"), names) == r"sub/a\nb.parquet is bad"
    assert reason_of(KeyError("x"), {}) == "it cannot be used (KeyError: 'x')"
    assert reason_of(DataError(""), {}) == "DataError"
    assert reason_of(OSError(5, "Input/output error", "/a"), {"/a": "a"}) == "a cannot be read (Input/output error)"


# A writer that takes longer than settle_seconds.


def test_a_file_is_tried_again_when_its_writer_goes_on_after_it_was_quarantined(codec, box, tmp_path):
    put(tmp_path / "whole.parquet", 1)
    data = (tmp_path / "whole.parquet").read_bytes()
    with open(box / "a.parquet", "wb", buffering=0) as writer:
        writer.write(data[:100])
        os.utime(box / "a.parquet", (OLD, OLD))
        put(box / "b.parquet", 2)
        assert list(run(tmp_path, codec).quarantined) == ["a.parquet"]
        writer.write(data[100:])
    done = run(tmp_path, codec)
    assert (done.files, done.waiting) == ([], 1)
    why = "it was changed less than inbox.settle_seconds (30) ago"
    assert done.why_waiting == {"a.parquet (in quarantine)": why}
    os.utime(quarantine(tmp_path) / "a.parquet", (OLD, OLD))
    done = run(tmp_path, codec)
    assert (done.files, done.quarantined) == (["a.parquet"], {})
    assert stored(store_of(tmp_path, codec)).num_rows == 60
    assert list(quarantine(tmp_path).iterdir()) == []


@pytest.mark.parametrize("remembered", [True, False])
def test_a_quarantined_file_that_is_as_its_reason_says_stays(remembered, codec, box, tmp_path):
    (box / "sub").mkdir()
    (box / "sub" / "a.parquet").write_bytes(b"bad")
    settle(box)
    assert list(run(tmp_path, codec).quarantined) == ["sub/a.parquet"]
    settle(quarantine(tmp_path))
    if not remembered:
        (tmp_path / "data" / "growing" / ".inbox" / "ledger.json").unlink()
    done = run(tmp_path, codec)
    assert (done.quarantined, done.why_waiting) == ({}, {})
    assert (quarantine(tmp_path) / "sub" / "a.parquet").exists()


def test_a_corrected_file_in_quarantine_takes_no_other_file_s_place(codec, box, tmp_path):
    (box / "a.parquet").write_bytes(b"bad")
    settle(box)
    run(tmp_path, codec)
    put(quarantine(tmp_path) / "a.parquet", 1)
    put(box / "a.parquet", 2)
    done = run(tmp_path, codec)
    assert done.files == ["a.parquet"]
    assert "the inbox has another file of its name" in done.why_waiting["a.parquet (in quarantine)"]
    (box / "a.parquet").unlink()
    assert run(tmp_path, codec).files == ["a.parquet"]
    assert stored(store_of(tmp_path, codec))["id"].to_pylist() == [*range(200, 230), *range(100, 130)]


def test_the_second_bad_file_of_a_name_goes_back_under_that_name(codec, box, tmp_path):
    for text in (b"one", b"two"):
        (box / "a.parquet").write_bytes(text)
        settle(box)
        run(tmp_path, codec)
    (second,) = quarantine(tmp_path).glob("*-a.parquet")
    put(second, 1)
    done = run(tmp_path, codec)
    assert (done.files, (quarantine(tmp_path) / "a.parquet").exists()) == (["a.parquet"], True)


def test_nothing_is_quarantined_that_changed_since_it_was_looked_at(box, tmp_path):
    (box / "a.parquet").write_bytes(b"half")
    settle(box)
    inbox = Inbox(params_with().inbox, tmp_path)
    (file,) = inbox.list().files
    with open(box / "a.parquet", "ab") as writer:
        writer.write(b"more")
    settle(box)
    with pytest.raises(FileChangedError):
        Quarantine(quarantine(tmp_path), inbox, Ledger(tmp_path / "ledger", "x")).put(file, box / "a.parquet", "", "")
    assert (box / "a.parquet").read_bytes() == b"halfmore"
    assert not quarantine(tmp_path).exists()


# Folders.


def test_an_inbox_whose_path_is_not_utf8_says_so(codec, tmp_path):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    (root / "data" / "inbox").mkdir(parents=True)
    with pytest.raises(ConfigError) as caught:
        run(root, codec)
    assert r"caf\xe9/data/inbox is not UTF-8" in str(caught.value)
    assert str(caught.value).isascii()
    # What the message advises.
    (tmp_path / "link").symlink_to(root / "data" / "inbox")
    (root / "data" / "inbox" / "a.parquet").write_bytes(b"bad")
    settle(root / "data" / "inbox")
    assert list(run(root, codec, location=str(tmp_path / "link")).quarantined) == ["a.parquet"]
    assert (root / "data" / "quarantine" / "a.parquet").exists()  # whose path is not UTF-8, either


@pytest.mark.slow
def test_a_working_folder_that_is_not_utf8_is_no_hindrance_to_relative_paths(codec, tmp_path):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    (root / "data" / "inbox").mkdir(parents=True)
    put(tmp_path / "a.parquet", 1)
    (tmp_path / "a.parquet").rename(root / "data" / "inbox" / "a.parquet")
    (root / "data" / "inbox" / "b.parquet").write_bytes(b"bad")
    settle(root / "data" / "inbox")
    script = (
        "from pathlib import Path; from ae_pipeline.params import Params;"
        "from ae_pipeline.operation.inbox.run import encode_inbox;"
        "params = Params.model_validate({'encode': {'device': 'cpu'}});"
        f"done = encode_inbox(params, Path(), Path({str(codec)!r}));"
        "print(done.files, list(done.quarantined))"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout == "['a.parquet'] ['b.parquet']\n"


def test_every_table_that_pyarrow_writes_is_taken_or_named(codec, box, tmp_path):
    """As first file, where columns of the store are its own."""
    kinds = {
        "duration": pa.array([1, 2], pa.duration("s")),
        "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int32())),
        "view": pa.array([[1], [2]], pa.list_view(pa.int32())),
        "half": pa.array([1, 2], pa.float16()),
        "null": pa.nulls(2),
        "struct": pa.array([{"a": float("nan")}, None]),
        "decimal": pa.array([1, 2], pa.decimal256(50, 2)),
        "dictionary": pa.array([["a"], ["b"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    }
    for kind, column in kinds.items():
        root = tmp_path / kind
        folder = root / "data" / "inbox"
        folder.mkdir(parents=True)
        put_table(folder / "a.parquet", 1, id=["a", "b"], x=column)
        put_table(folder / "b.parquet", 2, id=["c"])
        done = run(root, codec)
        assert "b.parquet" in done.files, kind
        assert {"a.parquet"} <= {*done.files, *done.quarantined}, kind
        assert pq.read_table(folder / "b.parquet").num_rows == 1


def test_a_file_whose_name_was_corrected_in_the_quarantine_goes_back_under_the_new_name(codec, box, tmp_path):
    """Its reason says "rename it"; until then the reason went, and the file stayed there without a word."""
    bad = os.fsencode(box / "caf") + b"\xe9.parquet"
    put(tmp_path / "a.parquet", 1)
    (tmp_path / "a.parquet").rename(os.fsdecode(bad))
    put(box / "b.parquet", 2)
    assert "rename it" in run(tmp_path, codec).quarantined[r"caf\xe9.parquet"]
    (lying,) = quarantine(tmp_path).glob("*.parquet")
    lying.rename(lying.with_name("b.parquet"))
    why = "its name was corrected, and the inbox has another file of its name; put it there yourself"
    assert run(tmp_path, codec).why_waiting == {"b.parquet (in quarantine)": why}
    (quarantine(tmp_path) / "b.parquet").rename(quarantine(tmp_path) / "cafe.parquet")
    done = run(tmp_path, codec)
    assert (done.files, done.quarantined, done.why_waiting) == (["cafe.parquet"], {}, {})
    assert list(quarantine(tmp_path).iterdir()) == []
    assert stored(store_of(tmp_path, codec)).num_rows == 60


def test_another_file_of_the_quarantine_is_not_taken_for_one_that_was_taken_away(codec, box, tmp_path):
    for name in ("a.parquet", "sub/a.parquet"):
        (box / name).parent.mkdir(exist_ok=True)
        (box / name).write_bytes(b"bad")
    settle(box)
    run(tmp_path, codec)
    (quarantine(tmp_path) / "a.parquet").unlink()
    (quarantine(tmp_path) / "mine.txt").write_text("notes")
    done = run(tmp_path, codec)
    assert (done.files, done.quarantined, done.why_waiting) == ([], {}, {})
    left = {path.name for path in quarantine(tmp_path).rglob("*") if path.is_file()}
    assert left == {"mine.txt", "a.parquet", "a.parquet.reason.txt"}
