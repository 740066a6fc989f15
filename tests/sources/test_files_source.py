"""The source `files`: which files it reads, which records it holds out, and what it refuses."""

import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from own_files import fetch, rows_of

from ae_pipeline.data.splits import write_splits
from ae_pipeline.errors import ConfigError, DataError
from ae_pipeline.files import sha256_file
from ae_pipeline.params import PrepareParams
from ae_pipeline.sources.own_files.drawing.records import RecordDrawing

RANDOM = np.random.default_rng(0)


def save(path, rows=20, width=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, RANDOM.normal(size=(rows, width)).astype(np.float32))
    return path


def take(tmp_path, **options):
    return fetch(tmp_path, **{"kind": "vector", **options})


def names(splits):
    return sorted({line["source_file"] for line, _ in rows_of(splits)})


# --- which records are held out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5, 0.99])
def test_about_the_share_that_is_asked_for_is_drawn(fraction):
    drawn = RecordDrawing([("a", 20_000), ("b", 30_000)], fraction, 0)
    share = np.concatenate([drawn.of("a", 0, 20_000), drawn.of("b", 0, 30_000)]).mean()
    assert abs(share - fraction) < 0.01


def test_a_record_stays_in_its_split_when_files_come_and_whatever_block_it_is_asked_in():
    alone, among = RecordDrawing([("b", 1000)], 0.2, 7), RecordDrawing([("a", 500), ("b", 1000), ("c", 1)], 0.2, 7)
    whole = alone.of("b", 0, 1000)
    np.testing.assert_array_equal(whole, among.of("b", 0, 1000))
    np.testing.assert_array_equal(whole, np.concatenate([among.of("b", first, 100) for first in range(0, 1000, 100)]))
    assert (whole != RecordDrawing([("b", 1000)], 0.2, 8).of("b", 0, 1000)).any()
    assert (whole != alone.of("a", 0, 1000)).any()


def test_these_are_drawn_for_ever():
    assert np.flatnonzero(RecordDrawing([("a.npy", 100)], 0.1, 0).of("a.npy", 0, 100)).tolist() == [
        7,
        11,
        36,
        50,
        66,
        80,
        88,
        98,
    ]


@pytest.mark.parametrize("rows", [2, 3, 5])
@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_both_splits_have_a_record_at_least(rows, fraction, tmp_path):
    splits = take(tmp_path, path=save(tmp_path / "a.npy", rows), test_fraction=fraction)
    assert all(len(split.pixels) for split in splits.values())
    assert sum(len(split.pixels) for split in splits.values()) == rows


def test_the_same_files_give_the_same_bytes_and_are_recorded(tmp_path):
    files = [save(tmp_path / f"in/{name}.npy") for name in ("b", "a", "c/d")]
    take(tmp_path, path=tmp_path / "in")
    first = {file.name: sha256_file(file) for file in (tmp_path / "raw").iterdir()}
    take(tmp_path, path=tmp_path / "in")
    assert first == {file.name: sha256_file(file) for file in (tmp_path / "raw").iterdir()}
    assert pq.read_table(tmp_path / "raw/files.parquet").to_pylist() == [
        {"source_file": file.relative_to(tmp_path / "in").as_posix(), "bytes": file.stat().st_size,
         "sha256": sha256_file(file), "records": 20, "read": 20}
        for file in sorted(files)
    ]  # fmt: skip


def test_prepare_keeps_ids_columns_and_rows(tmp_path):
    splits = take(tmp_path, path=save(tmp_path / "a.npy", 5000))
    wanted = dict(enumerate(np.load(tmp_path / "a.npy")))
    written = write_splits(splits, tmp_path / "prepared", PrepareParams(rows_per_shard=1500))
    for samples in written.values():
        block = samples.load()
        for number, row in zip(block.attributes.column("id").to_pylist(), block.pixels, strict=True):
            np.testing.assert_array_equal(row, wanted.pop(number))
    assert wanted == {}


# --- which files -----------------------------------------------------------------------------------------------------


def test_a_file_a_folder_and_a_glob(tmp_path):
    for name in ("a", "b", "deep/er/c", "_left", "deep/.hidden"):
        save(tmp_path / f"in/{name}.npy")
    (tmp_path / "in/deep/Thumbs.db").touch()
    assert names(take(tmp_path, path=tmp_path / "in/a.npy")) == ["a.npy"]
    assert names(take(tmp_path, path=tmp_path / "in")) == ["a.npy", "b.npy", "deep/er/c.npy"]
    assert names(take(tmp_path, path=tmp_path / "in/*.npy")) == ["a.npy", "b.npy"]
    assert names(take(tmp_path, path=tmp_path / "in/**/*.npy")) == ["a.npy", "b.npy", "deep/er/c.npy"]
    assert names(take(tmp_path, path=tmp_path / "in/d*")) == ["deep/er/c.npy"]
    assert names(take(tmp_path, path=tmp_path / "in/_left.npy")) == ["_left.npy"]


