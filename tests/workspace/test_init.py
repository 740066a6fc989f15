"""`ae-pipeline init`: a workspace, whole or not at all, over nothing that is there."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clone import ROOT, read_yaml

from ae_pipeline.data.idx import write_idx
from ae_pipeline.errors import TargetError
from ae_pipeline.workspace.files import listed
from ae_pipeline.workspace.make import make_workspace
from ae_pipeline.workspace.source import ChosenSource

NAMES = [path.as_posix() for path in listed(ROOT)]
IMAGES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """No repository around it but those that a test makes."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)


def files_of(folder):
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(path.as_posix() for path in paths if path.parts[0] != ".git")


def idx_files(folder):
    folder.mkdir(parents=True)
    for name in IMAGES:
        write_idx(folder / name, np.zeros((20, 8, 8), np.uint8))
    return folder


def refused(result, *words):
    code, out, err = result
    return (code, out) == (1, "") and len(err.splitlines()) == 1 and all(word in err for word in words)


def test_a_workspace_has_the_repositorys_own_files_and_another_source(ae, tmp_path):
    code, out, err = ae("init", "mine/pictures", "--source", "synthetic")
    assert (code, err) == (0, "")
    folder = tmp_path / "mine/pictures"
    for word in ("cd mine/pictures", "ae-pipeline check", "dvc repro", "ae-pipeline summary", "ae-pipeline serve"):
        assert word in out
    assert files_of(folder) == sorted(NAMES)
    assert list(folder.parent.iterdir()) == [folder]
    for name in set(NAMES) - {"params.yaml"}:
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes(), name
    lines = [(folder / "params.yaml").read_text().splitlines(), (ROOT / "params.yaml").read_text().splitlines()]
    changed = [new.split("#")[0].split() for new, old in zip(*lines, strict=True) if new != old]
    assert changed == [["name:", "synthetic"], ["max_mse:", "null"]]
    assert (folder / ".git").is_dir()
    assert subprocess.run(["git", "status"], cwd=folder, capture_output=True, check=True).returncode == 0


def test_what_is_made_can_be_read_by_a_program(ae):
    values = json.loads(ae("init", "mine", "--source", "mnist", "--json")[1])
    assert values == {"workspace": "mine", "source": "mnist", "files": NAMES, "repository": "mine"}
    assert Path("mine/params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


@pytest.mark.parametrize("named", [True, False])
def test_data_outside_is_named_in_full_and_data_inside_from_the_workspace(ae, tmp_path, named, monkeypatch):
    option = ("--source", "idx") if named else ()
    idx_files(tmp_path / "given")
    assert ae("init", "one", "--data", "given", *option)[0] == 0
    assert read_yaml(tmp_path / "one/params.yaml")["source"]["idx"] == {"folder": str(tmp_path / "given")}
    idx_files(tmp_path / "two/data/mine")
    assert ae("init", "two", "--data", "two/data/mine", *option)[0] == 0
    assert read_yaml(tmp_path / "two/params.yaml")["source"]["idx"] == {"folder": "data/mine"}
    for folder in ("one", "two"):
        monkeypatch.chdir(tmp_path / folder)
        assert ae("check") == (0, "", "")


def test_a_kind_is_set_with_a_network_that_takes_its_rows(ae, tmp_path):
    np.save(tmp_path / "vectors.npy", np.zeros((20, 16), np.float32))
    assert ae("init", "ws", "--data", "vectors.npy", "--kind", "vector")[0] == 0
    values = read_yaml(tmp_path / "ws/params.yaml")
    assert values["source"]["name"] == "files"
    assert values["source"]["files"]["path"] == str(tmp_path / "vectors.npy")
    assert values["source"]["files"]["kind"] == "vector"
    assert values["model"]["name"] == "dense"
    assert (values["train"]["latent_size"], values["encode"]["layout"]) == (15, "coded")
    assert (values["evaluate"]["gate"]["beat_pca"], values["evaluate"]["gate"]["max_mse"]) == (False, None)
    refusal = ae("init", "pictures", "--data", "vectors.npy", "--kind", "image")
    assert refused(refusal, "vectors.npy has shape [20, 16], expected (pictures, height, width)")
    np.save(tmp_path / "pictures.npy", np.random.default_rng(0).integers(0, 256, (20, 6, 5), dtype=np.uint8))
    code, out, err = ae("init", "pictures", "--data", "pictures.npy")
    assert (code, err) == (0, "")
    assert "  kind image: by the shape of pictures.npy, 20x6x5\n  preset `compact_balanced`: " in out
    values = read_yaml(tmp_path / "pictures/params.yaml")
    assert (values["source"]["files"]["kind"], values["model"]["name"]) == ("image", "patches")
    assert refused(
        ae("init", "no", "--data", "vectors.npy", "--kind", "sound"), "no kind 'sound'; expected one of image, vector"
    )
    assert refused(ae("init", "no", "--source", "idx", "--data", "x", "--kind", "image"), "source `idx` has no kinds")


def test_of_several_columns_one_is_named_and_what_would_be_refused_is_warned_of(ae, tmp_path, monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(40, 4))
    lists = [*map(list, vectors[:39]), [float("nan")] * 4]
    pq.write_table(pa.table({"a": list(map(list, vectors)), "b": lists}), tmp_path / "v.parquet")
    assert refused(ae("init", "ws", "--data", "v.parquet"), "several columns that can be records", "--column")
    assert refused(ae("init", "ws", "--source", "idx", "--data", "v.parquet", "--column", "a"), "`idx` has no columns")
    assert refused(ae("init", "ws", "--source", "files", "--column", "a"), "add --data PATH")
    code, _, err = ae("init", "ws", "--data", "v.parquet", "--column", "b")
    assert code == 0
    assert err.startswith("warning: 1 record would end the reading: ")
    assert read_yaml(tmp_path / "ws/params.yaml")["source"]["files"]["column"] == "b"
    monkeypatch.chdir(tmp_path / "ws")
    assert ae("check") == (0, "", "")


def test_a_workspace_among_its_own_data_is_refused(ae, tmp_path):
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32))
    assert refused(ae("init", "ws", "--data", "."), "ws lies in ., of which every file is data; choose a folder")
    assert ae("init", "ws", "--data", "*.npy")[0] == 0


