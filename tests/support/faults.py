"""Complete or absent: whatever stops a run, and at whichever step, the old state or the new one is there, whole.

The tests are in tests/promises/test_faults_*.py, a file for each operation.

Each operation is stopped at every step in which it changes the disk (`killing.py`). Then: what has a final name is
whole; the same call again finishes, makes no part twice, gives the bytes of a run that nothing stopped, and leaves
nothing else behind.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from handmade import bytes_of, flip_bit, random_codec, random_pixels, write_rows
from killing import Left, stopped_at_every_step

from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format import manifest
from ae_pipeline.store.latent_store import LatentStore

START = """
import sys
from ae_pipeline.store.writing.appending import append_samples
from ae_pipeline.store.reading.decode import decode_store
from ae_pipeline.store.writing.encoding import encode_samples
from ae_pipeline.errors import exit_code_of
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import CompactParams
from ae_pipeline.store.care.compaction import compact_store
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.store.care.vacuum import vacuum_store
from ae_pipeline.store.format import manifest

manifest.MOST_LISTED = 10_000  # one process runs these scripts one after the other
PARAMS = EncodeParams(device="cpu")

def run(folder):
    # As the command line does.
    code = exit_code_of(lambda: work(folder))
    if code:
        sys.exit(code)
"""
SEGMENTS = """
manifest.MOST_LISTED = 1
"""
ENCODE = """
def work(folder):
    encode_samples(SampleSet.open(folder / "data"), folder / "codec", folder / "out/store", PARAMS, name="x", git={})
"""
APPEND = """
def work(folder):
    sets = [SampleSet.open(file) for file in sorted((folder / "data").iterdir())]
    append_samples(folder / "out/store", sets, folder / "codec", PARAMS, name="x", git={})
"""
DECODE = """
def work(folder):
    decode_store(LatentStore.open(folder / "out/store"), folder / "out/decoded", device="cpu")
"""
REPAIR = """
def work(folder):
    sets, codec = [SampleSet.open(folder / "data")], folder / "codec"
    repair_store(folder / "out/store", sets, codec_path=codec, device="cpu", git={})
"""
VACUUM = """
def work(folder):
    vacuum_store(folder / "out/store")
"""
COMPACT = """
def work(folder):
    compact_store(folder / "out/store", CompactParams(), git={})
"""
SCRIPTS = {
    "encode": ENCODE,
    "append": APPEND,
    "decode": DECODE,
    "repair": REPAIR,
    "vacuum": VACUUM,
    "compact": COMPACT,
}


@dataclass(frozen=True)
class Operation:
    """A call, what it starts from, and what it makes when nothing stops it."""

    name: str
    script: str
    result: str
    template: Path
    whole: dict[str, bytes]
    """All files of the template's folder, after the call."""

    def again(self, folder: Path) -> None:
        """Make the call in this process."""
        names: dict = {}
        before = manifest.MOST_LISTED
        try:
            exec(compile(self.script, "script", "exec"), names)
            names["work"](folder)
        finally:
            manifest.MOST_LISTED = before


def operation(name: str, root: Path, start: str = START) -> Operation:
    """Two shards to encode, or to append to a store of one; a store of two for `decode`, `repair` and `compact`, in two
    snapshots for `vacuum`. `start` stands before each script.
    """
    template = root / "template"
    random_codec(template / "codec")
    if name == "append":
        shards(template, 1)
        do(APPEND, template, start)
        shards(template, 2, 3)
    elif name == "vacuum":
        for number in (1, 2):
            shards(template, number)
            do(APPEND, template, start)
    else:
        shards(template, 1, 2)
        if name != "encode":
            do(ENCODE, template, start)
    if name == "repair":
        first, second = (template / "out/store").glob("part-*")
        first.unlink()
        flip_bit(second, 100)
        flip_bit(template / "out/store/_codec/weights.safetensors", 100)
        for segment in (template / "out/store").glob("_segments/*"):
            flip_bit(segment, 100)
    whole = shutil.copytree(template, root / "whole")
    do(SCRIPTS[name], whole, start)
    result = "out/decoded" if name == "decode" else "out/store"
    return Operation(name, start + SCRIPTS[name], result, template, bytes_of(whole))


def shards(folder: Path, *numbers: int) -> None:
    for number in numbers:
        pixels = random_pixels((30, 5, 4), "uint8", seed=number)
        write_rows(folder / "data" / f"{number}.parquet", pixels, id=list(range(100 * number, 100 * number + 30)))


def do(script: str, folder: Path, start: str = START) -> None:
    Operation("", start + script, "", folder, {}).again(folder)


def check(wanted: Operation, left: Left) -> bool:
    """The promise, and the second run that keeps it. Whether the result was there before the second run."""
    found = state(wanted, left.folder)
    finished = files_of([*left.folder.glob("out/*/part-*"), *left.folder.glob("out/.*/part-*")])
    if wanted.name == "decode" and found:
        return found  # what is whole is never written over: a second run would say so
    wanted.again(left.folder)
    assert bytes_of(left.folder) == wanted.whole
    assert folders(left.folder) == folders(wanted.template.parent / "whole")
    if wanted.name in ("encode", "append", "compact"):
        now = files_of((left.folder / wanted.result).glob("part-*"))
        assert all(now[name] <= before for name, before in finished.items()), "a finished part was made again"
    return found


