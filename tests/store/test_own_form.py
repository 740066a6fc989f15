"""Encode, store, decode: the user's own files in, the user's own form out, from the store alone; repair takes them."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import bytes_of, flip_bit, random_codec
from PIL import Image

from ae_pipeline.codec.header import read_header
from ae_pipeline.data.arrow_types import type_to_json
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DataError
from ae_pipeline.kinds import build_kind
from ae_pipeline.kinds.state import Form, KindState, entry_of
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.sources.own_files.opening import open_data
from ae_pipeline.store.executors.engines import kept
from ae_pipeline.store.writing.encoding import encode_samples

RANDOM = np.random.default_rng(3)
PICTURES = RANDOM.integers(0, 255, (30, 5, 4), dtype=np.uint8)
VECTORS = RANDOM.normal(size=(40, 6)).astype(np.float32)


def kind_of(name, **form):
    return entry_of(name, KindState(form=Form(**form)))


def picture_codec(folder, **form):
    return random_codec(folder, kind=kind_of("image", **{"sort": "files", **form}))


def vector_codec(folder, kind=None, **form):
    described = None if kind is None else type_to_json(kind)
    return random_codec(
        folder, (6,), "float32", kind=kind_of("vector", **{"sort": "table", "column": "v", "type": described, **form})
    )


def save_pictures(folder, numbers=range(30), ending="png"):
    for number in numbers:
        path = folder / f"{'ab'[number % 2]}/näme {number:02}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PICTURES[number]).save(path)


def decoded_rows(store, tmp_path, ae):
    """Rows of a store by source_file or id, as `decode --format rows` gives them."""
    assert ae("decode", store, "--out", tmp_path / "plain", "--format", "rows")[0] == 0
    block = SampleSet.open(tmp_path / "plain").load()
    shutil.rmtree(tmp_path / "plain")
    return block


def said(result):
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


@pytest.fixture
def photos(tmp_path):
    picture_codec(tmp_path / "codec", label="folder")
    save_pictures(tmp_path / "photos")
    return tmp_path / "photos"


def test_a_folder_of_pictures_comes_back_as_pictures_under_their_names(ae, photos, tmp_path):
    store = tmp_path / "store"
    found = said(ae("encode", photos, "--codec", tmp_path / "codec", "--store", store, "--json"))
    assert (found["rows"], found["parts"]) == (30, 1)
    block = decoded_rows(store, tmp_path, ae)
    assert block.attributes.column_names == ["id", "source_file", "label"]
    assert said(ae("decode", store, "--out", tmp_path / "out", "--json"))["files"] == 30
    names, labels = (block.attributes[key].to_pylist() for key in ("source_file", "label"))
    for name, label, row in zip(names, labels, block.pixels, strict=True):
        assert label == name.split("/")[0]
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / name)), row)
    index = pq.read_table(tmp_path / "out/index.parquet")
    assert index.column_names == ["file", "id", "source_file", "label"]
    assert index["file"].equals(index["source_file"])
    # The pictures that came out are a data set of the same kind again.
    (tmp_path / "out/index.parquet").unlink()
    again = said(ae("encode", tmp_path / "out", "--codec", tmp_path / "codec", "--store", tmp_path / "b", "--json"))
    assert again["rows"] == 30


def test_pictures_become_a_column_of_parquet_as_hugging_face_has_them(ae, photos, tmp_path):
    ae("encode", photos, "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "x.parquet", "--where", "label = 'a'")[0] == 0
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.schema.field("image").type == pa.struct({"bytes": pa.binary(), "path": pa.string()})
    assert len(table) == 15
    assert table["image"].combine_chunks().field("path").to_pylist() == table["source_file"].to_pylist()
    pq.write_table(table.drop_columns(["source_file"]), tmp_path / "x.parquet")
    code = ae("encode", tmp_path / "x.parquet", "--codec", tmp_path / "codec", "--store", tmp_path / "b")
    assert code[0] == 0
    assert "decoding gives files of one record each" in code[2]


def test_jpeg_comes_back_as_png_and_no_file_takes_anothers_name(ae, tmp_path):
    picture_codec(tmp_path / "codec")
    save_pictures(tmp_path / "photos", [0, 1, 2], "jpg")
    save_pictures(tmp_path / "photos", [0], "PNG")
    ae("encode", tmp_path / "photos", "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    assert said(ae("decode", tmp_path / "store", "--out", tmp_path / "out", "--json"))["files"] == 4
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")) == [
        "a/näme 00.PNG",
        "a/näme 00~2.png",
        "a/näme 02.png",
        "b/näme 01.png",
        "index.parquet",
    ]


def test_names_from_a_store_never_lead_out_of_the_folder(ae, tmp_path):
    picture_codec(tmp_path / "codec")
    save_pictures(tmp_path / "in/photos")
    names = ["../../evil.png", "/evil.png", "a/../../evil.png", ".hidden.png", "a//b.png", "x" * 300 + ".png", "\0.png"]
    table = pa.table(
        {
            "id": range(7),
            "source_file": names,
            "pixels": pa.array([bytes(row) for row in PICTURES[:7]], pa.binary(20)),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    ae("encode", tmp_path / "rows.parquet", "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    before = bytes_of(tmp_path)
    assert said(ae("decode", tmp_path / "store", "--out", tmp_path / "deep/out", "--json"))["files"] == 7
    new = set(bytes_of(tmp_path)) - set(before)
    assert len(new) == 8
    assert all(name.startswith("deep/out/") for name in new)


TYPES = [
    *(pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16()), pa.list_(pa.float64(), 6)),
    *(pa.list_(pa.float16(), 6), pa.fixed_shape_tensor(pa.float32(), [6]), pa.fixed_shape_tensor(pa.float64(), [6])),
]


def vectors_of(kind):
    numbers = VECTORS.astype(kind.value_type.to_pandas_dtype())
    if isinstance(kind, pa.FixedShapeTensorType):
        return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), 6))
    return pa.array(list(numbers), kind)


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_vectors_come_back_in_their_column_and_type(kind, ae, tmp_path):
    columns = ("word", "v", "class")
    vector_codec(tmp_path / "codec", kind, columns=columns, label="class")
    table = pa.table({"word": [f"w{n}" for n in range(40)], "v": vectors_of(kind), "class": [n % 3 for n in range(40)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=11)
    err = ae("encode", tmp_path / "in.parquet", "--codec", tmp_path / "codec", "--store", tmp_path / "store")[2]
    given = VECTORS.astype(kind.value_type.to_pandas_dtype())
    assert ("values of float64 were rounded to float32" in err) == (given.dtype == np.float64)
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "out")[0] == 0
    found = pq.read_table(tmp_path / "out/part-00000.parquet")
    assert found.column_names == ["id", "source_file", *columns]
    assert found.schema.field("v").type == pq.read_schema(tmp_path / "in.parquet").field("v").type
    assert found.select(["word", "class"]).equals(pq.read_table(tmp_path / "in.parquet", columns=["word", "class"]))
    rows = decoded_rows(tmp_path / "store", tmp_path, ae).pixels
    flat = found["v"].combine_chunks()
    flat = getattr(flat, "storage", flat).flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(40, 6), rows.astype(flat.dtype))
    # Chosen rows in one file are the same ones.
    ae("decode", tmp_path / "store", "--out", tmp_path / "x.parquet", "--ids", "3,17")
    assert pq.read_table(tmp_path / "x.parquet").equals(found.take([3, 17]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("column", [None, "v"])
def test_arrays_come_back_as_arrays(dtype, column, ae, tmp_path):
    vector_codec(tmp_path / "codec", pa.from_numpy_dtype(np.dtype(dtype)), sort="array", column=column)
    (tmp_path / "in").mkdir()
    for number, rows in enumerate((VECTORS[:25], VECTORS[25:])):
        values = rows.astype(dtype)
        if column:
            np.savez(tmp_path / f"in/{number}.npz", v=values, n=np.arange(len(rows)), word=["ä"] * len(rows))
        else:
            np.save(tmp_path / f"in/{number}.npy", values)
    ae("encode", tmp_path / "in", "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    assert said(ae("decode", tmp_path / "store", "--out", tmp_path / "out", "--json"))["files"] == 2
    rows = decoded_rows(tmp_path / "store", tmp_path, ae).pixels.astype(dtype)
    for number, wanted in enumerate((rows[:25], rows[25:])):
        if column:
            with np.load(tmp_path / f"out/{number}.npz", allow_pickle=False) as found:
                np.testing.assert_array_equal(found["v"], wanted)
                assert found["n"].tolist() == list(range(len(wanted)))
                assert set(found["word"]) == {"ä"}
        else:
            found = np.load(tmp_path / f"out/{number}.npy", allow_pickle=False)
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == dtype


@pytest.mark.parametrize(
    ("shape", "dtype", "ending"), [((5, 4), "uint8", ".png"), ((5, 4, 3), "uint8", ".png"), ((5, 4, 2), "int16", None)]
)
def test_arrays_of_pictures_come_back_as_arrays_or_as_files(shape, dtype, ending, ae, tmp_path):
    kind = kind_of("image", sort="array", type=dtype)
    random_codec(tmp_path / "codec", shape, dtype, kind=kind)
    np.save(tmp_path / "in.npy", RANDOM.integers(0, 255, (9, *shape)).astype(dtype))
    ae("encode", tmp_path / "in.npy", "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    rows = decoded_rows(tmp_path / "store", tmp_path, ae).pixels
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "own")[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "own/in.npy", allow_pickle=False), rows)
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "x.parquet")[0] == 0
    column = pq.read_table(tmp_path / "x.parquet")["image"].combine_chunks()
    assert len(list(build_kind("image").to_rows(column, str))) == 9
    np.testing.assert_array_equal(list(build_kind("image").to_rows(column, str)), rows)
    code, _, err = ae("decode", tmp_path / "store", "--out", tmp_path / "png", "--format", "png", "--ids", "3,7")
    if ending:
        assert sorted(path.name for path in (tmp_path / "png").glob("*.png")) == ["3.png", "7.png"]
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "png/7.png")), rows[7])
    else:
        assert (code, "are no images that PNG files are written of" in err) == (1, True)


@pytest.mark.parametrize("changed", [{"type": "int8"}, {"type": {"tensor": {"value": "float32", "shape": [7]}}}, {}])
def test_a_codec_that_says_something_else_of_its_records_is_one_line(changed, ae, tmp_path):
    kind = pa.list_(pa.float32(), 7)
    form = Form(sort="table", column="v", type=type_to_json(kind)).model_dump(mode="json") | changed
    random_codec(tmp_path / "codec", (6,), "float32", kind=KindEntry(name="vector", state={"form": form}))
    pixels = pa.array([row.tobytes() for row in VECTORS], pa.binary(24))
    pq.write_table(pa.table({"id": range(40), "pixels": pixels}), tmp_path / "in.parquet")
    ae("encode", tmp_path / "in.parquet", "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    code, _, err = ae("decode", tmp_path / "store", "--out", tmp_path / "out")
    assert code == 1
    assert "decode with --format rows" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    decoded_rows(tmp_path / "store", tmp_path, ae)


def test_a_kind_that_is_not_installed_is_needed_for_records_alone(ae, tmp_path):
    state = {"form": Form(sort="files").model_dump(mode="json")}
    random_codec(tmp_path / "codec", kind=KindEntry(name="smells", state=state))
    save_pictures(tmp_path / "photos")
    pixels = pa.array([bytes(row) for row in PICTURES], pa.binary(20))
    pq.write_table(pa.table({"pixels": pixels}), tmp_path / "in.parquet")
    into = ("--codec", tmp_path / "codec", "--store", tmp_path / "store")
    assert ae("encode", tmp_path / "in.parquet", *into)[0] == 0
    assert ae("verify", tmp_path / "store", "--deep", "--source", tmp_path / "in.parquet")[0] == 0
    for command in (("encode", tmp_path / "photos", *into), ("decode", tmp_path / "store", "--out", tmp_path / "out")):
        code, _, err = ae(*command)
        assert code != 0
        assert "is of the kind 'smells', which is not installed here" in err
    decoded_rows(tmp_path / "store", tmp_path, ae)


def test_the_rounding_of_float64_is_measured(ae, tmp_path):
    vector_codec(tmp_path / "codec", pa.list_(pa.float64()))
    vectors = RANDOM.normal(size=(40, 6))
    pq.write_table(pa.table({"v": list(vectors)}), tmp_path / "in.parquet")
    root = np.sqrt(np.square(vectors - vectors.astype(np.float32)).mean())
    into = ("--codec", tmp_path / "codec", "--store", tmp_path / "store")
    for command in (
        ("encode", tmp_path / "in.parquet", *into),
        ("evaluate", tmp_path / "in.parquet", "--store", tmp_path / "store"),
        ("evaluate", tmp_path / "in.parquet", *into[:2]),
    ):
        assert f"rounded to float32, root mean square error {root:.2g}" in ae(*command)[2]


def test_vectors_that_float32_cannot_hold_are_refused_by_name(ae, tmp_path):
    vector_codec(tmp_path / "codec", pa.list_(pa.float64()))
    vectors = VECTORS.astype(np.float64)
    vectors[7, 2] = 1e300
    pq.write_table(pa.table({"v": list(vectors)}), tmp_path / "in.parquet")
    code, _, err = ae("encode", tmp_path / "in.parquet", "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    assert code != 0
    assert "in.parquet: row 7 (the first one is 0) has values that float32 cannot hold, such as 1e+300" in err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (
            {"w": list(VECTORS)},
            "in.parquet has no column `v`; give files whose records are in `v`, as in the codec's training",
        ),
        (
            {"v": list(VECTORS.astype(np.float64))},
            "has records of type list<element: double>, expected list<element: float>, as decoding gives",
        ),
        ({"v": list(VECTORS[:, :5])}, "row 0 (the first one is 0) is float32 5, expected float32 6 as the codec has"),
    ],
)
def test_files_that_decoding_could_not_give_back_are_refused(table, why, ae, tmp_path):
    vector_codec(tmp_path / "codec", pa.list_(pa.field("element", pa.float32())))
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    code, _, err = ae("encode", tmp_path / "in.parquet", "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    assert code != 0
    assert why in err
    assert "source.files" not in err


def test_data_that_is_refused_leaves_no_temporary_folder(photos, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    header = read_header(tmp_path / "codec")
    samples = open_data(photos, header.kind, header.spec)
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    del samples
    pq.write_table(pa.table({"number": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match="no column that can be records"):
        open_data(tmp_path / "numbers.parquet", header.kind, header.spec)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_pictures_that_cannot_be_read_are_refused_or_left_out(ae, photos, tmp_path):
    (photos / "a/broken.png").write_bytes(b"\x89PNG nothing")
    command = ("encode", photos, "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    code, _, err = ae(*command)
    assert code != 0
    assert "broken.png" in err
    assert "--skip-unreadable" in err
    code, out, err = ae(*command, "--skip-unreadable", "--json")
    assert json.loads(out)["rows"] == 30
    assert "1 record(s) that cannot be read" in err
    # What was left out then is left out whenever the store is checked.
    assert ae("verify", tmp_path / "store", "--deep", "--source", photos)[0] == 0


def test_a_picture_that_changes_before_it_is_read_is_refused(photos, tmp_path):
    header = read_header(tmp_path / "codec")
    samples = open_data(photos, header.kind, header.spec)
    (shard,) = samples.shards
    samples.shard_digest(shard)
    Image.fromarray(PICTURES[3]).save(photos / "a/näme 00.png")
    with pytest.raises(DataError, match=r"a/näme 00.png changed while it was read; run again when nobody writes"):
        list(samples.blocks(shard, 7))


def test_rows_are_the_same_however_they_are_read(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("ae_pipeline.sources.own_files.samples._FILES_AT_ONCE", 4)
    monkeypatch.setattr("ae_pipeline.sources.own_files.samples._PIECE_BYTES", 50)
    header = read_header(tmp_path / "codec")
    samples = open_data(photos, header.kind, header.spec)
    whole = samples.load()
    for rows in (1, 7, 1000):
        blocks = list(samples.blocks(samples.shards[0], rows))
        assert {len(block) for block in blocks[:-1]} <= {rows}
        assert pa.concat_tables(block.attributes for block in blocks).equals(whole.attributes)
        np.testing.assert_array_equal(np.concatenate([block.pixels for block in blocks]), whole.pixels)


def test_verify_repair_and_evaluate_take_the_pictures(ae, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("ae_pipeline.sources.own_files.grouping.GROUP_FILES", 8)
    store = tmp_path / "store"
    assert said(ae("encode", photos, "--codec", tmp_path / "codec", "--store", store, "--json"))["parts"] == 4
    whole = bytes_of(store)
    assert ae("verify", store, "--deep", "--source", photos)[0] == 0
    assert said(ae("evaluate", photos, "--store", store, "--json"))["rows"] == 30
    assert said(ae("evaluate", photos, "--codec", tmp_path / "codec", "--json"))["rows"] == 30
    parts = sorted(store.glob("part-*"))
    parts[1].unlink()
    flip_bit(parts[2], 300)
    assert ae("verify", store)[0] == 1
    # New pictures between the old ones do not matter where the others' names are known.
    assert ae("repair", store, "--source", photos)[0] == 0
    assert bytes_of(store) == whole
    (photos / "b/näme 05.png").unlink()
    code, out, _ = ae("verify", store, "--deep", "--source", photos)
    assert code == 1
    assert "not compared" in out


@pytest.mark.parametrize("sort", ["table", "array"])
def test_an_encode_of_vectors_is_taken_up_again_and_repaired(sort, ae, tmp_path, monkeypatch):
    monkeypatch.setattr("ae_pipeline.sources.own_files.grouping.SHARD_ROWS", 13)
    monkeypatch.setattr("ae_pipeline.data.samples.SHARD_ROWS", 13)
    column, kind = {"table": ("v", pa.list_(pa.float32())), "array": (None, pa.float32())}[sort]
    vector_codec(tmp_path / "codec", kind, sort=sort, column=column)
    data = tmp_path / ("in.parquet" if column else "in.npy")
    if column:
        pq.write_table(pa.table({"v": list(VECTORS)}), data, row_group_size=5)
    else:
        np.save(data, VECTORS)
    header = read_header(tmp_path / "codec")
    params = EncodeParams(device="cpu")

    def encode(store, progress=lambda rows: None):
        samples = open_data(data, header.kind, header.spec)
        return encode_samples(
            samples, tmp_path / "codec", store, params, name="x", git={}, work=tmp_path / "work", progress=progress
        )

    class StoppedError(Exception):
        pass

    def stop(rows):
        raise StoppedError

    with pytest.raises(StoppedError):
        encode(tmp_path / "store", stop)
    assert not (tmp_path / "store").exists()
    made = {path.name: path.stat().st_ino for path in tmp_path.rglob("part-*.parquet")}
    assert made
    store = encode(tmp_path / "store")
    assert len(store.manifest.parts) == {"table": 3, "array": 4}[sort]
    assert all((store.path / name).stat().st_ino == number for name, number in made.items())
    whole = bytes_of(store.path)
    first, second = sorted(store.path.glob("part-*"))[:2]
    first.unlink()
    flip_bit(second, 200)
    assert ae("repair", store.path, "--source", data)[0] == 0
    assert bytes_of(store.path) == whole


def test_a_folder_that_grew_adds_its_new_pictures_once(ae, photos, tmp_path):
    store = tmp_path / "store"
    for path in sorted(photos.rglob("*.png"))[5::3]:
        shutil.move(path, tmp_path / f"later-{path.name}")
    rows = said(ae("encode", photos, "--codec", tmp_path / "codec", "--store", store, "--json"))["rows"]
    assert said(ae("append", store, photos, "--json"))["added_rows"] == 0
    for path in tmp_path.glob("later-*"):
        shutil.move(path, photos / "a" / path.name)
    found = said(ae("append", store, photos, "--json"))
    assert (found["added_rows"], found["rows"], found["shards_it_had"]) == (30 - rows, 30, 1)
    assert said(ae("append", store, photos, "--json"))["added_rows"] == 0
    assert ae("verify", store, "--deep", "--source", photos)[0] == 0
    block = decoded_rows(store, tmp_path, ae)
    assert block.attributes["id"].to_pylist() == list(range(30))
    assert len(set(block.attributes["source_file"].to_pylist())) == 30
    part = sorted(store.glob("part-*"))[0]
    whole = bytes_of(store)
    flip_bit(part, 300)
    assert ae("repair", store, "--source", photos)[0] == 0
    assert bytes_of(store) == whole
    Image.fromarray(PICTURES[0]).save(sorted(photos.rglob("*.png"))[0])
    Image.fromarray(255 - PICTURES[0]).save(sorted(photos.rglob("*.png"))[0])
    code, _, err = ae("append", store, photos)
    assert code != 0
    assert "of these files already, and they were changed since" in err


def test_a_codec_says_which_layout_suits_it(ae, photos, tmp_path):
    from handmade import change_header

    trained = {"train.rate_weight": 0.001, "train.rate_code": "shared"}
    for number, (params, layout) in enumerate([({}, "list"), (trained, "binary"), (None, "list")]):
        change_header(tmp_path / "codec", provenance={"params": params})
        store = tmp_path / f"store{number}"
        ae("encode", photos, "--codec", tmp_path / "codec", "--store", store)
        assert json.loads((store / "_manifest.json").read_text())["latent"]["layout"] == layout


@pytest.mark.slow
def test_other_processes_read_and_give_back_all_sorts_of_files(ae, photos, tmp_path):
    vectors = RANDOM.normal(size=(40, 6))
    vector_codec(tmp_path / "table codec", pa.list_(pa.float64()))
    (tmp_path / "table").mkdir()
    for number in range(2):
        pq.write_table(pa.table({"v": list(vectors[20 * number :][:20])}), tmp_path / "table" / f"{number}.parquet")
    vector_codec(tmp_path / "array codec", pa.float32(), sort="array", column=None)
    np.savez(tmp_path / "array.npz", VECTORS)
    (tmp_path / "codec").rename(tmp_path / "photos codec")
    execute = ExecuteParams(name="process", workers=1)
    with kept(execute):  # the commands below have the same settings
        for data in (photos, tmp_path / "table", tmp_path / "array.npz"):
            sort, told = data.stem, []
            for name in ("threads", "process"):
                store, more = tmp_path / f"{sort}-{name}", ("--executor", name, "--workers", 1)
                code, _, said_too = ae("encode", data, "--codec", tmp_path / f"{sort} codec", "--store", store, *more)
                assert code == 0, said_too
                told.append(said_too)
                spread = more if sort == "table" else ()  # the other forms are made in this process
                code, _, error = ae("decode", store, "--out", tmp_path / f"{sort}-{name}-out", *spread)
                assert code == 0, error
            assert told[0] == told[1]
            assert ("rounded to float32" in told[0]) == (sort == "table")
            assert bytes_of(tmp_path / f"{sort}-threads") == bytes_of(tmp_path / f"{sort}-process")
            assert bytes_of(tmp_path / f"{sort}-threads-out") == bytes_of(tmp_path / f"{sort}-process-out")
