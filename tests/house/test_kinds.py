"""What every kind must do, run on each of them; and a kind of a package of somebody else is one of them."""

import io
import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from handmade import random_codec
from PIL import Image

from ae_pipeline import kinds
from ae_pipeline.data.arrow_types import type_from_json, type_to_json
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.pixels import DTYPES, SampleSpec
from ae_pipeline.data.splits import write_splits
from ae_pipeline.errors import ConfigError, DataError
from ae_pipeline.kinds import KINDS, build_kind, kind_names, open_kind
from ae_pipeline.kinds.base import WIDER, Kind, Several
from ae_pipeline.kinds.state import Form, entry_of
from ae_pipeline.params import PrepareParams, SourceParams
from ae_pipeline.sources import build_source

ROOT = Path(__file__).resolve().parents[2]
# Kinds whose records stand in several columns alone; what is asked of them is in tests/data/test_table_columns.py.
ONLY_TOGETHER = {"table"}
PARTS = {
    "__init__",
    "base",
    "encoded",
    "image_files",
    "image_headers",
    "image_pixels",
    "image_tiles",
    "state",
}


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def wav(samples):
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="WAV")
    return file.getvalue()


RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.integers(0, 255, (5, 4, 3), dtype=np.uint8)
VECTORS = RANDOM.normal(size=(5, 6)).astype(np.float32)
# Clips as long as a frame have one row each, which is the clip; longer ones are in tests/sources/test_audio.py.
SOUNDS = (RANDOM.integers(-9999, 9999, (5, 64)) / 2**15).astype(np.float32)
# For each kind: the rows of five records, and a column of them with the third one missing.
RECORDS = {
    "image": (PICTURES, pa.array([png(rows) if place != 2 else None for place, rows in enumerate(PICTURES)])),
    "vector": (VECTORS, pa.array([list(row) if place != 2 else None for place, row in enumerate(VECTORS)])),
}
RECORDS["vector"] = (VECTORS, RECORDS["vector"][1].cast(pa.list_(pa.float32())))
RECORDS["audio"] = (SOUNDS, pa.array([wav(clip) if place != 2 else None for place, clip in enumerate(SOUNDS)]))
# Types of columns that its records may have.
COLUMNS = {
    "image": [pa.binary(), pa.large_binary(), pa.struct({"path": pa.string(), "bytes": pa.large_binary()})],
    "vector": [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float64(), 6)],
}
COLUMNS["audio"] = [pa.binary(), pa.large_binary(), pa.struct({"path": pa.string(), "bytes": pa.large_binary()})]
COLUMNS["vector"].append(pa.fixed_shape_tensor(pa.float64(), [6]))
COLUMNS["image"].append(pa.fixed_shape_tensor(pa.uint8(), [4, 3]))
# Columns of a table that make a record together, in structs: their values are what these rows stand for.
TOGETHER = {"vector": pa.struct([(name, pa.float64()) for name in "abcdef"])}
SETTINGS = {"audio": {"block": 64}}
BESIDE = {"audio": {"frame": [0], "channel": [0], "clip_samples": [64], "clip_rate": [8000], "clip_channels": [1]}}
BESIDE["audio"] |= {"clip_subtype": ["PCM_16"]}
kind_of = pytest.mark.parametrize("name", RECORDS)
# Kinds whose records can stand in an array.
array_kind = pytest.mark.parametrize("name", ["image", "vector"])


def state_of(name, form=None, records=()):
    kind = build_kind(name)
    return kind.fit(form or Form(sort="files"), kind.Options(**SETTINGS.get(name, {})), iter(records))


def attributes_of(name):
    """Columns of the rows of five records."""
    schema = build_kind(name).row_columns(state_of(name))
    columns = {key: pa.array(value * 5, schema.field(key).type) for key, value in BESIDE.get(name, {}).items()}
    assert list(columns) == schema.names
    return pa.table({"id": range(5), "record": range(5)} | columns)


def row_of(found):
    """The row of a record that has one, whatever the kind."""
    if isinstance(found, Several):
        (rows, _), *more = found.pieces
        assert (found.rows, len(rows), more) == (1, 1, [])
        return rows[0]
    return found


