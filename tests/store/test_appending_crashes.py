"""Growing stores with two writers, or cut off: the old snapshot or the new one, whole."""

import fcntl
import shutil

import pytest
from grown import append, few, hidden, read_ids
from handmade import bytes_of

from ae_pipeline.errors import TargetError
from ae_pipeline.files import locked_folder
from ae_pipeline.store.format.manifest import read_manifest, write_manifest


def test_of_two_writers_one_is_told_and_changes_nothing(codec, tmp_path):
    append(tmp_path / "store", [few(tmp_path, 1)], codec)
    second, third = few(tmp_path, 2), few(tmp_path, 3)

    def append_another(rows):
        before = bytes_of(tmp_path / "store")
        with pytest.raises(TargetError, match="another run is writing"):
            append(tmp_path / "store", [third], codec)
        assert bytes_of(tmp_path / "store") == before

    store = append(tmp_path / "store", [second], codec, progress=append_another).store
    assert read_ids(store) == [*range(100, 130), *range(200, 230)]


def test_of_two_that_make_the_store_one_is_told(codec, tmp_path):
    first, second = few(tmp_path, 1), few(tmp_path, 2)

    def append_another(rows):
        with pytest.raises(TargetError, match="another run is writing"):
            append(tmp_path / "store", [second], codec)

    assert read_ids(append(tmp_path / "store", [first], codec, progress=append_another).store) == list(range(100, 130))


def test_a_store_that_was_changed_in_spite_of_the_lock_is_not_overwritten(codec, tmp_path):
    append(tmp_path / "store", [few(tmp_path, 1)], codec)
    theirs = read_manifest(tmp_path / "store").model_copy(update={"written_by": {"by": "somebody else"}})

    def change(rows):
        write_manifest(tmp_path / "store", theirs)

    with pytest.raises(TargetError, match="was changed while new rows were being encoded; append again"):
        append(tmp_path / "store", [few(tmp_path, 2)], codec, progress=change)
    assert read_manifest(tmp_path / "store") == theirs
    assert len(list((tmp_path / "store").glob("part-*"))) == 1


def test_a_lock_on_a_folder_that_lost_its_name_does_not_count(tmp_path, monkeypatch):
    real = fcntl.flock

    def renamed_before_it_is_locked(descriptor, operation):
        (tmp_path / "folder").rename(tmp_path / "other")
        (tmp_path / "folder").mkdir()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", renamed_before_it_is_locked)
    with pytest.raises(TargetError, match="another run is writing"), locked_folder(tmp_path / "folder"):
        pass


# Cut off (at every step: test_faults_append.py).


def test_parts_of_an_interrupted_append_are_taken_if_they_are_whole(codec, tmp_path):
    class Cut(Exception):  # noqa: N818 (no error of the package)
        """Stands for whatever stops a run."""

    def cut(rows):
        raise Cut

    append(tmp_path / "store", [few(tmp_path, 1)], codec)
    sets = [few(tmp_path, number) for number in (2, 3)]
    with pytest.raises(Cut):
        append(tmp_path / "store", sets, codec, progress=cut)
    (work,) = tmp_path.glob(".store.*.partial")
    part = min(work.glob("part-*"))
    stamp = part.stat().st_ino
    # One of them as a crash between renaming and committing leaves it, and two that nobody can use.
    part.rename(tmp_path / "store" / part.name)
    (tmp_path / "store" / "part-00001-0123456789abcdef.parquet").write_bytes(b"another append's")
    (tmp_path / "store" / "._manifest.json.77.tmp").write_bytes(b"half")
    # Another file came meanwhile: what is there is used all the same.
    store = append(tmp_path / "store", [*sets, few(tmp_path, 4)], codec).store
    assert (store.path / part.name).stat().st_ino == stamp
    assert len(read_ids(store)) == 120
    assert {file.name for file in store.path.glob("*part*")} == {part.name for part in store.manifest.parts}
    assert not hidden(tmp_path)


def test_a_damaged_part_in_the_stores_folder_is_never_trusted(codec, tmp_path):
    append(tmp_path / "store", [few(tmp_path, 1)], codec)
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    second = few(tmp_path, 2)
    (part,) = append(tmp_path / "copy", [second], codec).parts
    (tmp_path / "store" / part.name).write_bytes((tmp_path / "copy" / part.name).read_bytes()[:-50])
    assert append(tmp_path / "store", [second], codec).parts == [part]
    assert bytes_of(tmp_path / "store") == bytes_of(tmp_path / "copy")


def test_leftovers_go_even_when_there_is_nothing_new(codec, tmp_path):
    first = few(tmp_path, 1)
    append(tmp_path / "store", [first], codec)
    before = bytes_of(tmp_path / "store")
    (tmp_path / "store" / "part-00001-0123456789abcdef.parquet").write_bytes(b"another append's")
    append(tmp_path / "store", [first], codec)
    assert bytes_of(tmp_path / "store") == before
