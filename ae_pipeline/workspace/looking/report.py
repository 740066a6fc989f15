"""What was found of a person's data, in words; plain.py has it for programs."""

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence

from ae_pipeline.errors import named
from ae_pipeline.sources.own_files.drawing.groups import LEAST_GROUPS
from ae_pipeline.sources.own_files.listing import TABLE
from ae_pipeline.workspace.looking.guess import TABLE_KIND
from ae_pipeline.workspace.looking.look import Looked, training_seconds
from ae_pipeline.workspace.looking.tables import TableLook
from ae_pipeline.workspace.looking.tally import MOST_BYTES, Reason, describe_sizes
from ae_pipeline.workspace.looking.worth import Worth

_NAMED = 5
_SIZES = 4
# Columns that a command is shown with, and whose ranges are.
_OPTIONS, _RANGES = 40, 12
_MINUTE, _HOUR = 60, 3600
# A codec is expected to know little where this share of the variance is left.
_LITTLE = 0.7
NO_PARQUET = "the kind `table` reads Parquet alone"
AS_PARQUET = (
    "write the data as Parquet, for example by python -c \"import pandas; pandas.read_csv('data.csv').to_parquet("
    "'data.parquet')\""
)
Line = tuple[str, str]
"""A name, and what stands beside it; without a name it belongs to the line above."""


def describe(looked: Looked) -> str:
    """A short table."""
    if looked.table is not None:
        lines = [*_of_files(looked), *_of_table(looked)]
    else:
        lines = [*_of_files(looked), *_of_records(looked), *_of_refusals(looked), *_of_choice(looked)]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {text}".rstrip() for name, text in lines)


def chosen_lines(looked: Looked) -> list[str]:
    """What was chosen, and why: a few lines for `init`."""
    lines = [f"kind {looked.guess.kind}: {looked.guess.why}"]
    lines += looked.choice.reasons if looked.choice else ()
    seconds = training_seconds(looked)
    lines += [] if seconds is None else [f"training: {duration(seconds)} on this machine"]
    lines += [f"pays: {verdict(looked)}"] if looked.worth else []
    return lines


def trouble(looked: Looked) -> Iterator[str]:
    """Why `dvc repro` would stop at reading this data, as far as was looked."""
    yield from looked.problems
    if looked.fit_problem is not None:
        yield looked.fit_problem
    for reason in looked.refused:
        yield f"{_records(reason)} would end the reading: {reason.example}"
    for reason in looked.left_out:
        what = f"{_records(reason)} cannot be read: {reason.example}"
        yield f"{what}; source.files.skip_unreadable: true leaves out such ones"


def verdict(looked: Looked) -> str:
    """Whether an autoencoder pays, with the numbers of rows."""
    worth, rows = looked.worth, looked.rows
    assert worth is not None
    if worth.expected.mse > _LITTLE * worth.mean_mse:
        left = min(1.0, worth.expected.mse / worth.mean_mse)
        return f"probably not: rows have little in common, and {left:.0%} of what tells them apart would be lost"
    at = worth.break_even
    never = [other.name for other in worth.alternatives if other.pays_from is None]
    if at is None:
        return f"probably not: {named(never, _NAMED)}: fewer bits, however many rows there are"
    if not worth.alternatives:
        return "not known: nothing else could be measured"
    worst = max(worth.alternatives, key=lambda other: other.pays_from or 0)
    found = f"beside {worst.name} a codec pays {_from_rows(at)}, and here are {rows:,}"
    return f"probably yes: {found}" if rows >= at else f"probably not: {found}"


def duration(seconds: float) -> str:
    """Seconds in words, rounded."""
    if seconds < _MINUTE:
        return "a minute or less"
    if seconds < 2 * _HOUR:
        minutes = round(seconds / _MINUTE)
        return "about 1 minute" if minutes == 1 else f"about {minutes} minutes"
    return f"about {seconds / _HOUR:.0f} hours"