def test_files_names_and_the_table_are_the_same_list():
    folder = Path(kinds.__file__).parent
    assert {file.stem for file in folder.glob("*.py")} - PARTS == set(KINDS) == set(RECORDS) | ONLY_TOGETHER
    for name in KINDS:
        entry = import_module(f"ae_pipeline.kinds.{name}").KIND
        assert issubclass(entry, Kind)
        assert (folder / f"{name}.py").read_text().endswith(f"\nKIND = {entry.__name__}\n")


@kind_of
def test_records_become_rows_in_order_and_a_missing_one_is_said(name):
    rows, column = RECORDS[name]
    records = build_kind(name).to_rows(column, lambda number: f"place {number}", state_of(name))
    found = [row_of(record) for record in records]
    assert isinstance(found[2], DataError)
    assert str(found[2]).startswith("place 2 has no ")
    for number in (0, 1, 3, 4):
        np.testing.assert_array_equal(found[number], rows[number])
        assert found[number].dtype == rows.dtype


@kind_of
def test_a_row_depends_on_its_own_record_alone(name):
    _, column = RECORDS[name]
    kind = build_kind(name)
    state = state_of(name)
    whole = [row_of(row) for row in kind.to_rows(column, str, state)]
    parts = [row_of(row) for start in range(5) for row in kind.to_rows(column[start : start + 1], str, state)]
    for one, other in zip(whole, parts, strict=True):
        assert str(one).split(" ", 1)[1:] == str(other).split(" ", 1)[1:] if isinstance(one, DataError) else True
        if not isinstance(one, DataError):
            np.testing.assert_array_equal(one, other)


@array_kind
def test_arrays_are_taken_as_they_are_and_nothing_that_no_sample_can_be(name):
    rows, kind = RECORDS[name][0], build_kind(name)
    kind.refuse_array(rows.shape, rows.dtype, "here")
    np.testing.assert_array_equal(list(kind.to_rows(rows, str)), rows)
    for dtype in ("int64", "uint32", "bool", *(() if name == "vector" else WIDER)):
        with pytest.raises(DataError, match=rf"^here holds values of type {dtype}, expected {', '.join(DTYPES)}"):
            kind.refuse_array(rows.shape, np.dtype(dtype), "here")
    with pytest.raises(DataError, match=r"^here has shape \[5\], expected"):
        kind.refuse_array((5,), rows.dtype, "here")


@array_kind
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_their_place(name, value):
    rows = np.ones(RECORDS[name][0].shape, np.float32)
    rows[3].flat[1] = value
    with pytest.raises(DataError, match=r"^place 3 has values that are NaN or infinite"):
        list(build_kind(name).to_rows(rows, lambda number: f"place {number}"))


@kind_of
def test_a_kind_takes_the_columns_that_it_reads_and_no_texts(name):
    kind = build_kind(name)
    assert kind.takes(RECORDS[name][1].type)
    for other in (pa.string(), pa.int64(), pa.list_(pa.string()), pa.struct({"a": pa.int8()})):
        assert not kind.takes(other)
    assert kind.block_records > 0
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in kind.suffixes)


def forms_of(name):
    """Ways in which records of a kind stand: (form, records)."""
    rows, column = RECORDS[name]
    yield Form(sort="files"), column
    if name != "audio":
        yield Form(sort="array", type=type_to_json(pa.from_numpy_dtype(rows.dtype))), rows
    for kind in COLUMNS[name]:
        form = Form(sort="table", column="v", type=type_to_json(kind), columns=("a", "v", "id"))
        yield form, build_kind(name).from_rows(rows, attributes_of(name), state_of(name, form))
    if name in TOGETHER:
        form = Form(sort="table", type=type_to_json(TOGETHER[name]), columns=tuple("abcdefg"))
        fields = list(form.together)
        columns = [pa.array(column.astype(np.float64)) for column in rows.T]
        yield form, pa.StructArray.from_arrays(columns, fields=fields)


def takes(kind, form, column):
    """Whether records of this form can be of the type of column."""
    if form.together is None:
        return kind.takes(column)
    return not kind.takes(column) and all(kind.takes_together(field.type) for field in form.together)


