"""Every changed byte, cut or removal in any file of a store is found, and costs no more than its part."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from grown import copied, grow, read_ids, spoil

from ae_pipeline.errors import CodecError, DamagedPartError, StoreError
from ae_pipeline.store.care.snapshots import VACUUMED_NAME, read_vacuumed
from ae_pipeline.store.care.vacuum import vacuum_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format import manifest
from ae_pipeline.store.format.manifest import MANIFEST_NAME
from ae_pipeline.store.format.segment_file import SEGMENTS_FOLDER
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import load_store_codec

GOLDEN = Path(__file__).parents[1] / "golden"
# Damaged alone: they say what the other files should be.
ALONE = (MANIFEST_NAME, VACUUMED_NAME)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Formats 2 and 4: three parts in three snapshots, the first of which was vacuumed. Format 1: the golden store."""
    folder = tmp_path_factory.mktemp("flips")
    grow(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "MOST_LISTED", 1)
        grow(folder / "many")
    for store in (folder / "store", folder / "many/store"):
        vacuum_store(store, keep=2)
    return {1: GOLDEN / "store-v1", 2: folder / "store", 4: folder / "many/store"}


@pytest.mark.slow
@pytest.mark.parametrize(("version", "positions"), [(1, 250), (2, 1000), (4, 250)])
def test_no_damage_is_missed(stores, version, positions, tmp_path):
    random = np.random.default_rng(version)
    whole = Original(stores[version])
    store = copied(whole.store, tmp_path / "store")
    assert verify_store(store).whole
    found = 0
    while found < positions:
        alone = [name for name in whole.files if name in ALONE or name.startswith(SEGMENTS_FOLDER)]
        others = [name for name in whole.files if name not in alone]
        some = [name for name in others if random.random() < 0.7]
        chosen = some if some and random.random() < 0.85 else [str(random.choice(alone))]
        kinds = {name: spoil(store / name, random) for name in chosen}
        found += list(kinds.values()).count("flip")
        whole.check_verified(store, kinds)
        whole.check_read(store, kinds)
        for name in chosen:
            shutil.copy(whole.store.path / name, store / name)


class Original:
    """A whole store, and what reading it gives."""

    def __init__(self, path: Path):
        self.store = LatentStore.open(path)
        self.files = self.store.storage.names()
        self.parts = {part.name: part for part in self.store.manifest.parts}
        self.rows = {name: self._rows(self.store, part) for name, part in self.parts.items()}

    def check_verified(self, store: Path, kinds: dict[str, str]) -> None:
        """`verify` names the damaged files, all of them and no others."""
        found = {damage.file for damage in verify_store(store).damaged}
        # Without the record that snapshot 1 was removed on purpose, it is missing.
        assert found == ({"_snapshots/1.json"} if kinds == {VACUUMED_NAME: "remove"} else set(kinds)), kinds

    def check_read(self, store: Path, kinds: dict[str, str]) -> None:
        """Reading a damaged file is an error; reading the others gives what they hold."""
        if MANIFEST_NAME in kinds:
            self._fails_or_equals(kinds, lambda: LatentStore.open(store).manifest, self.store.manifest)
            return
        opened = LatentStore.open(store)
        if any(name.startswith(SEGMENTS_FOLDER) for name in kinds):
            with pytest.raises(StoreError, match=next(iter(kinds))):
                list(opened.manifest.parts)
            return
        for name, part in self.parts.items():
            if name in kinds:
                with pytest.raises(DamagedPartError, match=name):
                    self._rows(opened, part)
            else:
                assert self._rows(opened, part) == self.rows[name]
        skipped = []
        ids = read_ids(opened, on_damaged=lambda part, error: skipped.append(part.name))
        assert skipped == [name for name in self.parts if name in kinds]
        assert ids == [one for name in self.parts if name not in kinds for one in self.rows[name][0]]
        if any(name.startswith("_codec/") for name in kinds):
            with pytest.raises((CodecError, StoreError)):
                load_store_codec(opened, "cpu")
        else:
            load_store_codec(opened, "cpu")
        if "_snapshots/2.json" in kinds:
            wanted = LatentStore.open(self.store.path, 2).manifest
            self._fails_or_equals(kinds, lambda: LatentStore.open(store, 2).manifest, wanted)
        if kinds.get(VACUUMED_NAME) in ("flip", "cut"):
            self._fails_or_equals(kinds, lambda: read_vacuumed(store), read_vacuumed(self.store.path))

    def _rows(self, store: LatentStore, part) -> tuple:
        blocks = list(store.read_part(part, 1000))
        ids = [one for rows in blocks for one in rows.attributes["id"].to_pylist()]
        return ids, b"".join(rows.latents.tobytes() + rows.error.tobytes() for rows in blocks)

    def _fails_or_equals(self, kinds, read, wanted) -> None:
        """JSON may be changed between its values: then what is read is what was written. `verify` finds that, too."""
        try:
            found = read()
        except StoreError:
            return
        assert found == wanted, kinds