def test_what_is_left_out_by_its_name_is_said(tmp_path, capsys):
    for name in ("a", "_left"):
        save(tmp_path / f"in/{name}.npy")
    take(tmp_path, path=tmp_path / "in")
    assert "1 left out, as no data goes by such names: _left.npy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([], "there are no files at"),
        (["_a.npy"], r"there are no files at .* \(_a.npy left out"),
        (["a.npy", "notes.txt"], r"1 file\(s\) that this kind does not read \(notes.txt\), expected \*.parquet"),
        (["a.npy", "b.parquet"], r"several sorts of files: 1 NumPy files \(a.npy\), 1 Parquet files \(b.parquet\)"),
        (["train-images-idx3-ubyte"], "has IDX files .*; read them with source.name: idx"),
    ],
)
def test_folders_that_are_no_data_set(files, why, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in files:
        save(folder / name) if name.endswith(".npy") else (folder / name).touch()
    with pytest.raises(DataError, match=why):
        take(tmp_path, path=folder)


def test_pictures_and_tables_in_one_folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.parquet"):
        (tmp_path / "in" / name).touch()
    with pytest.raises(
        DataError, match=r"2 files of one record each \(a.png\), 1 Parquet files \(c.parquet\); name one"
    ):
        fetch(tmp_path, path=tmp_path / "in")


def test_paths_that_are_not_there_and_kinds_that_there_are_not(tmp_path):
    with pytest.raises(DataError, match=r"there is no .*nowhere; set source.files.path"):
        take(tmp_path, path=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"there are no files at .*npy"):
        take(tmp_path, path=tmp_path / "*.npy")
    with pytest.raises(ConfigError, match=r"there is no kind 'sound'; expected one of image, vector"):
        fetch(tmp_path, path=tmp_path, kind="sound")


def test_links_in_a_circle_and_to_nowhere(tmp_path):
    save(tmp_path / "in/a.npy")
    (tmp_path / "in/b").symlink_to(tmp_path / "in")
    with pytest.raises(DataError, match=r"b is a link to a folder that it lies in"):
        take(tmp_path, path=tmp_path / "in")
    (tmp_path / "in/b").unlink()
    (tmp_path / "in/c.npy").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"c.npy is neither a file nor a folder"):
        take(tmp_path, path=tmp_path / "in")


# --- damage ----------------------------------------------------------------------------------------------------------


def test_truncated_files_are_named_and_counted_and_left_out_if_asked(tmp_path):
    for name in "abc":
        save(tmp_path / f"in/{name}.npy")
    bad = tmp_path / "in/b.npy"
    bad.write_bytes(bad.read_bytes()[:-5])
    with pytest.raises(
        DataError, match=r"1 record\(s\) or file\(s\) that cannot be read: .*b.npy is not a readable NumPy"
    ):
        take(tmp_path, path=tmp_path / "in")
    assert names(take(tmp_path, path=tmp_path / "in", skip_unreadable=True)) == ["a.npy", "c.npy"]
    (left_out,) = pq.read_table(tmp_path / "raw/left_out.parquet").to_pylist()
    assert left_out["record"] == "b.npy"
    assert "its array has 235 bytes, expected 240" in left_out["reason"]


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_records(rows, tmp_path):
    with pytest.raises(DataError, match=rf"holds {rows} record\(s\), expected at least 2"):
        take(tmp_path, path=save(tmp_path / "a.npy", rows))


SPOILER = '''"""A kind that spoils its file when it is given the first block of it."""

from pathlib import Path

from ae_pipeline.kinds.vector import VectorKind


class Spoiler(VectorKind):
    def to_rows(self, records, place, state=None):
        path = Path(place(0).split(": ")[0])
        change = path.stem
        if change == "remove":
            path.unlink(missing_ok=True)
        elif change == "grow":
            path.write_bytes(path.read_bytes() + b"more")
        elif change == "cut":
            path.write_bytes(path.read_bytes()[:200])
        else:
            with open(path, "r+b") as file:
                file.write(b"\\x93")
        yield from super().to_rows(records, place, state)
'''


@pytest.mark.parametrize("change", ["grow", "cut", "rewrite", "remove"])
def test_a_file_that_changes_while_it_is_read_is_refused(change, tmp_path, monkeypatch):
    info = tmp_path / "spoiling-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spoiling\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ae_pipeline.kinds]\nspoiler = spoiling_kind:Spoiler\n")
    (tmp_path / "spoiling_kind.py").write_text(SPOILER)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = save(tmp_path / f"{change}.npy", 5000)
    with pytest.raises(DataError, match=rf"{change}.npy changed while it was read; run again when nobody writes to it"):
        take(tmp_path, path=path, kind="spoiler")


def test_a_file_that_may_not_be_read(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    save(tmp_path / "in/a.npy")
    save(tmp_path / "in/b.npy").chmod(0)
    with pytest.raises(DataError, match=r"b.npy .*Permission denied"):
        take(tmp_path, path=tmp_path / "in")
