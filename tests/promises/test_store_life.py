"""The life of a store as Hypothesis tells it: it grows, is read, damaged, repaired, compacted, vacuumed in any order.

After every step the store must be what a list of snapshots, each a list of rows, says.
"""

import shutil
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp

import pyarrow as pa
import pytest
from examples import examples
from handmade import bytes_of, flip_bit, random_codec, random_pixels, write_rows
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, DamagedPartError, StoreError
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import CompactParams
from ae_pipeline.store.care.compaction import compact_store
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.store.care.vacuum import vacuum_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format.layouts import LAYOUTS
from ae_pipeline.store.format.manifest import CODEC_FOLDER, MANIFEST_NAME
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import load_store_codec
from ae_pipeline.store.writing.appending import append_samples

SETS = 6


@pytest.fixture(scope="module", autouse=True)
def made(tmp_path_factory):
    """Data sets of 1 to 6 rows; some ids are in two of them. And a codec."""
    folder = tmp_path_factory.mktemp("life")
    random_codec(folder / "codec", (4,))
    for number in range(SETS):
        rows = range(number + 1)
        pixels = random_pixels((len(rows), 4), "uint8", number)
        ids = [100 * (number // 2) + row for row in rows]
        write_rows(folder / f"set{number}" / "rows.parquet", pixels, id=ids, text=[f"{number}-{row}" for row in rows])
    Life.made = folder
    return folder


def texts_of(number):
    """The rows of a data set, by the one column in which all differ."""
    return [f"{number}-{row}" for row in range(number + 1)]


def read(store, **options):
    return [text for table in store.scan(["text", "latent"], **options) for text in table["text"].to_pylist()]


class Life(RuleBasedStateMachine):
    """`parts`: the data sets of the newest snapshot; which of them each part of a snapshot holds; what was spoilt."""

    made: Path

    @initialize(layout=st.sampled_from(list(LAYOUTS)), first=st.integers(0, SETS - 1))
    def begin(self, layout, first):
        self.folder = Path(mkdtemp(dir=self.made))
        self.store = self.folder / "store"
        self.params = EncodeParams(layout=layout, row_group_rows=2, device="cpu")
        self.parts: list[int] = []
        self.snapshots: dict[int, list[list[int]]] = {}
        self.whole: dict[str, bytes] = {}
        self.spoilt: set[str] = set()
        self.append([first])

    @rule(numbers=st.lists(st.integers(0, SETS - 1), min_size=1, max_size=3))
    def append(self, numbers):
        new = [number for number in dict.fromkeys(numbers) if number not in self.parts]
        sets = [SampleSet.open(self.made / f"set{number}") for number in numbers]
        if f"{CODEC_FOLDER}/codec.json" in self.spoilt:
            with pytest.raises((CodecError, StoreError), match=r"codec\.json"):
                append_samples(self.store, sets, self.made / "codec", self.params, name="x", git={})
            return
        appended = append_samples(self.store, sets, self.made / "codec", self.params, name="x", git={})
        assert (len(appended.parts), appended.skipped) == (len(new), len(numbers) - len(new))
        if new:
            self.parts += new
            newest = max(self.snapshots, default=0)
            self.snapshots[newest + 1] = [*self.snapshots.get(newest, []), *([number] for number in new)]
        self.note_files()

    def note_files(self):
        for name, data in bytes_of(self.store).items():
            if name not in self.spoilt:
                self.whole.setdefault(name, data) if name.startswith("part-") else self.whole.update({name: data})

    @rule(rows=st.integers(2, 40))
    def compact(self, rows):
        before = bytes_of(self.store)
        try:
            done = compact_store(self.store, CompactParams(rows=rows), git={})
        except (CodecError, StoreError) as error:
            if not any(name in str(error) for name in self.spoilt):
                raise
            assert self.snapshot_files(bytes_of(self.store)) == self.snapshot_files(before)
            return
        if done.joined:
            counts = [len(part.shards) for part in LatentStore.open(self.store).manifest.parts]
            numbers = iter(self.parts)
            self.snapshots[max(self.snapshots) + 1] = [list(islice(numbers, count)) for count in counts]
            assert len(counts) < len(self.snapshots[max(self.snapshots) - 1])
        self.note_files()

    def snapshot_files(self, files):
        """All but what interrupted runs left, which a writer may remove."""
        return {name: data for name, data in files.items() if name in self.whole or name in self.spoilt}

    @rule(keep=st.integers(1, 4))
    def vacuum(self, keep):
        done = vacuum_store(self.store, keep)
        kept = sorted(self.snapshots)[-keep:]
        assert done.kept == kept
        self.snapshots = {number: self.snapshots[number] for number in kept}
        listed = {part.name for number in kept for part in LatentStore.open(self.store, number).manifest.parts}
        self.spoilt = {name for name in self.spoilt if name in listed or name.startswith(CODEC_FOLDER)}
        self.whole = {
            name: data for name, data in self.whole.items() if (self.store / name).exists() or name in self.spoilt
        }
        self.whole |= {n: d for n, d in bytes_of(self.store).items() if n not in self.spoilt}

    @rule(
        left=st.sampled_from(
            ["part-00099-0123456789abcdef.parquet", f".{MANIFEST_NAME}.1.tmp", "_snapshots/.9.json.2.tmp"]
        )
    )
    def leave_something_behind(self, left):
        (self.store / left).parent.mkdir(exist_ok=True)
        (self.store / left).write_bytes(b"half a file")

    @rule(
        choice=st.integers(0, 99),
        how=st.sampled_from(["flip", "cut", "delete", "replace"]),
        place=st.integers(0, 10**6),
    )
    def spoil_a_part(self, choice, how, place):
        listed = [
            part.name for number in self.snapshots for part in LatentStore.open(self.store, number).manifest.parts
        ]
        path = self.store / listed[choice % len(listed)]
        if path.name not in self.spoilt:
            spoil(path, how, place)
            self.spoilt.add(path.name)

    @rule(name=st.sampled_from(["codec.json", "weights.safetensors"]), place=st.integers(0, 10**6))
    def spoil_the_codec(self, name, place):
        inside = f"{CODEC_FOLDER}/{name}"
        if inside not in self.spoilt:
            spoil(self.store / inside, "flip", place)
            self.spoilt.add(inside)
            with pytest.raises((CodecError, StoreError), match=CODEC_FOLDER):
                load_store_codec(LatentStore.open(self.store))

    @precondition(lambda self: self.spoilt)
    @rule()
    def repair(self):
        sources = [SampleSet.open(self.made / f"set{number}") for number in self.parts]
        done = repair_store(self.store, sources, codec_path=self.made / "codec", device="cpu", git={})
        assert (sorted(done.files), done.failed) == (sorted(self.spoilt), {})
        self.spoilt = set()
        files = bytes_of(self.store)
        assert {name: files[name] for name in self.whole} == self.whole

    @rule()
    def verify(self):
        verified = verify_store(self.store)
        assert {damage.file for damage in verified.damaged} == self.spoilt
        assert verified.whole == (not self.spoilt)
        assert verified.earlier_snapshots == sorted(self.snapshots)[:-1]

    @invariant()
    def every_snapshot_gives_its_rows(self):
        for snapshot, held in self.snapshots.items():
            store = LatentStore.open(self.store, snapshot)
            names = [part.name for part in store.manifest.parts]
            sound = [numbers for name, numbers in zip(names, held, strict=True) if name not in self.spoilt]
            missing: list[str] = []
            found = read(store, on_damaged=lambda part, _, missing=missing: missing.append(part.name))
            assert found == [text for numbers in sound for number in numbers for text in texts_of(number)]
            assert missing == [name for name in names if name in self.spoilt]
            if missing:
                with pytest.raises(DamagedPartError, match=missing[0]):
                    list(store.scan())
        assert LatentStore.open(self.store).manifest.snapshot == max(self.snapshots)

    @invariant()
    def no_other_snapshot_can_be_opened(self):
        for snapshot in {0, 1, max(self.snapshots) + 1} - set(self.snapshots):
            with pytest.raises(StoreError, match=f"has no snapshot {snapshot}; it has "):
                LatentStore.open(self.store, snapshot)

    def teardown(self):
        if hasattr(self, "folder"):
            assert [item.name for item in self.folder.iterdir()] == ["store"]
            shutil.rmtree(self.folder)


def spoil(path, how, place):
    data = path.read_bytes()
    if how == "flip":
        flip_bit(path, place % len(data), place % 8)
    elif how == "cut":
        path.write_bytes(data[: place % len(data)])
    elif how == "replace":
        path.write_bytes(bytes(len(data)))
    else:
        path.unlink()


@pytest.mark.slow
def test_a_store_is_what_was_done_to_it():
    run_state_machine_as_test(Life, settings=examples(8))


def test_rows_of_a_store_are_those_of_its_data_sets(made):
    """So `texts_of` is right."""
    for number in range(SETS):
        found = pa.concat_tables([block.attributes for block in [SampleSet.open(made / f"set{number}").load()]])
        assert found["text"].to_pylist() == texts_of(number)
