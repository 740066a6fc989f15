"""`decode --restored`: values moved within their bins, by codecs that promise a bound and have learned to restore."""

import json

import numpy as np
import pytest
from contexts import pictures, random_context_codec, random_networks
from handmade import encode, write_rows

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.restore import Restorer
from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError
from ae_pipeline.params import Params
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_rows, decode_store
from ae_pipeline.training.build import build_codec

SIDES = (9, 8)
STREAM = {"layout": "stream", "row_group_rows": 50}


@pytest.mark.parametrize("error", [1, 5, 40, 127])
def test_a_bin_is_all_values_of_an_index(error):
    values, grid = np.arange(256, dtype=np.uint8), Grid(error)
    index = grid.indices(values)
    for number, (lowest, highest) in enumerate(zip(*grid.bins, strict=True)):
        assert [lowest, highest] == [values[index == number].min(), values[index == number].max()]
    assert grid.restored_max_error <= 2 * error


@pytest.mark.parametrize("error", [1, 5, 40, 127])
def test_a_restored_value_stays_in_its_bin_whatever_the_network_says(error):
    grid, rows = Grid(error), pictures(70, SIDES)
    values = grid.values[grid.indices(rows)]
    restorer = Restorer(random_networks(SIDES, error, restore=(16, 8)), grid)
    found = restorer(values)
    assert (found != values).any()
    assert (grid.indices(found) == grid.indices(rows)).all()
    assert np.abs(found.astype(int) - rows).max() <= grid.restored_max_error
    alone = np.concatenate([restorer(values[number : number + 1]) for number in range(len(values))])
    assert (alone == found).all()


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows.parquet", pictures(120, SIDES), id=list(range(120)))


@pytest.fixture
def store(rows, tmp_path):
    random_context_codec(tmp_path / "codec", SIDES, 20, restore=(16, 8))
    return encode(rows, tmp_path / "codec", tmp_path / "store", **STREAM)


def test_a_row_is_restored_alone_as_among_all(store, tmp_path):
    plain = decode_store(store, tmp_path / "plain", device="cpu").load().pixels
    restored = decode_store(store, tmp_path / "restored", device="cpu", restored=True).load().pixels
    assert (restored == Codec.load(store.codec_path).restore(plain)).all()
    assert (restored != plain).any()
    (block,) = decode_rows(store, ids=[77], device="cpu", restored=True)
    assert (block.pixels[0] == restored[77]).all()


def test_the_command_says_what_is_promised(store, ae, tmp_path):
    said = {}
    for options in ((), ("--restored",)):
        code, out, _ = ae("decode", store.path, "--out", tmp_path / f"out{len(options)}", "--json", *options)
        said[options] = json.loads(out)
        assert code == 0
    assert (said[()]["restored"], said[()]["max_error"]) == (False, 20)
    assert (said["--restored",]["restored"], said["--restored",]["max_error"]) == (True, 40)
    info = json.loads(ae("info", store.path, "--json")[1])
    assert (info["max_error"], info["restored_max_error"]) == (20, 40)


def test_a_codec_that_restores_nothing_says_so(rows, ae, tmp_path):
    random_context_codec(tmp_path / "exact", SIDES, 0)
    made = encode(rows, tmp_path / "exact", tmp_path / "made", **STREAM)
    code, _, error = ae("decode", made.path, "--out", tmp_path / "out", "--restored")
    assert (code, "restores nothing" in error, (tmp_path / "out").exists()) == (1, True, False)
    with pytest.raises(CodecError, match="decode without --restored"):
        list(decode_rows(LatentStore.open(made.path), restored=True))


@pytest.mark.slow
def test_a_codec_within_a_bound_learns_to_restore(tmp_path):
    sets = {
        name: write_rows(tmp_path / f"{name}.parquet", pictures(count, SIDES, seed), id=list(range(count)))
        for name, count, seed in (("train", 600, 1), ("validation", 60, 2))
    }
    params = Params.model_validate(
        {
            "codec": {"family": "context", "max_error": 40},
            "train": {"epochs": 4, "batch_size": 32, "learning_rate": 0.004, "device": "cpu"},
        }
    )
    build_codec(sets["train"], sets["validation"], params, tmp_path / "codec", {}, lambda epoch: None)
    assert read_header(tmp_path / "codec").model.options["restore"] == [48, 32]
    codec = Codec.load(tmp_path / "codec")
    original = SampleSet.open(tmp_path / "validation.parquet").load().pixels
    plain = codec.decode(codec.encode(original))
    errors = [np.square(found.astype(float) - original).mean() for found in (plain, codec.restore(plain))]
    assert errors[1] < 0.93 * errors[0]
