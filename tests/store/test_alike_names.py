"""Column names that DuckDB and others, which read names without case, would take for others are refused by name."""

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import encode, random_codec, random_pixels, write_rows
from inboxes import put_image, run, settle, store_of, stored

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import ConfigError, DataError
from ae_pipeline.operation.inbox import columns as inbox_columns
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.reading.decode import decode_rows, decode_store
from ae_pipeline.store.reading.export import export_images
from ae_pipeline.store.writing import checks
from ae_pipeline.store.writing.appending import append_samples

SHAPE = (5, 4)
ROWS = 3


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alike") / "codec"
    random_codec(folder, SHAPE)
    return folder


@pytest.fixture
def box(tmp_path):
    (tmp_path / "data/inbox").mkdir(parents=True)
    return tmp_path / "data/inbox"


def rows(path, **columns):
    return write_rows(path, random_pixels((ROWS, *SHAPE), "uint8"), **columns)


def texts(*values):
    return list(values[:1] * ROWS)


def append(samples, codec, store):
    append_samples(store, [samples], codec, EncodeParams(device="cpu"), name="x", git={})


ALIKE = {
    "ID beside the made-up id": (["ID"], "column `ID` differs only by case from `id`, the row numbers that are ids"),
    "Id beside id": (["id", "Id"], "column `Id` differs only by case from `id`, the rows' ids"),
    "Latent": (["Latent"], "column `Latent` differs only by case from `latent`, which a latent store keeps"),
    "ERROR": (["ERROR"], "column `ERROR` differs only by case from `error`, which a latent store keeps"),
    "Residual": (["Residual"], "column `Residual` differs only by case from `residual`"),
    "Pixels": (["Pixels"], "column `Pixels` differs only by case from `pixels`, the samples"),
    "two of the user": (["a", "b", "A"], "columns `a` and `A` differ only by case"),
    "beyond ASCII": (["Größe", "GRÖSSE"], "columns `Größe` and `GRÖSSE` differ only by case"),
    "Greek": (["Σ", "ς"], "columns `Σ` and `ς` differ only by case"),
}


@pytest.mark.parametrize("how", ALIKE)
@pytest.mark.parametrize("make", [encode, append], ids=["encode", "append"])
def test_names_that_differ_by_case_are_refused_in_new_stores(codec, tmp_path, how, make):
    names, reason = ALIKE[how]
    samples = rows(tmp_path / "a.parquet", **{name: texts(name) for name in names})
    with pytest.raises(DataError) as caught:
        make(samples, codec, tmp_path / "store")
    assert str(caught.value).startswith(f"{tmp_path / 'a.parquet'}: {reason}")
    assert "; rename " in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_fields_of_a_struct_count_too(codec, tmp_path):
    samples = rows(tmp_path / "a.parquet", s=pa.array([[{"k": 1, "K": 2}]] * ROWS))
    with pytest.raises(DataError, match=r"columns `s\.\w+\.k` and `s\.\w+\.K` differ only by case"):
        encode(samples, codec, tmp_path / "store")


def test_what_duckdb_makes_of_such_names_is_why(tmp_path):
    """It reads another column than was asked for, without a word."""
    pq.write_table(pa.table({"id": [0, 1], "ID": ["u", "v"], "a": [1, 2], "A": [3, 4]}), tmp_path / "a.parquet")
    assert duckdb.sql(f"select ID, A from '{tmp_path / 'a.parquet'}'").fetchall() == [(0, 1), (1, 2)]


def test_every_column_of_a_store_and_of_decoded_rows_is_duckdbs_under_any_case(codec, tmp_path):
    columns = {"Id_of_user": ["u", "v", "w"], "LABEL": [1, 2, 3], "Größe": [4, 5, 6], "latents": [7, 8, 9]}
    store = encode(rows(tmp_path / "a.parquet", **columns), codec, tmp_path / "store")
    decode_store(store, tmp_path / "decoded", device="cpu")
    for files in (tmp_path / "store/part-*.parquet", tmp_path / "decoded/*.parquet"):
        for name, values in {"ID": [0, 1, 2], **columns}.items():
            spelt = name if name == "Größe" else name.swapcase()
            found = duckdb.sql(f"select \"{spelt}\" from '{files}'").fetchall()
            assert [value for (value,) in found] == values


