"""Conditions as SQL has them: what they choose, with DuckDB as the judge, and what they refuse."""

import random
from decimal import Decimal
from functools import partial

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ae_pipeline.errors import ConfigError
from ae_pipeline.store.reading.conditions import Condition, ranges_of
from ae_pipeline.store.reading.where import parse_where

TABLE = pa.table(
    {
        "row": pa.array(range(12), pa.int64()),
        "label": pa.array([7, 7, 3, None, 0, 255, 1, 2, 9, 7, 7, None], pa.uint8()),
        "small": pa.array([-128, 127, 0, None, -1, 1, 5, -5, 3, -3, 2, 2], pa.int8()),
        "big": pa.array([2**63 - 1, -(2**63), 0, None, -1, 1, 5, -5, 2**53, 2**53 + 1, 4, 4], pa.int64()),
        "unsigned": pa.array([2**64 - 1, 0, 0, None, 1, 1, 5, 5, 2**53, 2**53 + 1, 2**63, 8], pa.uint64()),
        "error": pa.array([0.1, 0.5, -0.25, 1e-3, 3.4e38, 0.3, None, 2, 0.0, 1.0, 0.7, 0.2], pa.float32()),
        "double": pa.array([0.1, 0.5, -0.25, 1e-3, 1e300, 0.3, None, 2, -0.0, float("inf"), 0.7, 0.2]),
        "name": pa.array(["it's", "a_b", "a%b", "ä\\b", None, "", "a\nb", "日本語", "A_B", "axb", '"', "🙂"]),
        "two words": pa.array([*"abcdefghij", None, "k"], pa.large_string()),
        "flag": pa.array([True, False, None] * 4),
    }
)

CONDITIONS = r"""
label = 7 | label <> 7 | label != 7 | NOT label = 7 | label == 7 | 7 = label | 7 > label | label = (7) | (label) >= 7
label IN (7, 3) | label NOT IN (7, 3) | NOT label IN (7) | label IN (7, 300) | label IN (300) | label NOT IN (300)
label IS NULL | label IS NOT NULL | NOT label IS NULL | label BETWEEN 1 AND 7 | label NOT BETWEEN 1 AND 7
label = 300 | label <> 300 | label < 300 | label >= 256 | label > -1 | label < 0 | label = -7 | label = 7.0
label > 6.5 | label >= 6.5 | label < 6.5 | label <= 6.5 | label = 6.5 | label <> 6.5 | label < -0.5 | label > 1e300
label = 100000000000000000000000 | label < 100000000000000000000000 | label > -100000000000000000000000
small = -128 | small > -3 | small > - 3 | small < 200 | small <> -129 | small IN (-1, -5, 1000) | small > -2.5
small BETWEEN -5 AND -1 | small IN (-1.0, 2.5) | NOT small < 0
big = 9223372036854775807 | big > 9223372036854775806 | big = -9223372036854775808 | big < 9223372036854775808
big = 9007199254740993 | big > 9007199254740992 | big IN (9007199254740993, 4) | big <= -9223372036854775809
unsigned = 18446744073709551615 | unsigned > 9223372036854775808 | unsigned > -1 | unsigned < 9007199254740993
unsigned IN (18446744073709551615, -1) | unsigned BETWEEN 9223372036854775808 AND 18446744073709551615
error = 0.1 | error < 0.1 | error <= 0.1 | error > 0.3 | error >= 0.3 | error <> 0.1 | error IN (0.1, 1) | error = 1
error BETWEEN 0.1 AND 0.3 | error > 1e3 | error > 1e39 | error < -1e39 | NOT error < 0.5 | error = 0 | error <> 0
double = 0.1 | double <= 0.1 | double > 1e299 | double <> 0.5 | NOT double > 0 | double = 0 | double = -0.0
double > 1e308 | double IN (0, 0.3) | double BETWEEN -1 AND 0
name = 'it''s' | name <> 'it''s' | name = '' | name > 'b' | name < 'a_b' | name = '日本語' | name = 'ä\b' | name = '"'
name IN ('axb', 'A_B', 'none') | name NOT IN ('axb') | name IN ('it''s', '🙂') | name BETWEEN 'a' AND 'b'
name LIKE 'a_b' | name LIKE '%b' | name LIKE 'a%' | name NOT LIKE 'a%' | NOT name LIKE 'a%' | name LIKE '%'
name LIKE 'a\_b' | name LIKE 'ä\b' | name LIKE '%\%' | name LIKE '%''%' | name LIKE 'a.b' | name LIKE 'a%%b'
name LIKE '日_語' | name LIKE '_' | name LIKE '' | name LIKE '[a]%' | name >= '日' | name < '🙂' | name > '日本語'
"two words" = 'a' | "two words" IN ('a', 'c') | "two words" LIKE 'a' | "two words" > 'd' | name = "two words"
flag | NOT flag | flag = TRUE | flag = FALSE | flag <> true | flag IS NULL | flag IN (true) | NOT (flag AND label = 7)
NOT (flag OR label = 7) | flag AND label = 7 | flag OR label = 7 | flag OR NOT flag
label = 7 AND error < 1 OR name IS NULL | label = 7 AND (error < 1 OR name IS NULL) | NOT (label = 7 OR small > 0)
label = small | label < small | error < double | label <> unsigned | small = big | label >= 7 AND label IN (7, 9)
NOT (label NOT IN (7, 3) AND (name LIKE '%b' OR error > 0.2)) | NOT NOT label = 7 | label = 7 -- a comment
"""
EACH = [text.strip() for line in CONDITIONS.strip().splitlines() for text in line.split(" | ")]


