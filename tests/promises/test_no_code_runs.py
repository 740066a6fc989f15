"""No file that is loaded runs code: live payloads in the place of every file that a command or a flow reads.

Files by which a user says what is to be run are not among them: dvc.yaml, prefect.yaml, the modules themselves.
"""

import hashlib
import os
import shutil

import pyarrow.parquet as pq
import pytest
from grown import grow, rewrite_manifest
from inboxes import run, settle
from payloads import PAYLOADS, arrow_extension, fit_weights, refused
from PIL import EpsImagePlugin, Image

from ae_pipeline.errors import DownloadError, StoreError
from ae_pipeline.kinds.image_files import IMAGE_SUFFIXES
from ae_pipeline.operation.inbox.batches import growing_stores
from ae_pipeline.sources.mirrors import MIRROR_VARIABLE, fetch_verified, local_mirror
from ae_pipeline.sources.mnist import PINS
from ae_pipeline.store.format import verified_file as pieces
from flows.dvc_tasks import only_rebuild
from flows.rebuild import _read as read_last_metrics


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of two snapshots, its codec and its data: `store`, `codec`, `data`."""
    folder = tmp_path_factory.mktemp("made")
    grow(folder, (1, 2))
    return folder


@pytest.fixture
def tree(made, tmp_path, monkeypatch):
    """A copy in which a test may plant something, as the current folder."""
    folder = shutil.copytree(made, tmp_path / "tree")
    monkeypatch.chdir(folder)
    return folder


def fit_part(store):
    """Let the manifest agree with the first part, as that of somebody would who plants one."""

    def change(values):
        data = (store / values["parts"][0]["name"]).read_bytes()
        values["parts"][0] |= {
            "pieces": [f"{len(data)}:{pieces.digest(data)}"],
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }

    rewrite_manifest(store, change)


ENCODE = "encode data/batch-1.parquet --codec codec --store out --device cpu"
FILES = {
    "codec.json": ("codec/codec.json", ("info codec", ENCODE)),
    "weights": ("codec/weights.safetensors", (ENCODE,)),
    "data": ("data/batch-1.parquet", (ENCODE, "evaluate data/batch-1.parquet --codec codec")),
    "train split": (
        "data/batch-2.parquet",
        ("evaluate data/batch-1.parquet --codec codec --train data/batch-2.parquet",),
    ),
    "manifest": ("store/_manifest.json", ("info store", "decode store --out out", "verify store", "vacuum store")),
    "snapshot": ("store/_snapshots/*1*", ("info store --snapshot 1", "decode store --snapshot 1 --out out")),
    "store's codec.json": ("store/_codec/codec.json", ("info store", "decode store --out out", "verify store")),
    "store's weights": ("store/_codec/weights.safetensors", ("decode store --out out", "verify store")),
    "part": ("store/part-00000-*", ("decode store --out out", "decode store --ids 101 --out out", "verify store")),
}


@pytest.mark.parametrize("kind", PAYLOADS)
def test_the_payloads_are_live(kind, tmp_path):
    make, load = PAYLOADS[kind]
    data = make(tmp_path / "ran")
    assert not (tmp_path / "ran").exists()
    load(data)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("what", FILES)
def test_no_file_of_a_codec_a_store_or_a_data_set_runs_code(what, kind, tree, mark, ae):
    name, commands = FILES[what]
    (path,) = tree.glob(name)
    path.write_bytes(PAYLOADS[kind][0](mark))
    if what == "weights":
        fit_weights(tree / "codec")
    if what == "part":
        fit_part(tree / "store")
    for command in commands:
        result = ae(*command.split())
        is_sound = what in ("data", "train split") and kind == "arrow"  # but for what it says of its types
        assert refused(result) or (is_sound and result[0] == 0), result
        shutil.rmtree(tree / "out", ignore_errors=True)


def test_what_a_column_says_of_its_type_does_not_get_into_a_store(tree, mark, ae):
    """An old pyarrow that reads the store (before 14.0.1) would unpickle it."""
    (tree / "data/batch-1.parquet").write_bytes(arrow_extension(mark))
    assert ae(*ENCODE.split())[0] == 0
    (part,) = (tree / "out").glob("part-*")
    assert [field.metadata for field in pq.read_schema(part)] == [None] * 3


WORKSPACE = {
    "params.yaml": ("params.yaml", ("check", "stage train", "summary")),
    "dvc.lock": ("dvc.lock", ("summary", "publish")),
    "raw": ("data/raw/train-images-idx3-ubyte", ("stage prepare",)),
    "prepared": ("data/prepared/train/part-00000.parquet", ("stage train", "stage evaluate")),
    "codec": ("data/codec/weights.safetensors", ("stage evaluate", "stage encode")),
    "history": ("reports/history.csv", ("stage evaluate", "publish", "summary")),
    "metrics": ("reports/metrics.json", ("publish", "summary")),
    "round trip": ("reports/round_trip.json", ("summary",)),
    "store": ("data/latents/test/_manifest.json", ("stage decode", "summary")),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("what", WORKSPACE)
def test_no_file_of_the_workspace_runs_code(what, kind, workspace, tmp_path, monkeypatch, mark, ae):
    root = shutil.copytree(
        workspace[0], tmp_path / "workspace", ignore=shutil.ignore_patterns("mlruns", "as_published")
    )
    monkeypatch.chdir(root)
    name, commands = WORKSPACE[what]
    path = root / name
    assert path.exists()
    path.write_bytes(PAYLOADS[kind][0](mark))
    shutil.rmtree(root / "data/decoded")  # made by the stage `decode`, which would stop here otherwise
    if what == "codec":
        shutil.rmtree(root / "data/latents")
        fit_weights(root / "data/codec")
    for command in commands:
        result = ae(*command.split())
        assert refused(result), result


def test_the_last_metrics_and_the_notes_of_a_rebuild_run_no_code(mark, tmp_path):
    child = tmp_path / ".dvc/tmp/rebuild.child"
    child.parent.mkdir(parents=True)
    for make, _ in PAYLOADS.values():
        (tmp_path / "metrics.json").write_bytes(make(mark))
        assert read_last_metrics(tmp_path / "metrics.json") == {}
        child.write_bytes(make(mark))
        with only_rebuild(tmp_path, "a test"):
            assert not child.exists()


def test_no_file_of_a_mirror_runs_code(mark, tmp_path, monkeypatch):
    for make, _ in PAYLOADS.values():
        for name in PINS:
            (tmp_path / f"{name}.gz").write_bytes(make(mark))
        monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path))
        with pytest.raises(DownloadError, match="could not get"):
            fetch_verified(PINS, local_mirror("mnist"), tmp_path, "none")


@pytest.mark.parametrize("kind", PAYLOADS)
def test_no_file_of_an_inbox_runs_code(kind, tree, mark):
    box = tree / "data/inbox"
    box.mkdir()
    data = PAYLOADS[kind][0](mark)
    names = ["a.parquet", "b.npy", "c.npz", "d.pkl", "e.pt", "f-images-idx3-ubyte", "g-images-idx3-ubyte.gz"]
    for name in [*names, *(f"image{suffix}" for suffix in IMAGE_SUFFIXES)]:
        (box / name).write_bytes(data)
    settle(box)
    ledger = tree / "data/growing/.inbox/ledger.json"
    ledger.parent.mkdir(parents=True)
    ledger.write_bytes(data)
    done = run(tree, tree / "codec")
    assert done.files == (["a.parquet"] if kind == "arrow" else [])
    # Parquet is Parquet whatever it is called: the others of that content are known.
    assert len(done.files) + len(done.quarantined) + done.known == len(names) + len(IMAGE_SUFFIXES)
    for store in growing_stores(tree / "data/growing"):
        (store / "_manifest.json").write_bytes(data)
        with pytest.raises(StoreError):
            run(tree, tree / "codec")


def write_postscript(path, width=4, height=5):
    """An Encapsulated PostScript file, which Pillow has Ghostscript run."""
    path.write_text(
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 {width} {height}\n%%EndComments\n"
        f"newpath 0 0 moveto {width} {height} lineto stroke\nshowpage\n%%EOF\n"
    )


def test_no_image_runs_code(tree, mark, monkeypatch):
    """PostScript is a program, whatever the file is called."""
    box, tools = tree / "data/inbox", tree / "tools"
    box.mkdir()
    tools.mkdir()
    (tools / "gs").write_text(f"#!/bin/sh\n: > {mark}\n")
    (tools / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # which remembers that it found none
    for suffix in IMAGE_SUFFIXES:
        write_postscript(box / f"image{suffix}")
    settle(box)
    done = run(tree, tree / "codec")
    assert set(done.quarantined) == {f"image{suffix}" for suffix in IMAGE_SUFFIXES}
    assert not mark.exists()
    # The payload is a live one.
    with pytest.raises(Exception), Image.open(tree / "data/quarantine/image.png") as image:  # noqa: B017, PT011
        image.load()
    assert mark.exists()
    mark.unlink()
