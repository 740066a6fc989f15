"""The source `files` on vectors and arrays: every column kept, nothing cast, what does not fit refused by name."""

import pickle
import warnings
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_files import fetch, rows_of

from ae_pipeline.data.pixels import DTYPES
from ae_pipeline.errors import DataError

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(60, 6)).astype(np.float32)
FLAT = pa.array(VECTORS.ravel())
OFFSETS = pa.array(np.arange(61, dtype=np.int32) * 6)
COLUMNS = {
    "list": pa.ListArray.from_arrays(OFFSETS, FLAT),
    "large list": pa.LargeListArray.from_arrays(OFFSETS.cast(pa.int64()), FLAT),
    "fixed-size list": pa.FixedSizeListArray.from_arrays(FLAT, 6),
    "tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [6]), pa.FixedSizeListArray.from_arrays(FLAT, 6)
    ),
}


def take(tmp_path, **options):
    return rows_of(fetch(tmp_path, **{"kind": "vector", **options}))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.parquet"


@pytest.mark.parametrize("name", COLUMNS)
def test_vectors_of_parquet_are_the_same_numbers(name, path, tmp_path):
    pq.write_table(pa.table({"n": range(60), "v": COLUMNS[name]}), path, row_group_size=13)
    found = take(tmp_path, path=path)
    assert len(found) == 60
    for line, row in found:
        assert line == {"id": line["n"], "source_file": "mine.parquet", "n": line["n"]}
        np.testing.assert_array_equal(row, VECTORS[line["n"]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("fortran", [False, True])
def test_arrays_are_the_same_numbers_in_every_order(dtype, order, fortran, tmp_path):
    values = RANDOM.integers(0, 100, (5000, 3)).astype(np.dtype(dtype).newbyteorder(order))
    np.save(tmp_path / "a.npy", np.asfortranarray(values) if fortran else values)
    found = take(tmp_path, path=tmp_path / "a.npy")
    np.testing.assert_array_equal(np.stack([row for _, row in found]), values)
    assert found[0][1].dtype == np.dtype(dtype)


def test_arrays_of_pictures_in_fortran_order(tmp_path):
    values = RANDOM.integers(0, 255, (150, 4, 3, 2), dtype=np.uint8)
    np.save(tmp_path / "a.npy", np.asfortranarray(values))
    found = take(tmp_path, path=tmp_path / "a.npy", kind="image")
    np.testing.assert_array_equal(np.stack([row for _, row in found]), values)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_beside_the_vectors_are_columns(save, tmp_path):
    names = np.array([f"näme {number}" for number in range(60)])
    save(tmp_path / "a.npz", v=VECTORS, cls=np.arange(60) % 3, name=names)
    for line, row in take(tmp_path, path=tmp_path / "a.npz", label="cls"):
        number = line["id"]
        assert line == {"id": number, "source_file": "a.npz", "label": number % 3, "name": names[number]}
        np.testing.assert_array_equal(row, VECTORS[number])
    assert list((tmp_path / "raw").glob("tmp*")) == []


@pytest.mark.parametrize("dtype", ["int64", "uint32", "bool", "complex64"])
def test_types_that_no_sample_has_are_refused_and_not_cast(dtype, path, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((9, 3), dtype))
    with pytest.raises(DataError, match=rf"a.npy holds values of type {dtype}, expected uint8, .* float64; "):
        take(tmp_path, path=tmp_path / "a.npy")
    if dtype in ("int64", "uint32"):
        pq.write_table(pa.table({"v": pa.FixedSizeListArray.from_arrays(pa.array(np.ones(27, dtype)), 3)}), path)
        with pytest.raises(DataError, match=rf"mine.parquet: row 0 .* holds values of type {dtype}, expected"):
            take(tmp_path, path=path)


class Evil:
    """Pickled, it would make a file."""

    def __reduce__(self):
        return (open, ("pickle-ran", "w"))


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_pickles_are_never_loaded(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = np.array([Evil(), Evil()], dtype=object)
    if kind == "npy":
        np.save(tmp_path / "a.npy", array, allow_pickle=True)
    else:
        np.savez(tmp_path / "a.npz", v=VECTORS, names=array)
    with pytest.raises(DataError, match=rf"a.{kind} has in .* Python objects, which only a pickle could hold"):
        take(tmp_path, path=tmp_path / f"a.{kind}")
    (tmp_path / f"b.{kind}").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match=rf"b.{kind} is not a readable NumPy file"):
        take(tmp_path, path=tmp_path / f"b.{kind}")
    assert not (tmp_path / "pickle-ran").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_with_row_and_file(value, path, tmp_path):
    bad = VECTORS.copy()
    bad[41, 2] = value
    pq.write_table(pa.table({"v": list(bad)}), path, row_group_size=7)
    np.save(tmp_path / "a.npy", bad)
    for place in (path, tmp_path / "a.npy"):
        with pytest.raises(DataError, match=rf"{place.name}: row 41 \(the first one is 0\) has values that are NaN"):
            take(tmp_path, path=place, skip_unreadable=True)


def test_vectors_of_several_lengths_and_missing_ones(path, tmp_path):
    vectors = [list(row) for row in VECTORS]
    vectors[7] = [1.0, 2.0]
    pq.write_table(pa.table({"v": pa.array(vectors, pa.list_(pa.float32()))}), path)
    with pytest.raises(
        DataError, match=r"has records of 2 sizes: 59 of float32 6 .*, 1 of float32 2 \(mine.parquet: row 7"
    ):
        take(tmp_path, path=path)
    vectors[7] = None
    pq.write_table(pa.table({"v": pa.array(vectors, pa.list_(pa.float32()))}), path)
    with pytest.raises(DataError, match=r"1 record.*mine.parquet: row 7 .* has no vector"):
        take(tmp_path, path=path)
    assert [line["id"] for line, _ in take(tmp_path, path=path, skip_unreadable=True)] == [*range(7), *range(8, 60)]
    vectors[7] = [1.0, None, 3.0, 4.0, 5.0, 6.0]
    pq.write_table(pa.table({"v": pa.array(vectors, pa.list_(pa.float32()))}), path)
    with pytest.raises(DataError, match=r"mine.parquet: row 7 .* has a value that is missing"):
        take(tmp_path, path=path)
    vectors[7] = []
    pq.write_table(pa.table({"v": pa.array(vectors, pa.list_(pa.float32()))}), path)
    with pytest.raises(DataError, match=r"mine.parquet: row 7 .*samples of shape \[0\] are not supported"):
        take(tmp_path, path=path)


def test_every_column_is_kept_with_its_values(path, tmp_path):
    table = pa.table(
        {
            "v": COLUMNS["list"],
            "word": [f"w{number}" if number % 5 else None for number in range(60)],
            "class": pa.array(["x", "y", "z"] * 20).dictionary_encode(),
            "when": pa.array(range(60), pa.timestamp("us", "UTC")),
            "tags": [[number, None] for number in range(60)],
            "nested": [{"a": number, "b": [{"c": "d"}]} for number in range(60)],
            "nothing": pa.nulls(60),
            "price": pa.array([number / 4 for number in range(60)]).cast(pa.decimal128(9, 2)),
        }
    )
    pq.write_table(table, path, row_group_size=11)
    original = pq.read_table(path).drop_columns(["v"]).to_pylist()
    for line, _ in take(tmp_path, path=path, column="v", label="class"):
        wanted = original[line["id"]]
        label = wanted.pop("class")
        assert line == {**wanted, "label": label, "id": line["id"], "source_file": "mine.parquet"}


def test_ids_are_the_persons_own_where_they_have_some(path, tmp_path):
    ids = [f"doc-{number:02}" for number in range(60)]
    pq.write_table(pa.table({"id": ids, "v": COLUMNS["list"]}), path)
    found = take(tmp_path, path=path)
    assert [line["id"] for line, _ in found] == ids
    np.testing.assert_array_equal(np.stack([row for _, row in found]), VECTORS)
    for wrong, why in (
        ([*ids[:-1], ids[0]], "has 1 ids that are there before"),
        ([*ids[:-1], None], "has 1 or more rows without a value in the column `id`"),
        ([number / 2 for number in range(60)], "has ids of type double in the column `id`"),
    ):
        pq.write_table(pa.table({"id": wrong, "v": COLUMNS["list"]}), path)
        with pytest.raises(DataError, match=why):
            take(tmp_path, path=path)


def test_folders_key_value_are_columns(tmp_path):
    for number, year in enumerate(("2020", "2021")):
        folder = tmp_path / f"in/year={year}/site=north%20sea"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"v": COLUMNS["list"].slice(number * 30, 30)}), folder / "a.parquet")
    (tmp_path / "in/_SUCCESS").touch()
    for line, row in take(tmp_path, path=tmp_path / "in", label="year"):
        assert (line["label"], line["site"]) == (("2020", "2021")[line["id"] // 30], "north sea")
        np.testing.assert_array_equal(row, VECTORS[line["id"]])
    pq.write_table(pa.table({"v": COLUMNS["list"]}), tmp_path / "in/b.parquet")
    with pytest.raises(DataError, match=r"year=2020.* lies in folders key=value with the keys year, site, but .*none"):
        take(tmp_path, path=tmp_path / "in")


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"w": "text"}, "`w` is string, and int64 in the other"),
        ({"w": 1, "x": 1}, "`x` is int64, and not there in the other"),
        ({}, "`w` is not there, and int64 in the other"),
    ],
)
def test_columns_that_appear_go_or_change_type_are_refused_by_name(other, why, tmp_path):
    (tmp_path / "in").mkdir()
    for name, more in (("a", {"w": 1}), ("b", other)):
        columns = {key: [value] * 60 for key, value in more.items()}
        pq.write_table(pa.table({"v": COLUMNS["list"], **columns}), tmp_path / f"in/{name}.parquet")
    with pytest.raises(
        DataError, match=rf"b.parquet has other columns than .*a.parquet: {why}; give all files the same"
    ):
        take(tmp_path, path=tmp_path / "in")