@pytest.fixture
def former(codec, tmp_path, monkeypatch):
    """A store from before such names were refused, and its data."""
    samples = rows(tmp_path / "a.parquet", ID=["u", "v", "w"], a=[1, 2, 3], A=[4, 5, 6])
    with monkeypatch.context() as patch:
        patch.setattr(checks, "refuse_alike", lambda *arguments: None)
        encode(samples, codec, tmp_path / "store")
    return tmp_path / "store", tmp_path / "a.parquet"


def test_former_stores_are_read_checked_repaired_and_grow(ae, former, tmp_path):
    store, data = former
    assert ae("verify", store, "--deep", "--source", data)[0] == 0
    assert ae("decode", store, "--out", tmp_path / "out")[0] == 0
    (decoded,) = (tmp_path / "out").iterdir()
    assert pq.read_table(decoded, columns=["ID", "a", "A"]).to_pydict() == {
        "ID": ["u", "v", "w"],
        "a": [1, 2, 3],
        "A": [4, 5, 6],
    }
    assert ae("decode", store, "--out", tmp_path / "b.parquet", "--where", "ID = 'v' AND A = 5 AND a = 2")[0] == 0
    (part,) = store.glob("part-*")
    whole = part.read_bytes()
    part.unlink()
    assert ae("repair", store, "--source", data)[0] == 0
    assert part.read_bytes() == whole
    write_rows(tmp_path / "more.parquet", random_pixels((1, *SHAPE), "uint8", seed=9), ID=["x"], a=[7], A=[8])
    assert ae("append", store, tmp_path / "more.parquet")[0] == 0


@pytest.mark.parametrize("name", ["file", "File", "FILE"])
def test_the_names_of_images_stand_in_a_column_of_their_own(codec, tmp_path, name):
    store = encode(rows(tmp_path / "a.parquet", **{name: texts("x")}), codec, tmp_path / "store")
    spec = store.codec_header().spec
    with pytest.raises(ConfigError, match=f"a column is called `{name}`, as the index's column of file names is"):
        export_images(decode_rows(store, device="cpu"), store.attributes_schema(), spec, tmp_path / "images")
    assert not (tmp_path / "images").exists()


# --- the inbox ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["File_SHA256", "Error", "ID", "PIXELS"])
def test_the_inbox_puts_such_files_aside_and_goes_on(codec, box, tmp_path, name):
    rows(box / "a.parquet", **{name: texts("x")})
    rows(box / "b.parquet", label=[1, 2, 3])
    settle(box)
    done = run(tmp_path, codec)
    assert list(done.quarantined) == ["a.parquet"]
    assert f"column `{name}` differs only by case from `{name.lower()}`" in done.quarantined["a.parquet"]
    assert done.rows == ROWS


def test_labels_of_an_inbox_are_one_column_whatever_their_case(codec, box, tmp_path):
    put_image(box / "a.png", 1)
    rows(box / "b.parquet", Label=[1, 2, 3])
    settle(box)
    done = run(tmp_path, codec)
    assert "has columns that" in done.quarantined["b.parquet"]
    assert "does not have: Label, expected id, label; " in done.quarantined["b.parquet"]
    assert stored(store_of(tmp_path, codec)).column_names == ["id", "label", "file_sha256"]


def test_two_columns_of_the_user_are_refused_by_the_inbox_unless_its_store_has_them(codec, box, tmp_path, monkeypatch):
    rows(box / "a.parquet", id=["x", "y", "z"], a=[1, 2, 3], A=[4, 5, 6])
    settle(box)
    assert "columns `a` and `A` differ only by case" in run(tmp_path, codec).quarantined["a.parquet"]
    with monkeypatch.context() as patch:  # as before they were
        patch.setattr(checks, "refuse_alike", lambda *arguments: None)
        patch.setattr(inbox_columns, "refuse_alike", lambda *arguments: None)
        rows(box / "b.parquet", id=["x", "y", "z"], a=[1, 2, 3], A=[4, 5, 6])
        settle(box)
        assert run(tmp_path, codec).quarantined == {}
    rows(box / "c.parquet", id=["p", "q", "r"], a=[7, 7, 7], A=[8, 8, 8])
    settle(box)
    done = run(tmp_path, codec)
    assert (done.rows, done.quarantined) == (ROWS, {})


def test_a_data_set_of_old_names_can_be_opened(former):
    assert SampleSet.open(former[1]).attributes_schema.names == ["id", "ID", "a", "A"]