@pytest.fixture(scope="module")
def chosen_by_duckdb():
    """The numbers of the rows of a table that DuckDB chooses, over one connection: making one takes longer."""
    with duckdb.connect() as connection:
        connection.execute("set threads = 1")

        def ask(text, table):
            connection.register("t", table)
            return [row for (row,) in connection.execute(f"select row from t where {text}\n").fetchall()]

        yield ask


def chosen(text, table):
    condition, needs = parse_where(text, table.schema)
    return table.select([*needs, *({"row"} - needs)]).filter(condition.expression)["row"].to_pylist()


@pytest.mark.parametrize("text", EACH)
def test_a_condition_chooses_what_duckdb_chooses(text, chosen_by_duckdb):
    assert chosen(text, TABLE) == chosen_by_duckdb(text, TABLE)


def group_ranges(table, rows, tmp_path):
    """The ranges of every row group of `rows` rows, from a real file, and the rows themselves."""
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=rows)
    metadata = pq.read_metadata(tmp_path / "t.parquet")
    for group in range(metadata.num_row_groups):
        yield ranges_of(metadata, group, set(table.column_names)), table.slice(group * rows, rows)


PRICES = ["0.1", "0.2", "-0.1", None, "99999999.9", "-99999999.9", "0", "1.5", "7", "0.3", "0.1", "1"]
EXACT = [None, *["-1234567890123456789.12345678901234567"] * 2, "0", *["12345678901234567.89"] * 8]
DECIMALS = pa.table(
    {
        "row": TABLE["row"],
        "price": pa.array([None if text is None else Decimal(text) for text in PRICES], pa.decimal128(9, 1)),
        "exact": pa.array([None if text is None else Decimal(text) for text in EXACT], pa.decimal128(38, 17)),
    }
)
OF_DECIMALS = """
price = 0.1 | price = 0.15 | price < 0.15 | price <= 0.15 | price > 0.15 | price >= 0.15 | price <> 0.15 | price = 7
price > -0.15 | price < -0.15 | price >= -0.1 | price IN (0.1, 0.15, 7) | price NOT IN (0.15) | price IN (1000000000)
price < 1000000000 | price > 1000000000 | price <> 1000000000 | price > -1000000000 | price <= -1000000000
price BETWEEN 0.05 AND 0.25 | price > 99999999.95 | price < -99999999.95 | NOT price < 0.15 | price < 1e300
price = 1.50 | price > 1e0 | exact IN (12345678901234567.89, 0) | exact < -1234567890123456789.123456789012345669
exact = 12345678901234567.89 | exact > 12345678901234567.88 | exact = -1234567890123456789.12345678901234567
"""


@pytest.mark.parametrize(
    "text", [text.strip() for line in OF_DECIMALS.strip().splitlines() for text in line.split(" | ")]
)
def test_decimals_are_compared_with_what_is_written_not_with_what_it_is_rounded_to(text, chosen_by_duckdb):
    assert chosen(text, DECIMALS) == chosen_by_duckdb(text, DECIMALS)


def test_a_number_of_400_digits_is_beyond_every_column():
    for name in ("label", "big", "unsigned"):
        for sign, rows in (("<", True), (">", False), ("=", False), ("<>", True)):
            condition, _ = parse_where(f"{name} {sign} {'9' * 400}", TABLE.schema)
            known = TABLE.filter(pc.field(name).is_valid())
            assert len(known.filter(condition.expression)) == rows * len(known)


