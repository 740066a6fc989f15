"""`verify --deep`: the parts of a store against the data they were made from."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from grown import batch, copied, grow, rewrite_manifest
from handmade import random_codec

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, DataError
from ae_pipeline.files import sha256_file
from ae_pipeline.store.care.deep import compare_with_source
from ae_pipeline.store.care.findings import Compared
from ae_pipeline.store.care.same_values import same_values
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format.manifest import MANIFEST_NAME
from ae_pipeline.store.format.part_writer import PartWriter
from ae_pipeline.store.format.verified_file import cut
from ae_pipeline.store.latent_store import LatentStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three parts in three snapshots; their data beside it."""
    return grow(tmp_path_factory.mktemp("remaking"))


@pytest.fixture
def data(whole):
    return [SampleSet.open(whole.path.parent / "data")]


def compare(store, sources, tmp_path):
    (tmp_path / "work").mkdir()
    codec = Codec.load(store.codec_path)
    return compare_with_source(store, store.manifest.parts, sources, codec, tmp_path / "work", lambda rows: None)


def rewritten(store, change):
    """Write the second part of a store anew, with other rows, as a manifest of its own says."""
    part = store.manifest.parts[1]
    path = store.path / part.name
    (rows,) = store.read_part(part, 1000)
    attributes, latents = change(rows.attributes, rows.latents.copy())
    with PartWriter(path, attributes.schema, "list", 3, 16, part.job) as writer:
        writer.write(attributes, latents, rows.error)
    told = {"sha256": sha256_file(path), "bytes": path.stat().st_size, "pieces": cut(path)}
    for name in ("_snapshots/2.json", MANIFEST_NAME):
        rewrite_manifest(store.path, lambda values: values["parts"][1].update(told), name)
    changed = LatentStore.open(store.path)
    assert verify_store(changed.path).whole  # as it was written, for all that the store knows
    return changed, part.name


@pytest.fixture
def store(whole, tmp_path):
    return LatentStore.open(copied(whole, tmp_path / "store"))


def test_every_part_comes_out_of_its_data_byte_for_byte(whole, data, tmp_path):
    assert compare(whole, data, tmp_path) == Compared(identical=3)
    assert not list((tmp_path / "work").iterdir())


def test_what_was_not_given_and_what_is_not_held_is_said(whole, tmp_path):
    data = [SampleSet.open(whole.path.parent / "data/batch-2.parquet"), batch(tmp_path, 8)]
    names = [part.name for part in whole.manifest.parts]
    expected = Compared(identical=1, not_compared=[names[0], names[2]], rows_not_in_store=40)
    assert compare(whole, data, tmp_path) == expected


def test_data_of_another_store_or_codec_is_refused(whole, tmp_path):
    with pytest.raises(DataError, match=r"none of the 3 parts of .* was made from the given data"):
        compare(whole, [batch(tmp_path, 8)], tmp_path)
    random_codec(tmp_path / "codec", (2, 2))
    with pytest.raises(CodecError, match="is for samples of"):
        compare_with_source(
            whole,
            whole.manifest.parts,
            [batch(tmp_path, 8)],
            Codec.load(tmp_path / "codec"),
            tmp_path,
            lambda rows: None,
        )


def test_a_latent_on_a_rounding_edge_is_no_difference(store, data, tmp_path):
    def one_step(attributes, latents):
        latents[5, 1] += 1 if latents[5, 1] < 7 else -1
        return attributes, latents

    changed, name = rewritten(store, one_step)
    assert compare(changed, data, tmp_path) == Compared(identical=2, rounded={name: 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda attributes, latents: (attributes, latents[::-1].copy()), "of 120 latents are not those of the data"),
        (
            lambda attributes, latents: (attributes.set_column(1, "label", [pa.array([9] * 40)]), latents),
            "has other ids or attributes than the data",
        ),
    ],
)
def test_rows_that_are_not_those_of_the_data_are_a_difference(change, message, store, data, tmp_path):
    changed, name = rewritten(store, change)
    found = compare(changed, data, tmp_path)
    assert message in found.different[name]
    assert found.identical == 2


def test_another_version_of_pyarrow_gives_the_same_rows(whole, data, tmp_path, monkeypatch):
    monkeypatch.setattr(pa, "__version__", "99.0")
    assert compare(whole, data, tmp_path) == Compared(same_rows=[part.name for part in whole.manifest.parts])


def test_attributes_that_are_not_numbers_compare(tmp_path):
    values = [float("nan"), 1.5, None, -0.0] * 10
    store = grow(tmp_path, (1,), score=values)
    data = [SampleSet.open(tmp_path / "data")]
    assert compare(store, data, tmp_path).identical == 1
    rows = pq.read_table(store.path / store.manifest.parts[0].name)["score"]
    assert np.isnan(rows[0].as_py())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pa, "__version__", "99.0")  # other bytes: rows are compared
        (tmp_path / "work").rmdir()
        assert compare(store, data, tmp_path).different == {}


def test_attributes_are_compared_value_by_value_nan_and_far_times_included():
    nan = float("nan")
    columns = {
        "number": [nan, 1.0, None],
        "time": pa.array([2**62, 0, None], pa.timestamp("us")),
        "list": [[nan], None, []],
        "fixed": pa.array([[nan, 1], None, [2, 3]], pa.list_(pa.float32(), 2)),
        "struct": [{"a": nan, "b": 1}, {"a": 1.0, "b": 2}, None],
        "map": pa.array([[("k", nan)], [], None], pa.map_(pa.string(), pa.float64())),
    }
    assert same_values(pa.table(columns), pa.table(columns))
    changes = {
        "number": [nan, nan, None],
        "time": pa.array([2**62 - 1, 0, None], pa.timestamp("us")),
        "list": [[nan], [], []],
        "fixed": pa.array([[nan, 1], None, [nan, 3]], pa.list_(pa.float32(), 2)),
        "struct": [{"a": nan, "b": 7}, {"a": 1.0, "b": 2}, None],
        "map": pa.array([[("j", nan)], [], None], pa.map_(pa.string(), pa.float64())),
    }
    for name, values in changes.items():
        assert not same_values(pa.table(columns), pa.table({**columns, name: values})), name