@pytest.mark.parametrize("name", ["pixels", "latent", "error", "residual", "source_file", "Latent", "Source_File"])
def test_columns_that_a_store_could_not_take_are_refused_before_training(name, path, tmp_path):
    pq.write_table(pa.table({"v": COLUMNS["list"], name: range(60)}), path)
    with pytest.raises(DataError, match=rf"column `{name}`"):
        take(tmp_path, path=path)


def test_a_label_that_is_not_there_or_is_there_twice(path, tmp_path):
    pq.write_table(pa.table({"v": COLUMNS["list"], "label": range(60), "kind": range(60)}), path)
    with pytest.raises(
        DataError, match=r"has no column `topic` for the label; set source.files.label to folder, label"
    ):
        take(tmp_path, path=path, label="topic")
    with pytest.raises(DataError, match=r"has a column `label` beside what source.files.label says, kind"):
        take(tmp_path, path=path, label="kind")
    assert all(line["label"] == line["id"] for line, _ in take(tmp_path, path=path))


def test_rows_in_this_packages_own_layout(tmp_path):
    from ae_pipeline.data.splits import write_splits
    from ae_pipeline.params import PrepareParams, SourceParams
    from ae_pipeline.sources import build_source

    made = tmp_path / "made"
    made.mkdir()
    source = build_source(SourceParams.model_validate({"name": "synthetic", "synthetic": {"train_rows": 50}}))
    source.fetch(made)
    samples = write_splits(source.read(made), tmp_path / "prepared", PrepareParams())["train"].load()
    found = take(tmp_path, path=tmp_path / "prepared/train", kind="image")
    np.testing.assert_array_equal(np.stack([row for _, row in found]), samples.pixels)
    assert [line["id"] for line, _ in found] == samples.attributes.column("id").to_pylist()
    with pytest.raises(
        DataError, match=r"has shape .* expected .vectors, values.*; reshape it, or set source.files.kind"
    ):
        take(tmp_path, path=tmp_path / "prepared/train")