@pytest.mark.parametrize("name", TOGETHER)
def test_records_of_several_columns_become_rows_and_the_missing_one_is_said(name):
    """Whatever is asked of records in one column holds for those that stand in several."""
    kind = build_kind(name)
    form, records = list(forms_of(name))[-1]
    state = state_of(name, form, [records])
    rows = list(kind.to_rows(records, str, state))
    assert {(row.shape, row.dtype.name) for row in rows} == {(RECORDS[name][0].shape[1:], RECORDS[name][0].dtype.name)}
    alone = [row for start in range(5) for row in kind.to_rows(records[start : start + 1], str, state)]
    np.testing.assert_array_equal(rows, alone)
    for wanted, column in zip(records.flatten(), kind.from_rows(np.stack(rows), None, state).flatten(), strict=True):
        np.testing.assert_allclose(column.to_numpy(), wanted.to_numpy(), atol=1e-6)
    total, values = kind.rounding(records, state)
    assert (0 < total < 1e-12, values) == (True, 30)
    assert kind.what_is_rounded(state) != kind.what_is_rounded(state_of(name))
    # What codecs of other records keep is not changed by it.
    assert list(entry_of(name, state_of(name)).state) == ["form"]
    changed = [pa.array([*column.to_pylist()[:3], value, 1.0]) for column, value in
               zip(records.flatten(), (1.0, 2.0, None, 3.0, 4.0, 5.0), strict=True)]  # fmt: skip
    found = list(kind.to_rows(pa.StructArray.from_arrays(changed, fields=list(form.together)), str, state))
    assert str(found[3]).startswith("3 has no value in the column `c`")
    for value in (np.nan, np.inf, -np.inf):
        changed[2] = pa.array([1.0, 2.0, 3.0, value, 5.0])
        with pytest.raises(DataError, match=r"^3 has .* in the column `c`, expected a number"):
            list(kind.to_rows(pa.StructArray.from_arrays(changed, fields=list(form.together)), str, state))


@kind_of
def test_a_state_is_plain_json_that_comes_back(name):
    for form, records in forms_of(name):
        state = state_of(name, form, [records])
        entry = entry_of(name, state)
        again = KindEntry.model_validate_json(entry.model_dump_json())
        _, found = open_kind(again, "here")
        assert found == state
    with pytest.raises(DataError, match=rf"^here has a state that the kind '{name}' cannot have made: form: "):
        open_kind(KindEntry(name=name, state={}), "here")
    with pytest.raises(ConfigError, match=r"^here is of the kind 'lost', which is not installed here; install its"):
        open_kind(KindEntry(name="lost", state={}), "here")


@kind_of
def test_rows_become_records_of_the_persons_type_and_the_same_rows_again(name):
    rows, kind = RECORDS[name][0], build_kind(name)
    spec = SampleSpec(rows.shape[1:], rows.dtype.name)
    for form, records in forms_of(name):
        state = state_of(name, form, [records])
        made = kind.from_rows(rows, attributes_of(name), state)
        assert made.type == kind.column_type(state, spec)
        assert form.sort != "table" or made.type == form.arrow_type
        assert len(made) == len(rows)
        assert takes(kind, form, made.type)
        np.testing.assert_array_equal([row_of(row) for row in kind.to_rows(made, str, state)], rows)
        if form.sort == "array":
            again = kind.to_array(rows, attributes_of(name), state)
            assert again.dtype == form.arrow_type.to_pandas_dtype()
            np.testing.assert_array_equal(list(kind.to_rows(again, str, state)), rows)


@kind_of
def test_a_record_is_written_as_a_file_that_is_the_same_record(name, tmp_path):
    rows, kind = RECORDS[name][0], build_kind(name)
    state, attributes = state_of(name), attributes_of(name)
    ending = kind.ending(state, SampleSpec(rows.shape[1:], rows.dtype.name))
    assert (ending is None) == (not kind.suffixes)
    if ending is None:
        return
    assert ending in kind.suffixes
    for again in ("a", "b"):
        kind.write([(rows[:1], attributes[:1])], tmp_path / f"{again}{ending}", state)
        np.testing.assert_array_equal(row_of(kind.read_file(tmp_path / f"{again}{ending}", state)), rows[0])
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    with pytest.raises(FileExistsError):
        kind.write([(rows[:1], attributes[:1])], tmp_path / f"a{ending}", state)


