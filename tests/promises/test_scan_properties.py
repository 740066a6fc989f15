"""Chosen rows: what `scan` gives is what the same choice gives on all rows, for any condition that Hypothesis writes.

The model is Python's own comparing, row by row, with SQL's nulls.
"""

import math
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from examples import examples
from handmade import encode, random_codec, random_pixels, write_rows
from hypothesis import given
from hypothesis import strategies as st

from ae_pipeline.errors import ConfigError
from ae_pipeline.store.latent_store import LatentStore

NAMES = ["", "a", "ab", "b", "o'hara", '"quoted"', "100%", "a_b", "\\", "\u00e4", "\U0001f9e8", "NULL", "1", "x" * 300]
TINY = [-128, -3, -1, 0, 1, 7, 127]
HUGE = [0, 1, 2**24 + 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]
BIG = [-(2**63), -(2**53) - 1, -1, 0, 5, 2**53 + 1, 2**63 - 1]
FLOATS = [-math.inf, -1e300, -0.5, -0.0, 0.0, 5e-324, 0.1, 1.0, 16_777_217.0, math.inf, math.nan]
ROWS = 120


def column(values, kind, seed, *, nulls=True):
    """Runs of equal values, so that row groups differ in range, some of nothing but nulls."""
    random = np.random.default_rng(seed)
    found = []
    while len(found) < ROWS:
        value = random.integers(len(values) + nulls)
        found += [None if value == len(values) else values[value]] * random.integers(1, 12)
    return pa.array(found[:ROWS], kind)


COLUMNS = {
    "tiny": column(TINY, pa.int8(), 1),
    "huge": column(HUGE, pa.uint64(), 2),
    "big": column(BIG, pa.int64(), 3),
    "small float": column([np.float32(value) for value in (-1.5, 0.1, 0.2, math.nan, 0, 3e38)], pa.float32(), 4),
    "float": column(FLOATS, pa.float64(), 5),
    "name": column(NAMES, pa.string(), 6),
    "name2": column(NAMES, pa.large_string(), 7),
    "flag": column([True, False], pa.bool_(), 8),
}
IDS = {
    "signed": column([value for value in BIG for _ in range(2)], pa.int64(), 9, nulls=False),
    "unsigned": column(HUGE, pa.uint64(), 10, nulls=False),
    "bytes": column(TINY, pa.int8(), 11, nulls=False),
    "texts": column(NAMES, pa.string(), 12, nulls=False),
}


@pytest.fixture(scope="module", params=IDS)
def store(request, tmp_path_factory):
    """Three parts in row groups of seven rows."""
    folder = tmp_path_factory.mktemp("scans")
    random_codec(folder / "codec", (4,))
    pixels, columns = random_pixels((ROWS, 4), "uint8"), {"id": IDS[request.param], **COLUMNS}
    for number, first in enumerate(range(0, ROWS, 40)):
        some = {name: values.slice(first, 40) for name, values in columns.items()}
        write_rows(folder / "rows" / f"{number}.parquet", pixels[first : first + 40], **some)
    return encode(folder / "rows", folder / "codec", folder / "store", row_group_rows=7)


@pytest.fixture(scope="module")
def whole(store):
    """All rows as Python has them."""
    return pa.concat_tables(store.scan()).to_pylist()


# --- conditions: an SQL text, and what it is for a row: True, False, or None for unknown

NUMBERS = ["tiny", "huge", "big", "small float", "float"]
COMPARE = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
CONSTANTS = sorted({*TINY, *HUGE, *BIG, 128, -129, 2**65, -(2**70), 10**40})
FRACTIONS = [0.1, -0.5, 1.5, 1e300, -1e300, 1e18, 16_777_217.0, 2.0**63]


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def literal(value):
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def compared(name, sign, constant, row):
    value = row[name]
    if value is None:
        return None
    if name == "small float":
        # A constant is taken for the nearest 32-bit float, so that 0.1 is found.
        with np.errstate(over="ignore"):
            constant = float(np.float32(constant))
    return COMPARE[sign](value.encode() if isinstance(value, str) else value, as_bytes(constant))


def as_bytes(value):
    return value.encode() if isinstance(value, str) else value


def unknown_if_null(name, test, row):
    return None if row[name] is None else test(row[name])


def negated(condition, row):
    found = condition(row)
    return None if found is None else not found


def both(first, second, row):
    found = (first(row), second(row))
    return False if False in found else None if None in found else True


def either(first, second, row):
    found = (first(row), second(row))
    return True if True in found else None if None in found else False


def among(name, values, row):
    return None if row[name] is None else any(compared(name, "=", value, row) for value in values)


def like(pattern, value):
    """`%` stands for any text, `_` for one character."""
    ends = {0}
    for part in pattern:
        if part == "%":
            ends = set(range(min(ends, default=len(value) + 1), len(value) + 1))
        else:
            ends = {end + 1 for end in ends if end < len(value) and part in ("_", value[end])}
    return len(value) in ends


