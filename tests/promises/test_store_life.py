"""The life of a store as Hypothesis tells it: appended to, read, damaged, repaired and vacuumed in any order.

After every step the store must be what a list of snapshots, each a list of rows, says.
"""

import shutil
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
    """`parts` of the newest snapshot, data set by data set; how many of them each snapshot has; what was spoilt."""

    made: Path

    @initialize(layout=st.sampled_from(list(LAYOUTS)), first=st.integers(0, SETS - 1))
    def begin(self, layout, first):
        self.folder = Path(mkdtemp(dir=self.made))
        self.store = self.folder / "store"
        self.params = EncodeParams(layout=layout, row_group_rows=2, device="cpu")
        self.parts: list[int] = []
        self.snapshots: dict[int, int] = {}
        self.whole: dict[str, bytes] = {}
        self.spoilt: dict[str, int] = {}
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
            self.snapshots[max(self.snapshots, default=0) + 1] = len(self.parts)
        for name, data in bytes_of(self.store).items():
            if name not in self.spoilt:
                self.whole.setdefault(name, data) if name.startswith("part-") else self.whole.update({name: data})

    @rule(keep=st.integers(1, 4))
    def vacuum(self, keep):
        done = vacuum_store(self.store, keep)
        kept = sorted(self.snapshots)[-keep:]
        assert done.kept == kept
        self.snapshots = {number: self.snapshots[number] for number in kept}
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
        number = choice % len(self.parts)
        path = self.store / LatentStore.open(self.store).manifest.parts[number].name
        if path.name not in self.spoilt:
            spoil(path, how, place)
            self.spoilt[path.name] = number

    @rule(name=st.sampled_from(["codec.json", "weights.safetensors"]), place=st.integers(0, 10**6))
    def spoil_the_codec(self, name, place):
        inside = f"{CODEC_FOLDER}/{name}"
        if inside not in self.spoilt:
            spoil(self.store / inside, "flip", place)
            self.spoilt[inside] = -1
            with pytest.raises((CodecError, StoreError), match=CODEC_FOLDER):
                load_store_codec(LatentStore.open(self.store))

    @precondition(lambda self: self.spoilt)
    @rule()
    def repair(self):
        sources = [SampleSet.open(self.made / f"set{number}") for number in self.parts]
        done = repair_store(self.store, sources, codec_path=self.made / "codec", device="cpu", git={})
        assert (sorted(done.files), done.failed) == (sorted(self.spoilt), {})
        self.spoilt = {}
        files = bytes_of(self.store)
        assert {name: files[name] for name in self.whole} == self.whole

    @rule()
    def verify(self):
        verified = verify_store(self.store)
        assert {damage.file for damage in verified.damaged} == set(self.spoilt)
        assert verified.whole == (not self.spoilt)
        assert verified.earlier_snapshots == sorted(self.snapshots)[:-1]

    @invariant()
    def every_snapshot_gives_its_rows(self):
        for snapshot, count in self.snapshots.items():
            store = LatentStore.open(self.store, snapshot)
            damaged = sorted(number for number in self.spoilt.values() if 0 <= number < count)
            sound = [number for number in range(count) if number not in damaged]
            missing: list[str] = []
            found = read(store, on_damaged=lambda part, _, missing=missing: missing.append(part.name))
            assert found == [text for number in sound for text in texts_of(self.parts[number])]
            assert missing == [store.manifest.parts[number].name for number in damaged]
            if damaged:
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
