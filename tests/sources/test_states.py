"""What the stage `code` says of a source's files, so that DVC sees a change of them."""

import json
import os
import shutil
import sys
from subprocess import run

import pytest
from ruamel.yaml import YAML

from ae_pipeline.cli.stages.code import SOURCE_FILES, look
from ae_pipeline.params import Params
from ae_pipeline.sources.own_files.listing import list_files
from ae_pipeline.sources.own_files.places.states import states_of


@pytest.fixture(autouse=True)
def _photos(tmp_path, monkeypatch):
    """Four pictures' names in folders, two that are left out, and a folder beside them that a link leads to."""
    monkeypatch.chdir(tmp_path)
    names = ("photos/a.png", "photos/in/b.png", "photos/in/more/c.png", "photos/_left/d.png", "photos/.hidden.png")
    for name in (*names, "beside/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "photos/linked").symlink_to(tmp_path / "beside")


def params(name="files", **options):
    return Params.model_validate({"source": {"name": name, name: options}})


def digest(tmp_path, **options):
    return look(params(**{"path": "photos", **options}), tmp_path).digests[SOURCE_FILES]


@pytest.mark.parametrize("path", ["photos", "photos/a.png", "photos/**/*.png", "photos/*", "photos/in", "*/*.png"])
def test_they_are_the_files_that_download_reads(path, tmp_path):
    listed = [file.name for file in list_files(path, (".png",)).files]
    assert [state.name for state in states_of(path)] == listed
    assert [state.name for state in states_of(str(tmp_path / path))] == listed


def test_every_change_of_a_file_gives_another_digest_and_nothing_else_does(tmp_path):
    before, found = digest(tmp_path), set()
    assert digest(tmp_path) == before
    (tmp_path / "photos/_left/new.png").write_bytes(b"no data")
    (tmp_path / "other.png").write_bytes(b"elsewhere")
    assert digest(tmp_path) == before

    def changed():
        found.add(digest(tmp_path))
        return len(found)

    file = tmp_path / "photos/in/b.png"
    file.write_bytes(b"longer than it was before")
    assert changed() == 1
    status = file.stat()
    file.write_bytes(b"LONGER than it was before")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert changed() == 2, "the same size and time"
    os.utime(file, ns=(0, 0))
    assert changed() == 3
    file.rename(file.with_name("z.png"))
    assert changed() == 4
    (tmp_path / "photos/linked/more.png").write_bytes(b"behind a link")
    assert changed() == 5
    (tmp_path / "photos/a.png").unlink()
    assert changed() == 6
    (tmp_path / "photos/gone.png").symlink_to("nowhere")
    assert changed() == 7
    assert before not in found


def test_a_link_that_leads_back_is_not_followed_for_ever(tmp_path):
    (tmp_path / "beside/back").symlink_to(tmp_path / "photos")
    assert "linked/back" in [state.name for state in states_of("photos")]


def test_files_of_the_source_idx_count_and_what_lies_beside_them_does_not(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte").write_bytes(b"one")
    before = look(params("idx", folder="mine"), tmp_path).digests
    (folder / "dvc.lock").write_bytes(b"written at every run")
    assert look(params("idx", folder="mine"), tmp_path).digests == before
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"two")
    assert look(params("idx", folder="mine"), tmp_path).digests != before


def test_a_source_without_files_of_a_persons_has_a_constant(tmp_path):
    digests = {look(params(name), tmp_path).digests[SOURCE_FILES] for name in ("mnist", "fashion_mnist", "synthetic")}
    assert len(digests) == 1


@pytest.mark.parametrize("path", ["photos", "photos/**/*.png", "bad\0name"])
def test_files_that_are_away_leave_what_was_made_of_them_in_use_and_that_is_said(tmp_path, path):
    shutil.rmtree(tmp_path / "photos")
    found = look(params(path=path), tmp_path)
    assert (found.digests[SOURCE_FILES], found.warnings) == ("not there", [])
    lock = {"stages": {"download": {"params": {"code.json": {SOURCE_FILES: "0" * 64}}}}}
    YAML().dump(lock, tmp_path / "dvc.lock")
    found = look(params(path=path), tmp_path)
    assert found.digests[SOURCE_FILES] == "0" * 64
    (warning,) = found.warnings
    assert "cannot be looked at: " in warning
    assert warning.endswith("; what was made of them before stays in use")


def test_nothing_heavy_is_loaded_for_them(tmp_path):
    (tmp_path / "params.yaml").write_text("source: {name: files, files: {path: photos}}")
    script = (
        "import sys; sys.argv[1:] = ['stage', 'code']\n"
        "from ae_pipeline.cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'pandas', 'pyarrow', 'PIL', 'numpy'} & sys.modules.keys()))\n"
    )
    done = run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert json.loads((tmp_path / "code.json").read_text())[SOURCE_FILES] == digest(tmp_path)
