"""`inspect` and `init` on columns of a table that can be taken together, and a codec of such, from table to table."""

import json
import re
import shlex

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_columns import save
from ruamel.yaml import YAML

from ae_pipeline.params import load_params

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # One strength says what most columns are; three prices are a million million times the usual ones.
    strength, turns = RANDOM.normal(size=2000), RANDOM.normal(size=(4, 2000)) / 20
    found = {
        "name": [f"w{number}" for number in range(2000)],
        "price": (np.exp(strength + turns[0]) * 1000).astype(np.int64),
        "a b": (strength + turns[1]).astype(np.float32),
        "-x": 1e9 + 1e6 * (strength + turns[2]),
        "quote'\"😀": (20 * strength).astype(np.int8),
        "some": pa.array([None if number % 5 else 1.0 for number in range(2000)]),
    }
    found["price"][:3] = 10**15
    save(tmp_path / "t.parquet", pa.table(found))


def shown(out, name):
    """What stands beside a name in the table that is printed."""
    lines = out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(name))
    width = re.match(rf"{name} +", lines[start]).end()
    group = [lines[start][width:]]
    for line in lines[start + 1 :]:
        if line[:width].strip():
            break
        group.append(line[width:])
    return group


@pytest.mark.slow
def test_a_table_says_which_of_its_columns_can_be_taken_and_how(ae):
    code, out, err = ae("inspect", "t.parquet")
    assert (code, err) == (0, "")
    assert shown(out, "kind") == ["table, by the columns, of which none holds pictures, sounds or lists of numbers"]
    first, lacking, command, setting, _ = shown(out, "numbers")
    assert first.startswith(
        "columns of numbers can be taken as a vector, by their names; the others are kept beside it"
    )
    assert lacking == "not `some`, unless what is missing there is filled in, or its rows are left out"
    assert setting.endswith('source.files.column: ["price", "a b", "-x", "quote\'\\"😀"]')
    # The command that is printed works.
    code, out, err = ae(*shlex.split(command)[1:])
    assert (code, err) == (0, "")
    assert shown(out, "kind")[0].startswith("vector, by the columns `price`, `a b`, `-x`, ")
    assert shown(out, "rows") == ["float32 4"]
    price, *_ = shown(out, "scaled by")
    low, high = map(float, re.match(r"price: (\S+) to (\S+) become 0 to 1", price).groups())
    assert 100 < low < high < 10_000
    assert shown(out, "kept beside") == ["id (int64), source_file (string), name (string), some (double)"]
    assert shown(out, "next") == [command.replace("inspect", "init FOLDER --data", 1)]


def test_a_program_reads_the_same_and_missing_values_are_counted_by_column(ae):
    code, out, _ = ae("inspect", "t.parquet", "--column", "some", "--column", "price", "--json")
    found = json.loads(out)
    assert (code, found["kind"], found["missing"]["some"], found["missing"]["price"]) == (0, "vector", 1600, 0)
    assert found["cannot_be_read"][0]["records"] == 1600
    assert "has no value in the column `some`" in found["cannot_be_read"][0]["example"]
    assert set(found["together"]) == {"some", "price"}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--column", "price", "--column", "lost"], "has no column `lost`"),
        (
            ["--column", "price", "--column", "name"],
            "has `name` of type string, which cannot be one of several columns",
        ),
        (["--column", "price", "--column", "price"], "`price`, and --column names it 2 times"),
        (["--column", "name"], "has `name` of type string, which no kind reads as records"),
        (["--kind", "image", "--column", "price", "--column", "a b"], "which cannot be one of several columns"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(ae, options, why):
    for command in (["inspect", "t.parquet"], ["init", "ws", "--data", "t.parquet"]):
        code, out, err = ae(*command, *options)
        assert (code, why in err + out) == (1, True), (err, out)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--kind", "vector"]])
def test_one_column_is_a_vector_of_one_number(ae, options, tmp_path):
    assert ae("inspect", "t.parquet", "--column", "a b", *options)[0] == 0
    code, _, err = ae("init", "ws", "--data", "t.parquet", "--column", "a b", *options)
    assert (code, err) == (0, "")
    assert YAML(typ="safe").load(tmp_path / "ws/params.yaml")["source"]["files"]["column"] == ["a b"]


def test_init_on_a_table_writes_the_settings_of_a_codec_of_tables(ae, tmp_path):
    code, out, err = ae("init", "ws", "--data", "t.parquet")
    assert (code, err) == (0, "")
    assert "every number comes back within 1% of its column's range" in out
    params = load_params(tmp_path / "ws/params.yaml")
    assert (params.source.options["kind"], params.codec.family, params.encode.layout) == ("table", "context", "stream")


@pytest.mark.slow
def test_from_a_table_to_a_table(ae, tmp_path, monkeypatch):
    """All commands that a person gives but for `dvc repro`, whose stages are these."""
    whole = pq.read_table("t.parquet")
    save("t.parquet", whole.slice(3, 900))
    names = ["price", "a b", "-x", "quote'\"😀"]
    columns = [option for name in names for option in ("--column", name)]
    assert ae("init", "ws", "--data", "t.parquet", *columns)[0] == 0
    monkeypatch.chdir(tmp_path / "ws")
    written = (tmp_path / "ws/params.yaml").read_text()
    chosen = YAML(typ="safe").load(written)
    assert (chosen["source"]["files"]["column"], chosen["train"]["neighbour_weight"]) == (names, 0.0)
    # A tiny training, of all that takes no time: without its start at the KLT, and without a price for bits.
    quick = re.sub(r"(?m)^  epochs: \d+", "  epochs: 25", written.replace("linear_path: true", "linear_path: false"))
    (tmp_path / "ws/params.yaml").write_text(re.sub(r"(?m)^  rate_weight: \S+", "  rate_weight: 0.0", quick))
    assert ae("check") == (0, "", "")
    for stage in ("download", "prepare", "train"):
        code, _, err = ae("stage", stage)
        assert code == 0, err
    assert ae("encode", "../t.parquet", "--codec", "data/codec", "--store", "store")[0] == 0
    assert ae("decode", "store", "--out", "x.parquet")[0] == 0
    found, back = pq.read_table("../t.parquet"), pq.read_table("x.parquet")
    mine = back.select(found.column_names)
    assert mine.schema.equals(found.schema)
    assert mine.select(["name", "some"]).equals(found.select(["name", "some"]))
    for name in names:
        wanted, got = (one[name].to_numpy().astype(float) for one in (found, mine))
        assert np.median(np.abs(got - wanted)) < 0.15 * np.ptp(np.quantile(wanted, [0.05, 0.95])), name
