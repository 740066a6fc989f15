"""What is recorded of the package itself: its version, and the digests that dvc.yaml names."""

import shutil
import sys
from subprocess import run

import pytest

import ae_pipeline
from ae_pipeline.provenance import PACKAGE, code_digests, library_versions


@pytest.fixture
def package(tmp_path):
    """A package with a room, a file on the ground, and a file that is no Python."""
    for name in ("home/__init__.py", "home/room/__init__.py", "home/room/one.py", "home/room/inner/values.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    return tmp_path / "home"


def changed(package, before):
    now = code_digests(package)
    return {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)}


def test_each_folder_and_each_python_file_has_a_digest(package):
    names = ["home", "home/__init__", "home/room", "home/room/__init__", "home/room/inner", "home/room/one"]
    assert list(code_digests(package)) == names


def test_an_edit_a_new_name_and_a_removal_change_what_the_file_is_in_and_nothing_else(package):
    before = code_digests(package)
    (package / "room/one.py").write_text("# another remark\n")
    assert changed(package, before) == {"home", "home/room", "home/room/one"}
    (package / "room/one.py").write_text("# home/room/one.py\n")
    assert changed(package, before) == set()
    (package / "room/inner/values.yaml").rename(package / "room/inner/others.yaml")
    assert changed(package, before) == {"home", "home/room", "home/room/inner"}
    shutil.rmtree(package / "room/inner")
    assert changed(package, before) == {"home", "home/room", "home/room/inner"}


def test_what_python_and_editors_leave_does_not_count_nor_where_the_package_lies(package, tmp_path):
    before = code_digests(package)
    for name in ("room/__pycache__/one.cpython-311.pyc", "room/.one.py.swp", ".DS_Store", "room/one.pyc"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_bytes(b"left")
    (package / "room/.#one.py").symlink_to("nobody@nowhere")
    assert code_digests(package) == before
    shutil.move(package, tmp_path / "elsewhere" / "home")
    assert code_digests(tmp_path / "elsewhere" / "home") == before


def test_the_digests_are_taken_of_the_package_that_runs_and_nothing_heavy_is_loaded_for_them(tmp_path):
    (tmp_path / "params.yaml").write_text("{}")
    script = (
        "import sys; sys.argv[1:] = ['stage', 'code']\n"
        "from ae_pipeline.cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'pandas', 'pyarrow', 'mlflow', 'prefect', 'numpy'} & sys.modules.keys()))\n"
    )
    done = run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert f'"ae_pipeline/codec": "{code_digests()["ae_pipeline/codec"]}"' in (tmp_path / "code.json").read_text()
    assert (PACKAGE / "codec").is_dir()


def test_the_version_that_is_recorded_is_that_of_the_code():
    assert library_versions()["ae-pipeline"] == ae_pipeline.__version__
