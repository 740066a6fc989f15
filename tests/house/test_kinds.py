"""What every kind must do, run on each of them; and a kind of a package of somebody else is one of them."""

import io
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ae_pipeline import kinds
from ae_pipeline.data.pixels import DTYPES
from ae_pipeline.errors import ConfigError, DataError
from ae_pipeline.kinds import KINDS, build_kind, kind_names
from ae_pipeline.kinds.base import Kind

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"__init__", "base", "image_files", "image_headers"}


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.integers(0, 255, (5, 4, 3), dtype=np.uint8)
VECTORS = RANDOM.normal(size=(5, 6)).astype(np.float32)
# For each kind: the rows of five records, a column of them with the third one missing, and an array of them.
RECORDS = {
    "image": (PICTURES, pa.array([png(rows) if place != 2 else None for place, rows in enumerate(PICTURES)])),
    "vector": (VECTORS, pa.array([list(row) if place != 2 else None for place, row in enumerate(VECTORS)])),
}
RECORDS["vector"] = (VECTORS, RECORDS["vector"][1].cast(pa.list_(pa.float32())))
kind_of = pytest.mark.parametrize("name", KINDS)


def test_files_names_and_the_table_are_the_same_list():
    folder = Path(kinds.__file__).parent
    assert {file.stem for file in folder.glob("*.py")} - PARTS == set(KINDS) == set(RECORDS)
    for name in KINDS:
        entry = import_module(f"ae_pipeline.kinds.{name}").KIND
        assert issubclass(entry, Kind)
        assert (folder / f"{name}.py").read_text().endswith(f"\nKIND = {entry.__name__}\n")


@kind_of
def test_records_become_rows_in_order_and_a_missing_one_is_said(name):
    rows, column = RECORDS[name]
    found = list(build_kind(name).to_rows(column, lambda number: f"place {number}"))
    assert isinstance(found[2], DataError)
    assert str(found[2]).startswith("place 2 has no ")
    for number in (0, 1, 3, 4):
        np.testing.assert_array_equal(found[number], rows[number])
        assert found[number].dtype == rows.dtype


@kind_of
def test_a_row_depends_on_its_own_record_alone(name):
    _, column = RECORDS[name]
    kind = build_kind(name)
    whole = list(kind.to_rows(column, str))
    parts = [row for start in range(5) for row in kind.to_rows(column[start : start + 1], str)]
    for one, other in zip(whole, parts, strict=True):
        assert str(one).split(" ", 1)[1:] == str(other).split(" ", 1)[1:] if isinstance(one, DataError) else True
        if not isinstance(one, DataError):
            np.testing.assert_array_equal(one, other)


@kind_of
def test_arrays_are_taken_as_they_are_and_nothing_that_no_sample_can_be(name):
    rows, kind = RECORDS[name][0], build_kind(name)
    kind.refuse_array(rows.shape, rows.dtype, "here")
    np.testing.assert_array_equal(list(kind.to_rows(rows, str)), rows)
    for dtype in ("float64", "float16", "int64", "uint32", "bool"):
        with pytest.raises(DataError, match=rf"^here holds values of type {dtype}, expected {', '.join(DTYPES)}"):
            kind.refuse_array(rows.shape, np.dtype(dtype), "here")
    with pytest.raises(DataError, match=r"^here has shape \[5\], expected"):
        kind.refuse_array((5,), rows.dtype, "here")


@kind_of
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


OTHER = '''"""A kind of somebody else: a record is a text of numbers."""

import numpy as np
import pyarrow as pa

from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import Kind


class Numbers(Kind):
    suffixes = (".numbers",)

    def takes(self, column):
        return pa.types.is_string(column)

    def refuse_array(self, shape, dtype, place):
        raise DataError("is an array, expected texts", place=place)

    def rows_of_column(self, records, place):
        for number, text in enumerate(records.to_pylist()):
            try:
                yield np.array(bytes(text).split(), np.float32)
            except ValueError:
                yield DataError("has no numbers", place=place(number))


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
    points = "[ae_pipeline.kinds]\nnumbers = somebodys:Numbers\nwrong = somebodys:NoKind\nlost = somebodys:Missing\n"
    (info / "entry_points.txt").write_text(points)
    return tmp_path


def test_a_kind_of_another_package_is_found_by_its_entry_point(package, monkeypatch):
    monkeypatch.syspath_prepend(str(package))
    assert kind_names() == ["image", "vector", "lost", "numbers", "wrong"]
    assert build_kind("numbers").suffixes == (".numbers",)
    with pytest.raises(ConfigError, match=r"the kind 'wrong' of somebodys:NoKind is no ae_pipeline\.kinds\.base\.Kind"):
        build_kind("wrong")
    with pytest.raises(ConfigError, match="the kind 'lost' of somebodys:Missing cannot be loaded"):
        build_kind("lost")
    with pytest.raises(ConfigError, match="there is no kind 'photo'; expected one of image, vector, lost, numbers"):
        build_kind("photo")


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