def test_vectors_of_no_values_and_archives_that_say_a_name_twice(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((9, 0), np.float32))
    with pytest.raises(DataError, match=r"samples of shape \[0\] are not supported"):
        take(tmp_path, path=tmp_path / "a.npy")
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "a.npz", "w") as packed:
        warnings.simplefilter("ignore")
        for _ in range(2):
            with packed.open("v.npy", "w") as file:
                np.save(file, VECTORS)
    with pytest.raises(DataError, match=r"a.npz is not a readable NumPy file: it holds two arrays named `v`"):
        take(tmp_path, path=tmp_path / "a.npz")


def test_an_archive_whose_values_are_damaged(tmp_path):
    np.savez(tmp_path / "a.npz", v=np.repeat(VECTORS, 100, axis=0))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[100_000] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"a.npz is damaged: Bad CRC-32"):
        take(tmp_path, path=tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"v": VECTORS, "w": VECTORS}, r"has 2 arrays of two or more dimensions, expected one .*v \[60, 6\], w"),
        ({"v": VECTORS, "n": np.arange(9)}, r"has array `n` of shape \[9\], expected \[60\]"),
        ({"v": VECTORS, "n": np.ones(60, complex)}, r"has array `n` of type complex128, which no column holds"),
        ({"n": np.arange(9)}, "has 0 arrays of two or more dimensions"),
    ],
)
def test_arrays_that_cannot_stay_together(arrays, why, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=why):
        take(tmp_path, path=tmp_path / "a.npz")