@kind_of
def test_a_kind_of_several_rows_gives_the_values_of_a_record_for_its_metrics(name):
    """They are those of the file that `write` makes, whatever the pieces."""
    rows, kind = RECORDS[name][0], build_kind(name)
    if not kind.several:
        return
    attributes = attributes_of(name)
    for number in range(5):
        pieces = [(rows[number : number + 1], attributes[number : number + 1])]
        values = np.concatenate(list(kind.restored(pieces, state_of(name))))
        assert values.dtype == np.float64
        assert np.abs(values).max() <= 1
        np.testing.assert_array_equal(values.reshape(-1), rows[number].reshape(-1))


@pytest.mark.parametrize(
    ("state", "why"),
    [({"a": "x" * 300_000}, "bytes, at most"), ({"a": float("nan")}, "not JSON compliant"), ({"a": object()}, "valid")],
)
def test_a_state_that_is_large_or_no_json_is_refused(state, why):
    with pytest.raises(ValueError, match=why):
        KindEntry(name="image", state=state)


TYPES = [
    *(pa.list_(pa.float64()), pa.large_list(pa.field("element", pa.float16(), nullable=False))),
    *(pa.list_(pa.int8(), 7), pa.fixed_shape_tensor(pa.float32(), [2, 3], dim_names=["a", "b"])),
    *(pa.struct({"bytes": pa.binary(), "path": pa.string()}), pa.list_(pa.list_(pa.large_string())), pa.bool_()),
]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_types_of_columns_come_back_from_json(kind):
    found = type_from_json(json.loads(json.dumps(type_to_json(kind))))
    assert found == kind
    assert str(found) == str(kind)


@pytest.mark.parametrize(
    "found",
    [
        *("float", None, 7, {}, {"list": "int8"}, {"tensor": {"value": "float32"}}, {"struct": 3}, {"a": 1, "b": 2}),
        {"fixed_size_list": {"name": "a", "type": "int8", "nullable": True, "size": 2**70}},
    ],
    ids=str,
)
def test_what_describes_no_type_is_refused(found):
    with pytest.raises(ValueError, match="describes no type"):
        type_from_json(found)
    deep = "int8"
    for _ in range(50):
        deep = {"list": {"name": "a", "type": deep, "nullable": True}}
    with pytest.raises(ValueError, match="describes no type"):
        type_from_json(deep)


OTHER = '''"""Kinds of somebody else: a record is a text of numbers: all of them a row, or each two of them."""

import numpy as np
import pyarrow as pa
from typing import Annotated

from pydantic import Field

from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import Kind, Several
from ae_pipeline.kinds.state import KindState
from ae_pipeline.params.base import Count, Section


class Numbers(Kind):
    suffixes = (".numbers",)

    def takes(self, column):
        return pa.types.is_string(column)

    def refuse_array(self, shape, dtype, place):
        raise DataError("is an array, expected texts", place=place)

    def rows_of_column(self, records, place, state):
        for number, text in enumerate(records.to_pylist()):
            try:
                yield np.array(bytes(text).split(), np.float32)
            except ValueError:
                yield DataError("has no numbers", place=place(number))

    def usual_type(self, state, spec):
        return pa.string()

    def from_rows(self, rows, attributes, state):
        return pa.array([" ".join(f"{value:g}" for value in row) for row in rows])


class FrameState(KindState):
    width: Annotated[int, Field(ge=1, le=1024)]


class FrameOptions(Section):
    width: Count = 2


class Frames(Numbers):
    State, Options, several = FrameState, FrameOptions, True

    def fit(self, form, settings, records):
        return FrameState(form=form, width=settings.width)

    def row_columns(self, state):
        return pa.schema([pa.field("frame", pa.int32()), pa.field("length", pa.int64())])

    def rows_of_column(self, records, place, state):
        for row in super().rows_of_column(records, place, state):
            yield row if isinstance(row, DataError) else self._frames(row, state.width)

    def _frames(self, row, width):
        count = -(-len(row) // width)
        padded = np.zeros((count, width), np.float32)
        padded.reshape(-1)[: len(row)] = row
        return Several(count, (self._piece(padded[at : at + 3], at, len(row)) for at in range(0, count, 3)))

    def _piece(self, rows, first, length):
        return rows, {"frame": range(first, first + len(rows)), "length": [length] * len(rows)}

    def from_rows(self, rows, attributes, state):
        found, frames = [], attributes.column("frame").to_pylist()
        starts = [at for at, frame in enumerate(frames) if frame == 0]
        for start, end in zip(starts, [*starts[1:], len(rows)]):
            if frames[start:end] != list(range(end - start)):
                raise DataError("has not all frames")
            values = rows[start:end].reshape(-1)[: attributes.column("length")[start].as_py()]
            found.append(" ".join(f"{value:g}" for value in values))
        return pa.array(found)

    def ending(self, state, spec):
        return ".numbers"

    column = "numbers"

    def write(self, pieces, path, state):
        with open(path, "x") as file:
            count = 0
            for rows, attributes in pieces:
                if attributes.column("frame").to_pylist() != list(range(count, count + len(rows))):
                    raise DataError("has not all frames")
                count += len(rows)
                most = attributes.column("length")[0].as_py() - attributes.column("frame")[0].as_py() * state.width
                file.write("".join(f"{value:g} " for value in rows.reshape(-1)[:most]))


class NoKind:
    pass
'''


