"""files.py: nothing has a final name before it is whole."""

import json

import pytest

from ae_pipeline.errors import TargetError
from ae_pipeline.files import canonical_json, finished_file, finished_folder, sha256_file, sha256_json, write_json


class StoppedError(Exception):
    """Stands for whatever stops a writer."""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_half(path):
    path.write_bytes(b"half")
    raise StoppedError


def test_a_finished_file_appears_whole_and_alone(tmp_path):
    target = tmp_path / "new" / "file.bin"
    with finished_file(target) as temporary:
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert names(target.parent) == ["file.bin"]


def test_a_failed_file_leaves_nothing(tmp_path):
    with pytest.raises(StoppedError), finished_file(tmp_path / "file.bin") as temporary:
        write_half(temporary)
    assert names(tmp_path) == []


def test_a_failed_file_keeps_the_one_that_was_there(tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(b"before")
    with pytest.raises(StoppedError), finished_file(target) as temporary:
        write_half(temporary)
    assert target.read_bytes() == b"before"


def test_a_finished_folder_appears_whole_and_may_replace_an_empty_one(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    with finished_folder(target) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "file").write_bytes(b"1")
        assert not list(target.iterdir())
    assert (target / "sub" / "file").read_bytes() == b"1"
    assert names(tmp_path) == ["folder"]


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(StoppedError), finished_folder(tmp_path / "folder") as temporary:
        write_half(temporary / "file")
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_a_finished_folder_refuses_an_existing_target(tmp_path, kind):
    target = tmp_path / "target"
    if kind == "folder":
        target.mkdir()
        (target / "precious").write_bytes(b"mine")
    elif kind == "file":
        target.write_bytes(b"mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(TargetError, match=f"{target} exists already; choose another target"), finished_folder(target):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["target"]


def test_a_finished_folder_starts_empty_after_a_kill_left_its_work_behind(tmp_path):
    stale = tmp_path / ".folder.partial"
    (stale / "sub").mkdir(parents=True)
    (stale / "part-00009.parquet").write_bytes(b"of the killed run")
    with finished_folder(tmp_path / "folder") as temporary:
        (temporary / "part-00000.parquet").write_bytes(b"of this run")
    assert names(tmp_path / "folder") == ["part-00000.parquet"]
    assert names(tmp_path) == ["folder"]


def test_of_two_that_write_a_folder_the_second_is_told(tmp_path):
    with finished_folder(tmp_path / "folder") as temporary:
        (temporary / "file").write_bytes(b"of the first")
        with pytest.raises(TargetError, match="another run is writing"), finished_folder(tmp_path / "folder"):
            pytest.fail("the block must not run")
    assert (tmp_path / "folder" / "file").read_bytes() == b"of the first"


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(TargetError, match=r"taken.*choose another target"), finished_file(tmp_path / "taken" / "file"):
        pytest.fail("the block must not run")


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    one = canonical_json({"b": [1, 2.5, None], "a": {"ü": True, "d": "x"}})
    assert one == canonical_json({"a": {"d": "x", "ü": True}, "b": [1, 2.5, None]})
    assert one == '{"a":{"d":"x","ü":true},"b":[1,2.5,null]}'.encode()


def test_canonical_json_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"loss": float("nan")})


def test_digests_are_those_of_the_standard(tmp_path):
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == abc
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})


def test_written_json_is_readable_and_a_nan_leaves_no_file(tmp_path):
    write_json(tmp_path / "good.json", {"name": "ü", "values": [1.5]})
    assert json.loads((tmp_path / "good.json").read_text(encoding="utf-8")) == {"name": "ü", "values": [1.5]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "bad.json", {"loss": float("inf")})
    assert names(tmp_path) == ["good.json"]
