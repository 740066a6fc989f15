"""A lost or damaged manifest is made again from all the data, and says when it cannot be known to be the same."""

import json
import shutil

import numpy as np
import pytest
from grown import batch, copied, grow
from handmade import bytes_of, encode, flip_bit, random_codec

from ae_pipeline.cli.store_text import format_verified
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format.manifest import CODEC_FOLDER, MANIFEST_NAME, SNAPSHOTS_FOLDER
from ae_pipeline.store.latent_store import LatentStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`store`: three parts in three snapshots; `plain`: one that was encoded at once; their data beside them."""
    folder = tmp_path_factory.mktemp("rebuilding")
    grow(folder)
    encode(folder / "data", folder / "codec", folder / "plain", row_group_rows=16)
    return folder


@pytest.fixture
def sets(folder):
    return [SampleSet.open(path) for path in sorted((folder / "data").iterdir())]


def repair(store, sources, **options):
    return repair_store(store, sources, device="cpu", git={}, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["store", "plain"])
def test_a_changed_byte_of_the_manifest_is_found_out_from_the_data(name, folder, sets, tmp_path):
    random = np.random.default_rng(4)
    sources = sets if name == "store" else [SampleSet.open(folder / "data")]
    store = copied(LatentStore.open(folder / name), tmp_path / "store")
    whole = (folder / name / MANIFEST_NAME).read_bytes()
    proven = 0
    for place in random.integers(len(whole), size=25):
        flip_bit(store / MANIFEST_NAME, int(place), int(random.integers(8)))
        done = repair(store, sources)
        if done.failed:  # a byte of what only the manifest knew
            (store / MANIFEST_NAME).write_bytes(whole)
        proven += not done.failed
        assert bytes_of(store) == bytes_of(folder / name)
    assert proven >= 23


def test_one_that_was_cut_short_needs_consent_for_who_wrote_it(folder, sets, tmp_path):
    store = copied(LatentStore.open(folder / "store"), tmp_path / "store")
    whole = (store / MANIFEST_NAME).read_bytes()
    (store / MANIFEST_NAME).write_bytes(whole[: whole.index(b'"written_by"')])
    before = bytes_of(store)
    # The writer's versions and commit are those of this run here, but the digest that would prove it is gone.
    failed = repair(store, sets).failed[MANIFEST_NAME]
    assert "no row is in doubt; but who wrote the store" in failed
    assert bytes_of(store) == before
    done = repair(store, sets, accept_new_bytes=True)
    assert (done.files, done.made_anew, done.failed, done.snapshot) == ([], [MANIFEST_NAME], {}, 3)
    assert bytes_of(store) == bytes_of(folder / "store")
    assert verify_store(store).whole


def test_one_that_is_gone_with_some_parts(folder, sets, tmp_path):
    store = copied(LatentStore.open(folder / "store"), tmp_path / "store")
    names = [part.name for part in LatentStore.open(store).manifest.parts]
    (store / MANIFEST_NAME).unlink()
    (store / names[0]).unlink()
    flip_bit(store / names[1], 40)
    assert "give all data sets of the store with --source" in repair(store, []).failed[MANIFEST_NAME]
    done = repair(store, sets, accept_new_bytes=True)
    assert (done.files, done.made_anew, done.failed) == ([], [names[0], names[1], MANIFEST_NAME], {})
    found = verify_store(store)
    assert (found.whole, found.snapshot, found.rows) == (True, 3, 120)
    parts = LatentStore.open(store).manifest.parts
    assert parts == LatentStore.open(folder / "store").manifest.parts


def test_data_that_is_not_all_of_it_or_in_another_order_is_refused(folder, sets, tmp_path):
    store = copied(LatentStore.open(folder / "store"), tmp_path / "store")
    (store / MANIFEST_NAME).unlink()
    before = bytes_of(store)
    for some in (sets[:2], sets[::-1], [batch(tmp_path, 9)]):
        failed = repair(store, some, accept_new_bytes=True).failed[MANIFEST_NAME]
        assert "do not come from the given data" in failed
        assert bytes_of(store) == before


def test_an_old_copy_is_no_proof(folder, sets, tmp_path):
    store = copied(LatentStore.open(folder / "store"), tmp_path / "store")
    shutil.copy(store / "_snapshots/1.json", store / MANIFEST_NAME)
    assert "stood only in the manifest that was lost" in repair(store, sets).failed[MANIFEST_NAME]
    assert json.loads((store / MANIFEST_NAME).read_bytes())["snapshot"] == 1


def test_a_store_of_format_1_comes_back_as_it_was(folder, tmp_path):
    """Without pieces and probe, as the first version wrote it."""
    from grown import rewrite_manifest

    store = copied(LatentStore.open(folder / "plain"), tmp_path / "store")

    def as_format_1(values):
        values["format"] = 1
        del values["probe"]
        for part in values["parts"]:
            del part["pieces"]

    rewrite_manifest(store, as_format_1)
    assert verify_store(store).whole
    before = bytes_of(store)
    text = (store / MANIFEST_NAME).read_bytes()
    (store / MANIFEST_NAME).write_bytes(text.replace(b'"rows": 40', b'"rows": 41', 1))
    assert repair(store, [SampleSet.open(folder / "data")]).files == [MANIFEST_NAME]
    assert bytes_of(store) == before


def test_manifest_and_codec_both_lost_come_back_from_data_and_a_copy(folder, sets, tmp_path):
    store = copied(LatentStore.open(folder / "store"), tmp_path / "store")
    shutil.copytree(store / CODEC_FOLDER, tmp_path / "copy")
    flip_bit(store / MANIFEST_NAME, 30)
    flip_bit(store / CODEC_FOLDER / "weights.safetensors", 300)
    failed = repair(store, sets).failed
    assert "give a folder with a copy of the codec" in failed[f"{CODEC_FOLDER}/weights.safetensors"]
    assert "the store's codec" in failed[MANIFEST_NAME]
    assert {damage.file for damage in verify_store(store).damaged} >= {MANIFEST_NAME}
    assert "--codec" in format_verified(verify_store(store))
    done = repair(store, sets, codec_path=tmp_path / "copy")
    assert done.failed == {}
    assert set(done.files) == {MANIFEST_NAME, f"{CODEC_FOLDER}/weights.safetensors"}
    assert bytes_of(store) == bytes_of(folder / "store")


def test_a_codec_comes_back_though_the_manifest_does_not(folder, tmp_path):
    """An earlier snapshot says which codec it was."""
    store = copied(LatentStore.open(folder / "store"), tmp_path / "store")
    shutil.copytree(store / CODEC_FOLDER, tmp_path / "copy")
    (store / MANIFEST_NAME).unlink()
    (store / CODEC_FOLDER / "weights.safetensors").unlink()
    done = repair(store, [], codec_path=tmp_path / "copy")
    assert (done.files, list(done.failed)) == ([f"{CODEC_FOLDER}/weights.safetensors"], [MANIFEST_NAME])
    assert bytes_of(store / CODEC_FOLDER) == bytes_of(folder / "store" / CODEC_FOLDER)


def test_another_codec_makes_no_manifest(folder, sets, tmp_path):
    store = copied(LatentStore.open(folder / "store"), tmp_path / "store")
    random_codec(tmp_path / "other", seed=5)
    (store / MANIFEST_NAME).unlink()
    shutil.rmtree(store / CODEC_FOLDER)
    shutil.rmtree(store / SNAPSHOTS_FOLDER)
    before = bytes_of(store)
    failed = repair(store, sets, codec_path=tmp_path / "other", accept_new_bytes=True).failed[MANIFEST_NAME]
    assert "do not come from the given data" in failed
    assert "with the store's codec" in failed
    assert bytes_of(store) == before


def test_a_name_alone_that_is_gone_is_said(folder, sets, tmp_path):
    store = copied(LatentStore.open(folder / "store"), tmp_path / "store")
    (store / MANIFEST_NAME).unlink()
    failed = repair(store, sets).failed[MANIFEST_NAME]
    assert "all 3 parts are in the store as the data gives them: no row is in doubt" in failed