def _of_files(looked: Looked) -> Iterator[Line]:
    yield "kind", f"{looked.guess.kind}, {looked.guess.why}"
    yield "files", f"{looked.files:,}, {_size(looked.nbytes)}{_fetched(looked)}"
    if folders := looked.folders:
        yield "sub-folders", f"{named(folders, _NAMED)} (source.files.label: folder makes labels of them)"
        if len(folders) >= LEAST_GROUPS:
            yield "", "source.files.group: folder keeps all files of one in one split, if they are related"
    if looked.passed_over:
        names = named(looked.passed_over, _NAMED)
        yield "passed over", f"{len(looked.passed_over):,} by whose names no data go: {names}"


def _fetched(looked: Looked) -> str:
    sample = looked.sample
    if sample is None or sample.is_all:
        return ""
    return f"; {sample.files:,} of them, {_size(sample.nbytes)}, were fetched, and what follows is of these"


def _of_records(looked: Looked) -> Iterator[Line]:
    tally = looked.tally
    some = 0 < tally.records < looked.records
    what_follows = f"; what follows is of {tally.records:,} of them{_where(looked)}" if some else ""
    yield "records", f"{'about ' if looked.is_guess else ''}{looked.records:,}{what_follows}"
    if looked.spec is not None:
        several = looked.rows != looked.records and tally.rows != tally.readable
        each = "each " if len(tally.sizes) == 1 else "in records: "
        rows = f"{'about ' if some else ''}{looked.rows:,}, {each}" if several else ""
        yield "rows", f"{rows}{describe_sizes(tally.sizes.most_common(), _SIZES)}"
    yield from _group("scaled by", _of_ranges(looked))
    if looked.value_range is not None:
        yield "values", looked.value_range.describe().removeprefix("values from ")
    if tally.records:
        yield "missing", _missing(looked)
        yield "repeated", _repeated(looked)
    if looked.columns:
        yield "kept beside", ", ".join(f"{name} ({kind})" for name, kind in looked.columns.items())


def _of_ranges(looked: Looked) -> Iterator[str]:
    """The range that each column is scaled by."""
    found = [
        f"{name}: {_end(low)} in every record" if low == high else f"{name}: {_end(low)} to {_end(high)} become 0 to 1"
        for name, (low, high) in looked.ranges.items()
    ]
    yield from found[:_RANGES]
    if len(found) > _RANGES:
        yield f"and {len(found) - _RANGES:,} more"