def test_a_number_of_more_digits_than_a_float_has_is_no_other_one():
    big = TABLE.filter(parse_where("big = 9007199254740993.0", TABLE.schema)[0].expression)
    assert big["big"].to_pylist() == [2**53 + 1]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_statistics_never_pass_over_a_row_that_is_chosen(rows, tmp_path):
    nan = pa.array([float("nan"), *TABLE["double"].to_pylist()[1:]])
    table = TABLE.set_column(TABLE.column_names.index("double"), "double", nan)
    groups = list(group_ranges(table, rows, tmp_path))
    passed_over = 0
    for text in [*EACH, "double <> 0.1", "NOT double < 5", "NOT double = 0.5", "NOT double IN (0.5)"]:
        condition, _ = parse_where(text, table.schema)
        for ranges, part in groups:
            found = pc.field("row").isin([]) | condition.expression
            results = set(part.append_column("?", _evaluated(found, part))["?"].to_pylist())
            possible = condition.outcomes(ranges)
            assert results <= possible, text
            passed_over += True not in possible
    assert passed_over > 0.2 * len(groups) * len(EACH)


def _evaluated(expression, table):
    yes, no = (set(table.filter(one)["row"].to_pylist()) for one in (expression, ~expression))
    return pa.array([True if row in yes else False if row in no else None for row in table["row"].to_pylist()])


# For the columns a to d of the test below. The leaves of `s`, a struct, a list and a map of numbers, have such paths.
NAMES = [
    {name: name for name in "abcd"},
    {"a": "s.a", "b": "s.list.list.element", "c": "s.map.key_value.value", "d": "s.d"},
    {"a": 'quo"ted', "b": "back`tick", "c": "it's", "d": "two  words "},
    {"a": "Meta.Src", "b": "meta.src", "c": "META", "d": "."},
    {"a": "select", "b": "NOT", "c": "--", "d": "\\ä🙂"},
]


def leaves_of_other_columns(count):
    """Numbers whose statistics say nothing of the columns that are asked for."""
    numbers = pa.array(np.full(count, 1000.0))
    lists = pa.array([[1000.0]] * count)
    maps = pa.array([[("k", 1000.0)]] * count, pa.map_(pa.string(), pa.float64()))
    return pa.StructArray.from_arrays([numbers, lists, maps, numbers], ["a", "list", "map", "d"])


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.slow
@pytest.mark.parametrize("names", NAMES, ids=lambda names: names["a"])
def test_random_conditions_choose_what_duckdb_chooses(names, tmp_path, chosen_by_duckdb):
    draw = random.Random(0)
    random_rows = np.random.default_rng(0)
    count = 300
    nulls = partial(random_rows.choice, [True, False], count, p=[0.1, 0.9])
    table = pa.table(
        {
            "row": np.arange(count),
            "a": pa.array(np.sort(random_rows.integers(-20, 20, count)), pa.int16(), mask=nulls()),
            "b": pa.array(random_rows.integers(0, 10, count), pa.uint32(), mask=nulls()),
            "c": pa.array(np.round(random_rows.uniform(-3, 3, count), 1), pa.float32(), mask=nulls()),
            "d": pa.array(random_rows.choice(["x", "yy", "z'z", "", "Ä"], count).tolist(), mask=nulls()),
        }
    )
    named = table.rename_columns({name: names.get(name, name) for name in table.column_names})
    named = named.append_column("s", leaves_of_other_columns(count))
    groups = list(group_ranges(named, 20, tmp_path))
    assert all(set(ranges) - {"row"} == set(names.values()) for ranges, _ in groups)

    def constant(name):
        if name == "d":
            return "'" + draw.choice(["x", "yy", "z''z", "", "Ä", "no"]) + "'"
        return draw.choice([str(draw.randint(-22, 22)), str(round(draw.uniform(-3, 3), 1))])

    def condition(depth):
        if depth and draw.random() < 0.7:
            kind = draw.choice(["AND", "OR", "NOT"])
            return (
                f"NOT ({condition(depth - 1)})"
                if kind == "NOT"
                else f"({condition(depth - 1)}) {kind} ({condition(depth - 1)})"
            )
        name = draw.choice("abcd")
        place = f"{{{name}}}"
        kind = draw.choice(["compare", "compare", "in", "between", "null"])
        no = draw.choice(["", "NOT "])
        if kind == "in":
            return f"{place} {no}IN ({', '.join(constant(name) for _ in range(draw.randint(1, 4)))})"
        if kind == "between":
            return f"{place} {no}BETWEEN {constant(name)} AND {constant(name)}"
        return (
            f"{place} IS {no}NULL"
            if kind == "null"
            else f"{place} {draw.choice(['=', '<>', '<', '<=', '>', '>='])} {constant(name)}"
        )

    for _ in range(150):
        asked = condition(3)
        # DuckDB tells no names apart that differ by case only: it is asked with plain ones.
        expected = chosen_by_duckdb(asked.format(**{name: name for name in names}), table)
        text = asked.format(**{name: quoted(new) if new != name else name for name, new in names.items()})
        assert chosen(text, named) == expected, text
        parsed, _ = parse_where(text, named.schema)
        kept = [part for ranges, part in groups if True in parsed.outcomes(ranges)]
        assert [row for part in kept for row in part.filter(parsed.expression)["row"].to_pylist()] == expected, text