@pytest.fixture
def package(tmp_path):
    """A folder in which somebody else's package is installed."""
    (tmp_path / "somebodys.py").write_text(OTHER)
    info = tmp_path / "somebodys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    points = {"numbers": "Numbers", "frames": "Frames", "wrong": "NoKind", "lost": "Missing"}
    lines = [f"{name} = somebodys:{kind}\n" for name, kind in points.items()]
    (info / "entry_points.txt").write_text("".join(["[ae_pipeline.kinds]\n", *lines]))
    return tmp_path


def test_a_kind_of_another_package_is_found_by_its_entry_point(package, monkeypatch):
    monkeypatch.syspath_prepend(str(package))
    assert kind_names() == ["image", "vector", "audio", "table", "frames", "lost", "numbers", "wrong"]
    assert build_kind("numbers").suffixes == (".numbers",)
    with pytest.raises(ConfigError, match=r"the kind 'wrong' of somebodys:NoKind is no ae_pipeline\.kinds\.base\.Kind"):
        build_kind("wrong")
    with pytest.raises(ConfigError, match="the kind 'lost' of somebodys:Missing cannot be loaded"):
        build_kind("lost")
    with pytest.raises(
        ConfigError,
        match="there is no kind 'photo'; expected one of image, vector, audio, table, frames, lost, numbers",
    ):
        build_kind("photo")


