"""A store that DVC has replaced by links into its cache (`cache.type symlink`): what every command says and advises."""

import shutil
import subprocess
import sys

import pytest
from handmade import bytes_of, encode, random_codec, random_pixels, write_rows
from typer.testing import CliRunner

from ae_pipeline.cli.main import app
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import LinkedStoreError
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing.encoding import finished_or_removed


def dvc(folder, *arguments):
    subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, cwd=folder, capture_output=True)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A DVC repository with a store of links, and the data and codec that it is made of beside it."""
    folder = tmp_path_factory.mktemp("tracked")
    random_codec(folder / "codec")
    for number in range(2):
        write_rows(folder / f"{number}.parquet", random_pixels((20, 5, 4), "uint8", number), id=list(range(20)))
    dvc(folder, "init", "--no-scm", "-q")
    dvc(folder, "config", "cache.type", "symlink")
    encode(folder / "0.parquet", folder / "codec", folder / "store")
    dvc(folder, "add", "-q", "store")
    assert all(path.is_symlink() for path in (folder / "store").rglob("*") if not path.is_dir())
    return folder


def what_is_there(folder):
    links = {str(path): path.readlink() for path in folder.rglob("*") if path.is_symlink()}
    return links, bytes_of(folder / "store"), sorted(path.name for path in folder.iterdir())


COMMANDS = [
    ["info"], ["info", "--snapshot", "1"], ["decode", "--out", "OUT"], ["decode", "--out", "OUT", "--skip-damaged"],
    ["verify"], ["verify", "--json"], ["verify", "--deep", "--source", "0.parquet"], ["repair"],
    ["repair", "--source", "0.parquet", "--codec", "codec", "--accept-new-bytes"], ["append", "1.parquet"], ["vacuum"],
]  # fmt: skip


def invoke(folder, command, monkeypatch):
    monkeypatch.chdir(folder)
    return CliRunner().invoke(app, [command[0], "store", *command[1:]])


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["all links", "manifest replaced"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_says_what_the_links_are_and_changes_nothing(command, whole, tracked, tmp_path, monkeypatch):
    folder = shutil.copytree(tracked, tmp_path / "copy", symlinks=True)
    if not whole:  # as an older version's append did it
        data = (folder / "store/_manifest.json").read_bytes()
        (folder / "store/_manifest.json").unlink()
        (folder / "store/_manifest.json").write_bytes(data)
        if command[0] == "info":
            command = ["evaluate", "0.parquet", "--store", "store"]
    before = what_is_there(folder)
    monkeypatch.chdir(folder)
    arguments = command if command[0] == "evaluate" else [command[0], "store", *command[1:]]
    found = CliRunner().invoke(app, arguments)
    assert isinstance(found.exception, LinkedStoreError)
    assert "`dvc config cache.type reflink,hardlink,copy`, then `dvc checkout --relink`" in str(found.exception)
    assert "nothing is damaged" in str(found.exception)
    assert what_is_there(folder) == before


@pytest.mark.slow
def test_an_encode_into_that_place_removes_nothing(tracked):
    samples, before = SampleSet.open(tracked / "0.parquet"), what_is_there(tracked)
    for params in (EncodeParams(device="cpu"), EncodeParams(device="cpu", layout="binary")):
        with pytest.raises(LinkedStoreError):
            finished_or_removed(tracked / "store", samples, tracked / "codec", params)
        with pytest.raises(LinkedStoreError):
            encode(samples, tracked / "codec", tracked / "store", layout=params.layout)
    assert what_is_there(tracked) == before


@pytest.mark.slow
def test_the_advice_works(tracked, tmp_path):
    folder = shutil.copytree(tracked, tmp_path / "copy", symlinks=True)
    dvc(folder, "config", "cache.type", "reflink,hardlink,copy")
    dvc(folder, "checkout", "--relink")
    assert not any(path.is_symlink() for path in (folder / "store").rglob("*"))
    assert verify_store(folder / "store").whole


def test_a_link_that_is_none_of_dvcs_is_still_called_a_link(tracked, tmp_path):
    folder = shutil.copytree(tracked / "store", tmp_path / "store")
    (part,) = LatentStore.open(folder).manifest.parts
    (folder / part.name).rename(tmp_path / "elsewhere")
    (folder / part.name).symlink_to(tmp_path / "elsewhere")
    (damage,) = verify_store(folder).damaged
    assert "is a link; the files of a store must lie in it" in damage.reason