def _end(value: float) -> str:
    """An end of a range: integers whole, floats short."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def _of_refusals(looked: Looked) -> Iterator[Line]:
    unreadable = (f"{_records(reason)}: {reason.example}" for reason in looked.left_out)
    yield from _group("cannot be read", unreadable)
    refused = (f"{_records(reason)}: {reason.example}" for reason in looked.refused)
    problems = [*looked.problems, *([looked.fit_problem] if looked.fit_problem else [])]
    yield from _group("refused", [*problems, *refused])
    yield from _group("note", looked.notes)


def _of_choice(looked: Looked) -> Iterator[Line]:
    if looked.choice is None:
        return
    yield from _group("would take", looked.choice.reasons)
    if (seconds := training_seconds(looked)) is not None:
        yield "training", f"{duration(seconds)} on this machine (an estimate from a few steps)"
    if looked.worth is not None:
        yield from _of_worth(looked.worth)
    if looked.guess.kind == "audio":
        yield "", "for sound that people listen to, Opus is better at the same bits: it spends them on what is heard"
    if looked.spec is not None:
        yield "pays", verdict(looked) if looked.worth else "not known: there are too few rows, or they are all alike"
    if looked.problems:
        return
    kind = f" --kind {looked.guess.kind}" if looked.guess.why == "as asked" else ""
    column = looked.guess.column
    names = [column] if isinstance(column, str) else column or ()
    yield "next", f"ae-pipeline init FOLDER --data {shlex.quote(looked.path)}{kind}{_options(names)}"


def _of_worth(worth: Worth) -> Iterator[Line]:
    expected = worth.expected
    bits, codec = f"about {expected.bits:,.0f} bits a row", f"a codec of about {_size(expected.codec_bytes)}"
    yield "expected", f"{bits}, and {codec}: a guess from PCA, until `ae-pipeline bench` measures it"
    others = []
    for other in worth.alternatives:
        ours = "always smaller" if other.pays_from is None else f"ours is smaller {_from_rows(other.pays_from)}"
        others.append(f"{other.name}: {other.bits:,.0f} bits a row; {ours}")
    yield from _group("beside that", others)


def _of_table(looked: Looked) -> Iterator[Line]:
    table, kind = looked.table, looked.guess.kind
    assert table is not None
    if table.is_parquet:
        yield "records", f"{'about ' if looked.is_guess else ''}{looked.records:,}"
        found = (f"{name} ({kind}){_nulls(table.missing.get(name))}" for name, kind in table.columns.items())
        yield from _group("columns", found)
        yield from _group("cannot be read", table.broken)
    else:
        yield (
            "columns",
            "not looked at: write the data as Parquet, of which columns of numbers can be taken as a vector",
        )
    if kind == TABLE_KIND and table.is_parquet:
        yield "settings", "`init` writes those of a codec that keeps every number within a bound: docs/kinds/table.md"
    elif kind == TABLE_KIND:
        yield "refused", f"{NO_PARQUET}: {AS_PARQUET}"
    else:
        yield "refused", f"the kind `{kind}` is not supported yet: it comes with exact coding"
    yield from _group("numbers", _as_vector(looked, table))


def _as_vector(looked: Looked, table: TableLook) -> Iterator[str]:
    """That columns of numbers can be taken as a vector, by name, and how."""
    able = [name for name in table.numbers if not table.missing.get(name)]
    lacking = [f"`{name}`" for name in table.numbers if table.missing.get(name)]
    if not table.numbers:
        return
    yield "columns of numbers can be taken as a vector, by their names; the others are kept beside it as they are"
    if lacking:
        yield f"not {named(lacking, _NAMED)}, unless what is missing there is filled in, or its rows are left out"
    if able:
        more = f"; and {len(able) - _OPTIONS:,} more columns in the same way" if len(able) > _OPTIONS else ""
        path = shlex.quote(looked.path)
        yield f"ae-pipeline inspect {path}{_options(able[:_OPTIONS])}{more}"
        names = ", ".join(json.dumps(name, ensure_ascii=False) for name in able[:_OPTIONS])
        yield f"in params.yaml: source.files.kind: vector, source.files.column: [{names}]{more}"
        yield "decoded numbers are near the given ones, not the same, and each column's errors are of about one size"


def _options(columns: Sequence[str]) -> str:
    """Options of `inspect` and `init` that name columns."""
    return "".join(f" --column {shlex.quote(name)}" for name in columns)


def _nulls(count: int | None) -> str:
    return "" if not count else f", {count:,} missing"


def _where(looked: Looked) -> str:
    if looked.tally.is_full:
        return f" ({_size(MOST_BYTES)} of values), spread over all"
    return ", from evenly spaced places" if looked.guess.listing.sort == TABLE else ", spread over all"


def _missing(looked: Looked) -> str:
    missing = looked.tally.missing
    found = ", ".join(f"{count:,} in {name or 'the records'}" for name, count in missing.items() if count)
    return f"{found} (null, NaN or infinite)" if found else "no values"


def _repeated(looked: Looked) -> str:
    tally = looked.tally
    of = "all" if tally.records >= looked.records else f"these {tally.records:,}"
    if not tally.repeated:
        return f"none of {of}"
    return f"{tally.repeated:,} of {of} have the values of another one: {tally.repeated_example}"


def _group(name: str, texts: Iterable[str]) -> Iterator[Line]:
    for text in texts:
        yield name, text
        name = ""


def _records(reason: Reason) -> str:
    return "1 record" if reason.records == 1 else f"{reason.records:,} records"


def _from_rows(rows: int) -> str:
    """Two digits of a number: no more is known."""
    return "from the first row on" if rows == 1 else f"from about {float(f'{rows:.2g}'):,.0f} rows on"


def _size(nbytes: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:.3g} {unit}"
    return f"{nbytes:.0f} bytes"