def test_a_kind_of_another_package_may_make_several_rows_of_a_record(package, tmp_path, monkeypatch):
    """They stand together: in one split, in one shard, with the record's number and what the kind says of each."""
    monkeypatch.syspath_prepend(str(package))
    (tmp_path / "data").mkdir()
    for number in range(30):
        text = " ".join(str(number + place / 100) for place in range(1 + number % 19))
        (tmp_path / f"data/{number:02}.numbers").write_text(text)
    options = {"path": str(tmp_path / "data"), "kind": "frames", "settings": {"width": 3}}
    source = build_source(SourceParams.model_validate({"name": "files", "files": options}))
    (tmp_path / "raw").mkdir()
    source.fetch(tmp_path / "raw")
    sets = write_splits(source.read(tmp_path / "raw"), tmp_path / "prepared", PrepareParams(rows_per_shard=8))
    seen, ids, found = {}, [], {}
    for split, samples in sets.items():
        kind, state = open_kind(samples.kind, split)
        assert state.width == 3
        for shard in samples.shards:
            (block,) = samples.blocks(shard, 1000)
            assert len(block) <= 8
            ids += block.attributes.column("id").to_pylist()
            records = list(dict.fromkeys(block.attributes.column("record").to_pylist()))
            assert all(seen.setdefault(record, shard) == shard for record in records)
            texts = kind.from_rows(block.pixels, block.attributes, state).to_pylist()
            found |= dict(zip(records, texts, strict=True))
    assert sorted(ids) == list(range(len(ids)))
    assert len(ids) == sum(-(-(1 + number % 19) // 3) for number in range(30))
    names = sorted(path.read_text() for path in (tmp_path / "data").iterdir())
    assert sorted(" ".join(f"{float(value):g}" for value in text.split()) for text in names) == sorted(found.values())
    with pytest.raises(ConfigError, match=r"source.files.settings of the kind 'frames': .* \(known: width\)"):
        build_source(
            SourceParams.model_validate({"name": "files", "files": {**options, "settings": {"size": 3}}})
        ).announce()


def test_records_of_several_rows_go_into_a_store_and_come_back_whole(package, ae, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(package))
    state = {"form": Form(sort="files").model_dump(mode="json"), "width": 3}
    random_codec(tmp_path / "codec", (3,), "float32", kind=KindEntry(name="frames", state=state))
    for number in range(23):
        path = tmp_path / f"data/{number % 2}/{number:02}.numbers"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(str(number + place / 100) for place in range(1 + number % 19)))
    (tmp_path / "data/1/broken.numbers").write_text("1 two 3")
    command = ("encode", tmp_path / "data", "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    code, _, err = ae(*command)
    assert code == 1
    assert "broken.numbers has no numbers" in err
    rows = sum(-(-(1 + number % 19) // 3) for number in range(23))
    code, out, _ = ae(*command, "--skip-unreadable", "--row-group-rows", 7, "--json")
    assert json.loads(out)["rows"] == rows
    assert ae("verify", tmp_path / "store", "--deep", "--source", tmp_path / "data")[0] == 0
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "out")[0] == 0
    index = pq.read_table(tmp_path / "out/index.parquet")
    assert index.column_names == ["file", "record", "source_file"]
    assert index["file"].equals(index["source_file"])
    for name in index["file"].to_pylist():
        wanted, found = ((tmp_path / folder / name).read_text().split() for folder in ("data", "out"))
        assert len(found) == len(wanted)
    assert len(index) == 23
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "x.parquet", "--format", "parquet")[0] == 0
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["record", "source_file", "numbers"]
    names, texts = (table[key].to_pylist() for key in ("source_file", "numbers"))
    counts = {name: len(text.split()) for name, text in zip(names, texts, strict=True)}
    assert counts == {f"{number % 2}/{number:02}.numbers": 1 + number % 19 for number in range(23)}
    # More are added: their records are others than those that are there.
    for path in (tmp_path / "data/0").iterdir():
        shutil.move(path, tmp_path / "data/1" / f"new {path.name}")
    assert ae("append", tmp_path / "store", tmp_path / "data", "--skip-unreadable")[0] == 1
    (tmp_path / "more").mkdir()
    (tmp_path / "more/a.numbers").write_text("1 2 3 4")
    assert ae("append", tmp_path / "store", tmp_path / "more")[0] == 0
    shutil.rmtree(tmp_path / "out")
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "out")[0] == 0
    assert len(pq.read_table(tmp_path / "out/index.parquet")) == 24
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "y.parquet", "--columns", "source_file")[0] == 0
    assert pq.read_table(tmp_path / "y.parquet").slice(0, 23).equals(table.select(["source_file", "numbers"]))
    code, _, err = ae("decode", tmp_path / "store", "--out", tmp_path / "some", "--ids", "3")
    assert (code, "has not all frames" in err) == (1, True)
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "some", "--ids", "3", "--format", "rows")[0] == 0


def test_the_source_reads_files_by_a_kind_of_another_package(package, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(30):
        (data / f"{number:02}.numbers").write_text(f"{number} {number + 0.5} 7")
    script = (
        "import sys; from pathlib import Path; from ae_pipeline.params import SourceParams\n"
        "from ae_pipeline.sources import build_source\n"
        "options = {'name': 'files', 'files': {'path': 'data', 'kind': 'numbers'}}\n"
        "source = build_source(SourceParams.model_validate(options)); raw = Path('raw'); raw.mkdir()\n"
        "source.fetch(raw); rows = [row for split in source.read(raw).values() for row in split.pixels.tolist()]\n"
        "print(sorted(rows)[1], len(rows))\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{package}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[1.0, 1.5, 7.0] 30"
