"""Columns of tables as places in lists and on grids, and back: every type, what is missing, and what was never seen."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from made_tables import columns_of_all_types, fitted, records_of, related_columns, there_and_back

from ae_pipeline.data.arrow_types import type_from_json, type_to_json
from ae_pipeline.data.table_columns.exceptions import NAME
from ae_pipeline.data.table_columns.fields import places_of
from ae_pipeline.data.table_columns.fit import Bound, seer_of
from ae_pipeline.data.table_columns.rows import fields_of
from ae_pipeline.errors import DataError
from ae_pipeline.kinds.state import entry_of

ALL = columns_of_all_types()
WITHIN = {"int64", "float16", "float32", "float64"}


def shown(column):
    """Values of a column, in which NaN is the same as NaN, and -0.0 another than 0."""
    return [repr(value) for value in column.to_pylist()]


def apart(one, other):
    """How far two columns of numbers are from each other, as floats; missing ones must be the same."""
    assert one.is_valid().equals(other.is_valid())
    pairs = zip(one.to_pylist(), other.to_pylist(), strict=True)
    return [abs(float(a) - float(b)) for a, b in pairs if a is not None and not np.isnan(float(a))]


def widest_rows(kind, state, records):
    """The rows that a codec may give at the worst: every number at an end of its cell."""
    made = np.stack(list(kind.to_rows(records, str, state)))
    fields = fields_of(state.columns)
    twice = 2 * places_of(made, fields)
    for number, field in enumerate(fields):
        if not field.is_category:
            there = np.ones(len(made), bool) if field.present is None else made[:, field.present] == 0
            twice[there, number] += (field.cell - 1) * np.where(np.arange(len(made))[there] % 2, 1, -1)
    return (twice / (2 * np.array([field.largest for field in fields]))).astype(np.float32)


@pytest.mark.parametrize("name", ALL.column_names)
def test_every_type_has_its_name(name):
    kind = ALL.schema.field(name).type
    assert type_from_json(type_to_json(kind)) == kind


def test_a_table_comes_back_in_its_types_and_only_bounded_numbers_that_are_on_no_grid_are_rounded():
    kind, state, records = fitted(ALL)
    back = there_and_back(kind, state, records)
    assert back.type == records.type
    for name in ALL.column_names:
        if name in WITHIN:
            values = [float(value) for value in records.field(name).to_pylist()]
            assert max(apart(records.field(name), back.field(name))) <= (max(values) - min(values)) / 1e4
        else:
            assert shown(back.field(name)) == shown(records.field(name)), name
    whys = {
        field.name: column.reason
        for field, column in zip(state.form.together, state.columns, strict=True)
        if column.sort == "unchanged"
    }
    assert set(whys) == {"uint64", "nanoseconds", "free"}


def test_with_a_bound_of_0_all_values_are_as_they_were():
    kind, state, records = fitted(ALL, max_error=0)
    back = there_and_back(kind, state, records)
    for name in ALL.column_names:
        assert shown(back.field(name)) == shown(records.field(name)), name


@pytest.mark.parametrize("share", [0.3, 0.01, 0.001, 1e-5])
def test_numbers_are_within_their_share_of_the_range_wherever_in_its_cell_the_codec_puts_them(share):
    table = ALL.select(["int8", "int64", "float16", "float32", "float64", "cents", "decimal", "gaps", "endless"])
    kind, state, records = fitted(table, max_error=share)
    back = there_and_back(kind, state, records, widest_rows(kind, state, records))
    for name in table.column_names:
        values = [float(value) for value in table.column(name).to_pylist() if value is not None]
        finite = [value for value in values if np.isfinite(value)]
        bound = share * (max(finite) - min(finite))
        found = [value for value in apart(records.field(name), back.field(name)) if np.isfinite(value)]
        ulp = max(map(abs, finite)) * 2**-52
        assert max(found) <= bound + 2 * ulp, name
        if name in ("int64", "float64") and share > 1e-4:
            assert max(found) > 0.9 * bound, name


def test_bounds_can_be_given_by_column_as_shares_or_in_their_own_units():
    kind, state, records = fitted(related_columns(), shares={"size": 0.0}, absolute={"price": 50, "width": 0.05})
    back = there_and_back(kind, state, records, widest_rows(kind, state, records))
    assert shown(back.field("size")) == shown(records.field("size"))
    assert max(apart(records.field("price"), back.field("price"))) == 50
    assert 0.04 < max(apart(records.field("width"), back.field("width"))) <= 0.05 + 1e-12


def test_what_was_never_seen_is_kept_beside_the_row_as_it_is():
    kind, state, _ = fitted(related_columns())
    new = pa.table(
        {
            "size": [0.5, 99.25, float("nan"), float("inf"), None, 0.123],
            "grade": ["plain", "rough", None, "good", "best", ""],
            "price": pa.array([900, -(1 << 62), 5, None, 7, 1000]),
            "width": [4.0, 4.01, -1e300, 5.0, 3.99, 4.5],
            "seen": [None, 0.5, 0.1, 7.7, float("nan"), 0.3],
        }
    )
    records = records_of(new)
    back = there_and_back(kind, state, records)
    for name in new.column_names:
        assert shown(back.field(name)) == shown(records.field(name)), name
    beside = kind.beside_together(records, state)[NAME]
    assert beside.null_count == 1
    assert beside[1].as_py() == '{"size": 99.25, "grade": "rough", "price": -4611686018427387904}'


def test_a_column_that_never_changed_keeps_other_values_by_themselves():
    kind, state, _ = fitted(ALL.select(["always", "nothing", "bool"]))
    new = pa.table({"always": [3, 4], "nothing": [None, 1.5], "bool": [True, None]})
    records = records_of(new)
    assert there_and_back(kind, state, records).equals(records)


def test_rows_are_the_same_alone_and_among_others():
    kind, state, records = fitted(ALL)
    together = np.stack(list(kind.to_rows(records, str, state)))
    alone = np.stack([next(kind.to_rows(records[n : n + 1], str, state)) for n in range(20)])
    assert np.array_equal(together[:20], alone)


def test_a_number_that_is_named_by_settings_must_be_there_and_have_a_bound():
    for settings, words in [
        ({"shares": {"prize": 0.1}}, "names the column `prize`, which is none"),
        ({"absolute": {"grade": 1}}, "names `grade` of type string, which is exact"),
        ({"shares": {"price": 0.1}, "absolute": {"price": 1}}, "two bounds for `price`"),
    ]:
        with pytest.raises(DataError, match=words):
            fitted(related_columns(), **settings)


def test_a_table_of_which_no_column_can_be_modelled_is_refused_and_says_why():
    with pytest.raises(DataError, match=r"no column is left that a model helps: `free` \(more than 255"):
        fitted(ALL.select(["free", "always"]))


def test_names_of_rows_stay_as_they_are():
    ids = pa.table({"key": pa.array(range(5000, 7000)), "x": pa.array(np.arange(2000) % 9)})
    _, state, _ = fitted(ids)
    assert [column.sort for column in state.columns] == ["unchanged", "number"]


def test_a_state_travels_as_plain_json():
    kind, state, _ = fitted(ALL)
    entry = entry_of("table", state)
    assert kind.State.model_validate(entry.state) == state


def test_decimals_keep_their_digits():
    table = pa.table({"d": pa.array([Decimal("1.10"), None, Decimal("-2.05")] * 20, pa.decimal128(6, 2))})
    kind, state, records = fitted(table, max_error=0)
    assert there_and_back(kind, state, records).equals(records)


def test_each_field_has_the_name_of_its_column():
    kind, state, records = fitted(related_columns(60), max_error=0.02)
    names = kind.value_names(state)
    assert len(names) == next(kind.to_rows(records, str, state)).shape[0]
    assert names == ("size", "grade", "price", "width", "seen, missing", "seen")


@pytest.mark.parametrize("far", [1e9, -4e7])
@pytest.mark.parametrize("kind", [pa.float64(), pa.int64(), pa.float32()])
def test_a_few_values_far_away_do_not_make_the_bound_wide_and_come_back_as_they_were(far, kind):
    random = np.random.default_rng(3)
    values = random.integers(0, 400, 2000).astype(np.float64)
    values[[7, 900]] = far, 2 * far
    table = pa.table({"fare": pa.array(values).cast(kind), "night": pa.array(values > 200)})
    kind_of, state, records = fitted(table, max_error=0.01)
    assert state.columns[0].bound < 5
    found = there_and_back(kind_of, state, records, widest_rows(kind_of, state, records)).field("fare").to_numpy()
    assert found[[7, 900]].tolist() == [far, 2 * far]
    assert np.abs(np.delete(found - values, [7, 900])).max() <= 4


def test_a_column_of_very_many_values_keeps_some_from_all_its_blocks():
    seer = seer_of(pa.int64(), Bound(0.01, None))
    for block in range(40):
        seer.add(pa.array(np.arange(10_000) % 50 + 1000 * block))
    column = seer.state()
    assert (column.low, column.low + column.step * column.largest) == (0, 39_049)