def test_a_look_at_data_does_not_come_before_the_refusal_to_write_over(ae, tmp_path):
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws/dvc.yaml").write_text("mine")
    assert refused(ae("init", "ws", "--data", "gone"), "ws has dvc.yaml already")


def test_data_that_the_source_refuses_and_options_that_do_not_go_together_make_nothing(ae, tmp_path):
    idx_files(tmp_path / "half")
    (tmp_path / "half" / IMAGES[1]).unlink()
    before = [*files_of(tmp_path), "notes/a.txt"]
    assert refused(ae("init", "ws", "--data", "gone"), "there is no ", "gone; set --data to a file, a folder or a glob")
    assert refused(ae("init", "ws", "--data", "half"), str(tmp_path / "half"), "test")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("no data")
    refusal = ae("init", "ws", "--data", "notes")
    assert refused(refusal, "no codec can be trained on notes: the kind `text` is not there yet")
    assert "IDX" not in refusal[2]
    assert "train images" not in refusal[2]
    assert refused(ae("init", "ws"), "add --data PATH, or --source and one of mnist, fashion_mnist, synthetic")
    assert refused(ae("init", "ws", "--source", "idx"), "add --data PATH")
    assert refused(ae("init", "ws", "--source", "mnist", "--data", "half"), "`mnist` has data of its own")
    assert refused(ae("init", "ws", "--source", "cifar"), "no source 'cifar'; expected one of mnist,")
    assert files_of(tmp_path) == sorted(before)
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize("name", ["params.yaml", "flows/rebuild.py", ".gitignore", ".dvc/config", "data/.gitignore"])
def test_a_file_that_is_there_is_named_and_nothing_is_made(ae, tmp_path, name):
    (tmp_path / "ws" / name).parent.mkdir(parents=True)
    (tmp_path / "ws" / name).write_text("mine")
    assert refused(ae("init", "ws", "--source", "synthetic"), f"ws has {name}", "nothing is written over")
    assert files_of(tmp_path / "ws") == [name]
    assert (tmp_path / "ws" / name).read_text() == "mine"
    assert not (tmp_path / "ws/.git").exists()