def files_of(parts: Iterable[Path]) -> dict[str, set[int]]:
    """Which files there are of each name."""
    found: dict[str, set[int]] = {}
    for part in parts:
        found.setdefault(part.name, set()).add(part.stat().st_ino)
    return found


def state(wanted: Operation, folder: Path) -> bool:
    """Whether the result is the new one; fails unless it is that or the old one, whole."""
    if not (folder / wanted.result).exists():
        assert not (wanted.template / wanted.result).exists(), "the old one is gone"
        return False
    found = bytes_of(folder / wanted.result)
    old, new = bytes_of(wanted.template / wanted.result), part_of(wanted.whole, wanted.result)
    if wanted.name == "decode":
        assert found == new
        return True
    if wanted.name == "repair":
        ours = {name for name in found if name in new}
        assert all(found[name] in (old.get(name), new[name]) for name in ours), "neither damaged as before nor whole"
        return ours == set(new) and found == new
    verified = verify_store(folder / wanted.result)
    assert verified.whole, verified
    if wanted.name == "vacuum":
        assert found.items() >= {item for item in new.items() if "vacuumed" not in item[0]}
        return found == new
    opened = LatentStore.open(folder / wanted.result).manifest
    listed = {"_manifest.json", "_codec/codec.json", "_codec/weights.safetensors"}
    listed |= {part.name for part in opened.parts} | {segment.name for segment in opened.segments}
    found = {name: data for name, data in found.items() if name in listed}
    if found == {name: data for name, data in new.items() if name in listed}:
        return True
    assert found == old, "neither the old one nor the new one"
    return False


def part_of(tree: dict[str, bytes], folder: str) -> dict[str, bytes]:
    return {name.removeprefix(f"{folder}/"): data for name, data in tree.items() if name.startswith(f"{folder}/")}


def folders(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir())


def commits_once(found: list[bool]) -> bool:
    """Whether it is the old one up to some step, and the new one from there on."""
    return found == sorted(found) and not found[0]


@pytest.mark.slow
class StoppedAnywhere:
    """Tests of one operation, for a class that gives its name."""

    name: str
    start = START
    made: Operation | None = None

    @pytest.fixture
    def wanted(self, tmp_path_factory) -> Operation:
        """The operation, prepared once."""
        if type(self).made is None:
            type(self).made = operation(self.name, tmp_path_factory.mktemp(self.name), self.start)
        return type(self).made

    @pytest.fixture
    def target(self, tmp_path) -> Iterator[Path]:
        """A folder that is to be made; in memory where that is possible, as hundreds of runs wait for the disk."""
        if not Path("/dev/shm").is_dir():
            yield tmp_path / "stopped"
            return
        with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="ae-pipeline-test-") as folder:
            yield Path(folder) / "stopped"

    def test_killed_at_any_step(self, wanted, target):
        stopped = stopped_at_every_step(wanted.script, wanted.template, target, "SIGKILL", every_write=True)
        assert {left.code for left in stopped} == {-9}
        found = [check(wanted, left) for left in stopped]
        assert commits_once(found)
        assert found[-1] or not stopped[-1].step, "the last step that is seen should come after the commit"

    def test_whatever_a_power_cut_leaves(self, wanted, target):
        cut = stopped_at_every_step(wanted.script, wanted.template, target, "power")
        found = [check(wanted, left) for left in cut]
        assert not found[0]
        # When the call has returned, its result is certain.
        assert [now for now, left in zip(found, cut, strict=True) if left.step == "none"] == [True, True]


class StoppedByTheDiskToo(StoppedAnywhere):
    """Disks that are full or closed as well, and signals that ask a run to end."""

    @pytest.mark.parametrize("fault", ["full", "denied"])
    def test_a_disk_that_is_full_or_closed_from_any_step_on(self, fault, wanted, target):
        stopped = stopped_at_every_step(wanted.script, wanted.template, target, fault)
        word = {"full": "No space left on device", "denied": "Permission denied"}[fault]
        for left in stopped:
            if left.code == 0:  # refused was only the clearing away of an empty work folder
                assert (fault, left.error, check(wanted, left)) == ("denied", "", True)
                continue
            assert (left.code, left.error.count("\n")) == (1, 1), left.error
            assert left.error.startswith("error: ")
            assert word in left.error
            check(wanted, left)

    def test_told_to_end_at_any_step(self, wanted, target):
        stopped = stopped_at_every_step(wanted.script, wanted.template, target, "SIGTERM or SIGINT")
        assert {left.code for left in stopped} == {130, 143}
        for left in stopped:
            word = {130: "interrupted", 143: "terminated"}[left.code]
            message = f"{word}; nothing incomplete has a final name, run the same command again to go on\n"
            assert left.error == message
            check(wanted, left)
