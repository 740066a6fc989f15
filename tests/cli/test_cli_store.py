"""append, verify, repair, compact and vacuum as a user types them: what they print, and their exit codes."""

import json
import shutil

import pytest
from grown import batch, copied, grow, rewrite_manifest
from handmade import bytes_of, flip_bit, random_codec

from ae_pipeline.store.format.manifest import MANIFEST_NAME
from ae_pipeline.store.latent_store import LatentStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three parts in three snapshots; their data beside it."""
    return grow(tmp_path_factory.mktemp("cli"))


@pytest.fixture
def store(whole, tmp_path):
    return copied(whole, tmp_path / "store")


@pytest.fixture
def data(whole):
    return whole.path.parent / "data"


def test_append_takes_the_stores_own_settings(ae, store, tmp_path):
    new = batch(tmp_path, 4).files[0]
    code, out, _ = ae("append", store, new, "--device", "cpu")
    assert (code, "nothing added" in out) == (0, False)
    manifest = LatentStore.open(store).manifest
    assert (manifest.snapshot, manifest.totals.rows, manifest.latent.row_group_rows) == (4, 160, 16)
    before = bytes_of(store)
    code, out, _ = ae("append", store, new, batch(tmp_path, 4).files[0])
    assert code == 0
    assert "nothing added: the store holds all of this data already" in out
    values = json.loads(ae("append", store, new, "--json")[1])
    assert values == {
        "store": str(store),
        "snapshot": 4,
        "added_rows": 0,
        "added_parts": 0,
        "shards_it_had": 1,
        "rows": 160,
    }
    assert bytes_of(store) == before


def test_compact_says_what_it_joined(ae, store, data):
    before = bytes_of(store)
    code, out, _ = ae("compact", store, "--dry-run")
    assert (code, "would join 3 parts into 1: 120 rows" in out, bytes_of(store)) == (0, True, before)
    code, out, _ = ae("compact", store)
    (part,) = LatentStore.open(store).manifest.parts
    sizes = sum(len(value) for name, value in before.items() if name.startswith("part-")), part.bytes
    assert (code, "joined 3 parts into 1: 120 rows, {:,} bytes into {:,}".format(*sizes) in out) == (0, True)
    assert "4; earlier snapshots still need the former files; `ae-pipeline vacuum` removes both" in out
    values = json.loads(ae("compact", store, "--json")[1])
    assert (values["joined"], values["snapshot"], values["parts"], values["dry_run"]) == (0, 4, 1, False)
    assert "nothing to join: the store has one part" in ae("compact", store, "--rows", 2)[1]
    assert ae("vacuum", store)[0] == 0
    code, out, _ = ae("verify", store, "--deep", "--source", data / "batch-2.parquet")
    assert (code, "only part of its data was given: the rows of 1 of its files were compared" in out) == (0, True)
    code, out, _ = ae("verify", store, "--deep", "--source", data)
    assert (code, "1 parts, encoded again from the data, are the same byte for byte" in out) == (0, True)
    (store / part.name).unlink()
    assert ae("repair", store, "--source", data)[0] == 0
    assert ae("verify", store)[0] == 0
    assert ae("info", store, "--json")[0] == 0


def test_append_makes_no_store(ae, tmp_path):
    code, _, err = ae("append", tmp_path / "none", batch(tmp_path, 1).files[0])
    assert (code, err.count("\n")) == (1, 1)
    assert "no store at" in err
    assert not (tmp_path / "none").exists()


def test_verify_says_whole_and_exits_with_0(ae, store):
    code, out, _ = ae("verify", store)
    assert code == 0
    assert out.splitlines()[-1] == "result      whole"
    assert "reproduced: " in out
    values = json.loads(ae("verify", store, "--json")[1])
    assert (values["whole"], values["damaged"], values["deep"], values["earlier_snapshots"]) == (True, [], None, [1, 2])


def test_verify_names_damage_and_the_next_step_and_exits_with_1(ae, store):
    name = LatentStore.open(store).manifest.parts[1].name
    flip_bit(store / name, 200)
    code, out, _ = ae("verify", store)
    assert code == 1
    assert f"damaged     {name}: bytes " in out
    assert "costs 40 rows (ids 200 to 239)" in out
    assert "rows that cannot be read: 40 of 120" in out
    assert f"ae-pipeline repair {store} --source" in out
    code, out, _ = ae("verify", store, "--json")
    values = json.loads(out)
    assert (code, values["whole"], values["rows_lost"]) == (1, False, 40)
    assert values["damaged"][0]["file"] == name
    assert ae("verify", store, "--snapshot", 1)[0] == 0
    assert ae("verify", store, "--snapshot", 2)[0] == 1


def test_verify_without_any_manifest_still_reports(ae, store):
    (store / MANIFEST_NAME).unlink()
    shutil.rmtree(store / "_snapshots")
    code, out, err = ae("verify", store)
    assert (code, err) == (1, "")
    assert f"{MANIFEST_NAME}: is missing" in out


def test_verify_deep_compares_with_the_data(ae, store, data, tmp_path):
    code, out, _ = ae("verify", store, "--deep", "--source", data, "--device", "cpu")
    assert code == 0
    assert "deep        3 parts, encoded again from the data, are the same byte for byte" in out
    assert out.splitlines()[-1] == "result      whole"
    sources = ("--source", data / "batch-1.parquet", "--source", batch(tmp_path, 5).files[0])
    code, out, _ = ae("verify", store, "--deep", *sources)
    assert code == 1
    assert "not in store  40 rows of the data: do not delete them" in out
    assert "result      NOT ALL OF THE DATA: " in out
    assert f"next        keep the data; ae-pipeline append {store} adds what is missing" in out
    code, out, _ = ae("verify", store, "--deep", *sources, "--json")
    values = json.loads(out)
    assert (code, values["whole"], values["holds_source"], values["deep"]["identical"]) == (1, True, False, 1)
    # Whatever else is wrong with the store.
    damaged = copied(LatentStore.open(store), tmp_path / "damaged")
    flip_bit(damaged / LatentStore.open(store).manifest.parts[1].name, 200)
    code, out, _ = ae("verify", damaged, "--deep", *sources)
    assert (code, "not in store  40 rows of the data: do not delete them" in out) == (1, True)
    # A file that has changed since it was encoded is not new data.
    renewed = batch(tmp_path / "renewed", 6).files[0]
    renewed = renewed.rename(renewed.with_name("batch-2.parquet"))
    code, out, _ = ae("verify", store, "--deep", "--source", data / "batch-1.parquet", "--source", renewed)
    assert f"{renewed} was changed since it was encoded" in out
    assert (code, "appended, their rows would be there twice" in out.splitlines()[-1]) == (1, True)
    # A part of the data that is all there: nothing is known of the rest.
    code, out, _ = ae("verify", store, "--deep", *sources[:2])
    assert (code, out.splitlines()[-1]) == (0, "result      whole, but 2 of 3 parts were not compared with the data")
    values = json.loads(ae("verify", store, "--deep", *sources[:2], "--json")[1])
    assert (values["whole"], values["holds_source"], len(values["deep"]["not_compared"])) == (True, True, 2)


def test_with_a_lost_manifest_every_command_leads_to_verify_and_repair(ae, store, data):
    (store / MANIFEST_NAME).unlink()
    new = data / "batch-1.parquet"
    for arguments in (
        ("info", store),
        ("decode", store, "--out", store.parent / "decoded"),
        ("append", store, new),
        ("vacuum", store),
        ("encode", new, "--codec", store / "_codec", "--store", store),
    ):
        code, _, err = ae(*arguments)
        assert (code, err.count("\n")) == (1, 1)
        assert f"({MANIFEST_NAME} is missing)" in err
        assert "`ae-pipeline verify` says what is left" in err
        assert "`repair`" in err
    code, out, _ = ae("verify", store)
    assert (code, f"next        ae-pipeline repair {store} with --source" in out) == (1, True)
    code, out, _ = ae("info", store, "--snapshot", 2, "--json")
    assert (code, json.loads(out)["snapshots"]) == (0, [1, 2])


def test_a_store_of_a_newer_version_is_called_that_and_left_alone(ae, store, data):
    rewrite_manifest(store, lambda values: values.update(format=5, added_later=[]))
    before = bytes_of(store)
    for arguments in (
        ("info", store),
        ("verify", store),
        ("repair", store, "--source", data),
        ("compact", store),
        ("vacuum", store),
    ):
        code, out, err = ae(*arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "has format 5, expected 1, 2, 3 or 4: a later version of ae-pipeline wrote it; use that one" in err
    assert bytes_of(store) == before


def test_a_flipped_bit_in_the_format_is_damage_all_the_same(ae, store):
    before = (store / MANIFEST_NAME).read_bytes()
    (store / MANIFEST_NAME).write_bytes(before.replace(b'"format": 2', b'"format": 3'))
    code, out, _ = ae("verify", store)
    assert (code, "was changed: its digest does not match" in out) == (1, True)
    assert "or run `ae-pipeline repair`" in ae("info", store)[2]


def test_what_a_stranger_named_is_never_sent_to_the_terminal(ae, store):
    evil = "\x1b]0;owned\x07\u202e"
    rewrite_manifest(store, lambda values: values["written_by"].update({evil: evil}))
    rewrite_manifest(store, lambda values: values["columns"][1].update(name=evil))
    for arguments in (("info", store), ("verify", store), ("decode", store, "--out", store.parent / "x")):
        _, out, err = ae(*arguments)
        assert not any(sign in out + err for sign in "\x1b\x07\u202e")
        assert "\\x1b]0;owned\\x07\\u202e" in out + err
    assert json.loads(ae("info", store, "--json")[1])["written_by"][evil] == evil


def test_append_to_a_store_with_missing_parts_says_so(ae, store, tmp_path):
    names = [part.name for part in LatentStore.open(store).manifest.parts]
    (store / names[0]).unlink()
    (store / names[1]).write_bytes(b"short")
    code, _, err = ae("append", store, batch(tmp_path, 4).files[0], "--device", "cpu")
    assert code == 0
    assert "warning: 2 parts of the store are missing or of another size" in err
    assert names[0] in err
    assert "ae-pipeline verify" in err


def test_a_lost_earlier_manifest_is_not_said_to_be_no_snapshot(ae, store):
    (store / "_snapshots/1.json").unlink()
    code, _, err = ae("vacuum", store, "--keep", 3)
    assert (code, err.count("\n")) == (1, 1)
    assert "_snapshots/1.json is missing, and cannot be made again; keep 2 or fewer" in err
    assert ae("vacuum", store, "--keep", 2)[0] == 0
    assert ae("verify", store)[0] == 0


def test_mistakes_are_one_line(ae, store, tmp_path):
    for arguments, message in (
        (("verify", store, "--deep"), "give both --deep and --source"),
        (("verify", tmp_path / "none"), "no store at"),
        (("verify", store, "--snapshot", 9), "has no snapshot 9"),
        (("repair", tmp_path / "none"), "no store at"),
        (("vacuum", tmp_path / "none"), "no store at"),
        (("repair", "memory://store"), "is a URL, expected a folder"),
        (("vacuum", "memory://store"), "is a URL, expected a folder"),
        (("append", "memory://store", batch(tmp_path, 4).files[0]), "is not a complete latent store"),
        (("repair", store, "--source", tmp_path / "nothing"), "no data set at"),
        (("repair", tmp_path / "none", "--source", tmp_path), "no store at"),
        (("verify", tmp_path / "none", "--deep", "--source", tmp_path), "no store at"),
    ):
        code, out, err = ae(*arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert message in err


def test_repair_gives_the_store_back(ae, store, data, whole):
    assert ae("repair", store)[1].endswith("nothing is damaged; nothing was changed\n")
    names = [part.name for part in LatentStore.open(store).manifest.parts]
    for name in names[:2]:
        (store / name).unlink()
    code, out, _ = ae("repair", store, "--source", data / "batch-1.parquet", "--device", "cpu")
    assert code == 1
    assert f"given back  {names[0]}" in out
    assert f"failed      {names[1]}: no source holds what it was made from (batch-2.parquet, unchanged)" in out
    code, out, _ = ae("repair", store, "--source", data, "--json")
    assert (code, json.loads(out)["files"]) == (0, [names[1]])
    assert bytes_of(store) == bytes_of(whole.path)


def test_repair_takes_the_codec_from_a_copy(ae, store, whole):
    (store / "_codec/codec.json").unlink()
    assert "give a folder with a copy of the codec" in ae("repair", store)[1]
    assert ae("repair", store, "--codec", whole.path.parent / "codec")[0] == 0
    assert bytes_of(store) == bytes_of(whole.path)


@pytest.mark.parametrize("shape", [(5, 4), (4, 5)], ids=["same samples", "other samples"])
def test_append_with_a_swapped_codec_leads_to_repair_which_helps(shape, ae, store, whole, tmp_path):
    shutil.rmtree(store / "_codec")
    random_codec(store / "_codec", shape, seed=9)
    before, more = bytes_of(store), batch(tmp_path, 9).files[0]
    code, _, err = ae("append", store, more)
    assert code == 1
    assert "_codec has fingerprint" in err
    assert "put the right codec back: `ae-pipeline repair` takes a copy (--codec)" in err
    assert bytes_of(store) == before
    assert ae("repair", store, "--codec", whole.path.parent / "codec")[0] == 0
    assert ae("append", store, more, "--device", "cpu")[0] == 0


def test_repair_says_what_new_bytes_are(ae, store, data):
    """The manifest is lost, and with it who wrote it: what comes out is known to hold the rows, not to be the same."""
    (store / MANIFEST_NAME).unlink()
    sources = [word for path in sorted(data.iterdir()) for word in ("--source", path)]
    code, out, _ = ae("repair", store, *sources)
    assert code == 1
    assert "stood only in the manifest that was lost" in out
    assert "--accept-new-bytes" in out
    code, out, _ = ae("repair", store, *sources, "--accept-new-bytes")
    assert code == 0
    assert f"made anew   {MANIFEST_NAME}" in out
    assert "result      0 files given back byte for byte, 1 made anew" in out
    assert "named `rebuilt`" in out
    assert ae("verify", store)[0] == 0


def test_vacuum_says_what_it_removes(ae, store):
    before = bytes_of(store)
    code, out, _ = ae("vacuum", store, "--dry-run")
    assert code == 0
    assert "would remove 2 files" in out
    assert bytes_of(store) == before
    values = json.loads(ae("vacuum", store, "--keep", 2, "--json")[1])
    assert (values["files"], values["kept"], values["dry_run"]) == (["_snapshots/1.json"], [2, 3], False)
    code, out, _ = ae("vacuum", store)
    assert code == 0
    assert out.splitlines()[-1].startswith("result      removed 1 files, ")
    assert out.endswith("kept: 3\n")