def test_links_and_files_in_the_place_of_folders_are_not_followed(ae, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws/flows").symlink_to(tmp_path / "elsewhere")
    assert refused(ae("init", "ws", "--source", "synthetic"), "ws has flows already")
    (tmp_path / "ws/flows").unlink()
    (tmp_path / "ws/data").write_text("a file")
    assert refused(ae("init", "ws", "--source", "synthetic"), "ws has data already")
    assert refused(ae("init", "ws/data", "--source", "synthetic"), "ws/data is no folder")
    assert files_of(tmp_path) == ["ws/data"]
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert refused(ae("init", "gone", "--source", "synthetic"), "gone is no folder")


def test_a_second_init_says_that_there_is_one(ae):
    assert ae("init", ".", "--source", "synthetic")[0] == 0
    assert refused(ae("init", ".", "--source", "synthetic"), "has params.yaml, dvc.yaml,", " more already")


def test_other_files_in_the_folder_stay_and_a_repository_around_it_is_used(ae, tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "ws/data").mkdir(parents=True)
    (tmp_path / "ws/data/photo.png").write_bytes(b"mine")
    code, out, _ = ae("init", "ws", "--source", "synthetic")
    assert code == 0
    assert f"git repository {tmp_path}" in out
    assert files_of(tmp_path / "ws") == sorted([*NAMES, "data/photo.png"])
    assert not (tmp_path / "ws/.git").exists()


def test_a_repository_that_ignores_the_folder_is_none_for_it(ae, tmp_path):
    """DVC refuses a dvc.yaml that git ignores."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("out/\n")
    assert ae("init", "out/ws", "--source", "synthetic")[0] == 0
    assert (tmp_path / "out/ws/.git").is_dir()


@pytest.mark.parametrize("there", [True, False])
def test_an_error_in_the_middle_leaves_everything_as_it_was(tmp_path, monkeypatch, there):
    if there:
        (tmp_path / "ws/data").mkdir(parents=True)
        (tmp_path / "ws/data/photo.png").write_bytes(b"mine")
    before = sorted(tmp_path.rglob("*"))
    git = tmp_path.with_name(f"{tmp_path.name}-bin")
    git.mkdir()
    monkeypatch.setenv("PATH", str(git))
    with pytest.raises(TargetError, match="there is no command `git`"):
        make_workspace(tmp_path / "ws", ChosenSource("synthetic"))
    (git / "git").write_text("#!/bin/sh\n[ $1 = init ] && mkdir -p .git/objects\necho 'fatal: no space' >&2; exit 1\n")
    (git / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{git}:/usr/bin:/bin")
    with pytest.raises(TargetError, match=r"`git init` failed in .*ws: fatal: no space"):
        make_workspace(tmp_path / "ws", ChosenSource("synthetic"))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_workspaces_name_may_be_any_but_params_yaml_holds_text(ae, tmp_path):
    subprocess.run(["git", "init", "-q", "caf\udce9"], check=True)
    code, out, _ = ae("init", "caf\udce9/ws", "--source", "synthetic")
    assert (code, files_of(tmp_path / "caf\udce9/ws")) == (0, sorted(NAMES))
    assert f"git repository {tmp_path}/caf\\xe9" in out
    idx_files(tmp_path / "caf\udce9/mine")
    assert refused(ae("init", "other", "--data", "caf\udce9/mine"), "caf\\xe9/mine is not UTF-8")
    assert not (tmp_path / "other").exists()
    idx_files(tmp_path / "caf\udce9/new/data/mine")
    assert ae("init", "caf\udce9/new", "--data", "caf\udce9/new/data/mine")[0] == 0


@pytest.mark.parametrize("broken", [True, False])
def test_a_repository_that_git_or_dvc_would_refuse_is_left_alone(ae, tmp_path, broken):
    if broken:
        (tmp_path / "ws/.git").mkdir(parents=True)
        (tmp_path / "ws/.git/mine").write_text("mine")
    else:
        subprocess.run(["git", "init", "-q", "ws"], check=True)
        (tmp_path / "ws/.git/info").mkdir(exist_ok=True)
        (tmp_path / "ws/.git/info/exclude").write_text("dvc.yaml\n")
    before = sorted(tmp_path.rglob("*"))
    words = "not a git repository" if broken else "it ignores dvc.yaml"
    assert refused(ae("init", "ws", "--source", "synthetic"), "ws/.git is no repository for a workspace", words)
    assert sorted(tmp_path.rglob("*")) == before