def test_a_number_that_is_none_is_unequal_to_all_and_neither_smaller_nor_greater():
    table = pa.table({"row": [0, 1, 2], "x": [1.0, float("nan"), None]})
    for text, rows in {
        "x <> 1": [1],
        "x = 1": [0],
        "x < 2": [0],
        "x > 0": [0],
        "NOT x < 2": [1],
        "x IS NULL": [2],
    }.items():
        assert chosen(text, table) == rows, text


def test_dates_compare_with_text(tmp_path):
    table = pa.table({"row": [0, 1, 2], "day": pa.array([0, 20_000, None], pa.date32())})
    assert chosen("day > '2020-01-01'", table) == [1]
    with pytest.raises(ConfigError, match="cannot compare 'soon' with a column of type date32"):
        parse_where("day > 'soon'", table.schema)


@pytest.mark.slow
def test_many_constants_are_one_condition():
    inside = ", ".join(str(number) for number in range(3, 20_000))
    assert chosen(f"label IN ({inside})", TABLE) == [0, 1, 2, 5, 8, 9, 10]
    assert chosen(f"double IN ({inside})", TABLE) == []
    with pytest.raises(ConfigError, match="nested too deeply; use IN"):
        parse_where(" OR ".join(["label = 7"] * 5000), TABLE.schema)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot understand the condition ''"),
        ("label =", "cannot understand"),
        ("label = 7; drop table t", "cannot understand"),
        ("label = 7 limit 3", "cannot understand"),
        ("lable = 7", "names a column 'lable'; the store has row, label"),
        ("name = axb", "names a column 'axb'.*texts stand in single quotes"),
        ("1 = 1", "cannot use 1 in"),
        ("TRUE", "cannot use TRUE"),
        ("label", "cannot compare True with a column of type uint8"),
        ("label = '7'", "cannot compare '7' with a column of type uint8.*the columns are row: int64, label: uint8"),
        ("name = 7", "cannot compare 7 with a column of type string"),
        ("name > true", "cannot compare True with a column of type string"),
        ("name IN ('a', 7)", "cannot compare 7 with a column of type string"),
        ("label IN (7, 'a')", "cannot compare 'a' with a column of type uint8"),
        ("label LIKE '7'", "by LIKE with a column of type uint8"),
        ("name LIKE 7", "by LIKE with a column of type string"),
        ("name LIKE 'a' ESCAPE 'b'", "cannot use name LIKE 'a' ESCAPE 'b'"),
        ("name ILIKE 'a'", "cannot use name ILIKE 'a'"),
        ("name LIKE name", "cannot use name"),
        ("label = NULL", "cannot use NULL"),
        ("label IN (7, NULL)", "cannot use NULL"),
        ("label IN ()", r"cannot use label IN \(\)"),
        ("label IN (SELECT 1)", r"cannot use label IN \(SELECT 1\)"),
        ("label BETWEEN SYMMETRIC 9 AND 1", "cannot use .label BETWEEN 9 AND 1 OR"),
        ("label IS TRUE", "cannot use label IS TRUE"),
        ("label IS DISTINCT FROM 3", "cannot use"),
        ("label + 1 = 8", r"cannot use label \+ 1"),
        ("abs(small) = 5", "cannot use ABS"),
        ("1 < label < 5", "cannot use 1 < label"),
        ("label = 1e400", "cannot use 1e400"),
        ("label = " + "1" * 5000, "cannot use 1111111111"),
        ("t.label = 7", "cannot use t.label"),
        ("label::int = 7", "cannot use CAST"),
        ("label = ?", "cannot use"),
    ],
)  # fmt: skip
def test_what_is_no_condition_says_so_in_one_line(text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        parse_where(text, TABLE.schema)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_an_arrow_expression_says_nothing_about_statistics():
    assert Condition(pc.field("label") == 7).outcomes({}) == {True, False, None}