@st.composite
def leaves(draw):
    how = draw(st.sampled_from(["compare", "compare", "mirror", "in", "between", "null", "like", "flag"]))
    if how == "null":
        name = draw(st.sampled_from(list(COLUMNS)))
        word = draw(st.sampled_from(["IS NULL", "is not null"]))
        return f"{quoted(name)} {word}", lambda row: (row[name] is None) == (word == "IS NULL")
    if how == "flag":
        return "flag", lambda row: row["flag"]
    if how == "like":
        pattern = draw(
            st.sampled_from(["", "%", "a%", "%b", "_", "a_b", "%'%", "100%", "%\\%", "\u00e4", "__", "%a%b%"])
        )
        return f"name LIKE {literal(pattern)}", partial(unknown_if_null, "name", partial(like, pattern))
    name = draw(st.sampled_from([*NUMBERS, "name", "name2"]))
    constants = st.sampled_from(NAMES) if name.startswith("name") else st.sampled_from([*CONSTANTS, *FRACTIONS])
    if how == "in":
        values = draw(st.lists(constants, min_size=1, max_size=4))
        word = draw(st.sampled_from(["IN", "NOT IN"]))
        text = f"{quoted(name)} {word} ({', '.join(map(literal, values))})"
        inside = partial(among, name, values)
        return text, inside if word == "IN" else partial(negated, inside)
    first, second = draw(constants), draw(constants)
    if how == "between":
        text = f"{quoted(name)} BETWEEN {literal(first)} AND {literal(second)}"
        return text, partial(both, partial(compared, name, ">=", first), partial(compared, name, "<=", second))
    sign = draw(st.sampled_from(list(COMPARE)))
    if how == "mirror":
        mirrored = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(sign, sign)
        return f"{literal(first)} {mirrored} {quoted(name)}", partial(compared, name, sign, first)
    return f"{quoted(name)} {sign} {literal(first)}", partial(compared, name, sign, first)


def joined(inner):
    def join(word, first, second):
        return f"({first[0]}) {word} ({second[0]})", partial(both if word == "AND" else either, first[1], second[1])

    negation = inner.map(lambda condition: (f"NOT ({condition[0]})", partial(negated, condition[1])))
    return negation | st.builds(join, st.sampled_from(["AND", "OR"]), inner, inner)


CONDITIONS = st.recursive(leaves(), joined, max_leaves=5)


@st.composite
def wanted_ids(draw, ids):
    """Some that are there, some that are not, and some that could not be."""
    there = st.sampled_from(ids)
    others = st.sampled_from(NAMES) if isinstance(ids[0], str) else st.sampled_from([*CONSTANTS, 3])
    return draw(st.lists(there | others, max_size=6))


@pytest.mark.slow
@examples(30)
@given(data=st.data())
def test_a_scan_gives_what_python_finds_in_all_rows(data, store, whole):
    condition = data.draw(st.none() | CONDITIONS)
    ids = data.draw(st.none() | wanted_ids([row["id"] for row in whole]))
    columns = data.draw(st.none() | st.lists(st.sampled_from(list(whole[0])), unique=True))
    wanted = [
        row for row in whole if (condition is None or condition[1](row) is True) and (ids is None or row["id"] in ids)
    ]
    names = list(whole[0]) if columns is None else columns
    tables = list(store.scan(columns, None if condition is None else condition[0], ids))
    assert all(table.column_names == names and len(table) for table in tables)
    found = [row for table in tables for row in table.to_pylist()] if names else [{}] * sum(map(len, tables))
    assert str(found) == str([{name: row[name] for name in names} for row in wanted])


ARROW = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@pytest.mark.slow
@examples(15)
@given(data=st.data())
def test_an_arrow_expression_gives_what_it_gives_on_all_rows(data, store):
    name = data.draw(st.sampled_from(list(COLUMNS)))
    kind = COLUMNS[name].type
    value = data.draw(st.sampled_from([value for value in COLUMNS[name].to_pylist() if value is not None]))
    sign = data.draw(st.sampled_from(list(ARROW)))
    expression = ARROW[sign](pc.field(name), pa.scalar(value, kind))
    expression = ~expression if data.draw(st.booleans()) else expression
    everything = pa.concat_tables(store.scan())
    found = list(store.scan(filter=expression))
    wanted = everything.filter(expression)
    assert str(pa.concat_tables(found, promote_options="none").to_pylist() if found else []) == str(wanted.to_pylist())


@examples(40)
@given(
    text=st.text(max_size=40) | st.from_regex(r"(tiny|name|NOT|\(|\)|'|\"|=|<|AND|1|--|;|/\*| ){1,12}", fullmatch=True)
)
def test_no_text_of_a_condition_gives_another_error_than_ours(text, sound):
    message = ""
    try:
        list(sound.scan(["id"], filter=text))
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    random_codec(folder / "codec", (4,))
    columns = {"tiny": [1, None, 3], "name": ["a", "b", None]}
    samples = write_rows(folder / "rows.parquet", random_pixels((3, 4), "uint8"), **columns)
    return LatentStore.open(encode(samples, folder / "codec", folder / "store").path)


@pytest.mark.parametrize(
    "ids", [[1.5], [True], ["1.0"], ["1_0"], ["\u0661"], ["9" * 5000], [None], ["0x1"], [""], [" 1"]]
)
def test_ids_that_are_no_integers_are_refused(ids, sound):
    with pytest.raises(ConfigError, match=r"the ids of .* are integers"):
        list(sound.scan(ids=ids))


@pytest.mark.parametrize("ids", [[2**64], [-(2**70), 1], ["+1"], [np.int64(1)], [np.uint8(1), 10**30]])
def test_ids_beyond_the_columns_range_are_only_not_there(ids, sound):
    assert sum(len(table) for table in sound.scan(ids=ids)) == any(int(value) == 1 for value in ids)


@pytest.mark.parametrize(
    "text", ["(" * 5000 + "tiny = 1" + ")" * 5000, "NOT " * 5000 + "tiny = 1", "tiny = " + "1" * 5000]
)
def test_conditions_of_any_length_end(text, sound):
    with pytest.raises(ConfigError):
        list(sound.scan(filter=text))
