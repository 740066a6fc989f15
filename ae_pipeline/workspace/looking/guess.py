"""Which kind reads the files that were found: by their endings, columns, shapes and first bytes.

found = find("photos")                        # DataError where there is nothing
guess = guess_kind(found)                     # DataError where it is not clear
guess.kind, guess.why, guess.listing
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa

from ae_pipeline.data.parquet.reader import open_parquet
from ae_pipeline.data.pixels import PIXELS
from ae_pipeline.data.sample_schema import spec_of, stated_spec
from ae_pipeline.errors import ConfigError, DataError, named
from ae_pipeline.kinds import KINDS, build_kind, kind_names
from ae_pipeline.kinds.base import Kind
from ae_pipeline.kinds.encoded import bytes_of, is_encoded
from ae_pipeline.kinds.image_files import IMAGE_SUFFIXES
from ae_pipeline.kinds.sound.files import SOUND_SUFFIXES
from ae_pipeline.sources.own_files.arrays import records_of_array
from ae_pipeline.sources.own_files.columns import Wanted, choose_columns, refuse_repeated_names
from ae_pipeline.sources.own_files.listing import ARRAY, SINGLE, TABLE, FoundFile, Listing, sort_of
from ae_pipeline.workspace.looking.found import IDX, OTHERS, TABLES, TEXTS, Found, every_kind

TABLE_KIND, TEXT_KIND = "table", "text"
COMING = (TABLE_KIND, TEXT_KIND)
"""Kinds whose rows are not looked at: `text` is not there yet, and of `table` the columns say enough."""
_SORT_OF_KIND = {TABLES: TABLE_KIND, TEXTS: TEXT_KIND}
_IMAGE, _VECTOR, _AUDIO = "image", "vector", "audio"
_NAMED = 5
_FIRST_BYTES = 16
# Rows of a column of bytes that are looked at for the first one that is there.
_HEAD_ROWS = 64
_MAGIC = (
    *((_IMAGE, start) for start in (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((_AUDIO, start) for start in (b"fLaC", b"OggS", b"RF64")),
)
_RIFF = {b"WEBP": _IMAGE, b"WAVE": _AUDIO}


@dataclass(frozen=True)
class Guess:
    """A kind, why it was taken, and the files that it would read."""

    kind: str
    why: str
    listing: Listing
    column: Wanted = None
    """The column to be named, where there are several that can be records; or those that make a vector together."""


def guess_kind(found: Found, kind: str | None = None, column: Wanted = None) -> Guess:
    """The kind that the files are of, or `kind` itself, and the files that it would read.

    Raises DataError where several kinds could be meant, none, or one that is not there; ConfigError for a `kind` that
    there is not.
    """
    if kind is not None:
        return _as_asked(found, checked_kind(kind), column)
    readable = found.readable
    if not readable:
        return _of_no_kind(found)
    if len(readable) > 1:
        globs = " or ".join(map(found.glob, readable))
        what = f"{found.path} has several sorts of files: {found.describe()}"
        raise DataError(
            what, advice=f"name those of one sort by a glob, {globs}, or put them into a folder of their own"
        )
    (sort,) = readable
    files = found.files[sort]
    if column is not None and not isinstance(column, str):
        return _of_columns(found, sort, files, column)
    if sort == TABLE:
        return _of_table(found, files, column)
    if sort == ARRAY:
        return _of_array(found, files, column)
    endings = ", ".join(sorted({PurePosixPath(file.name).suffix.lower() for file in files}))
    return Guess(sort, f"by the endings of the files ({endings})", _listing(found, SINGLE, files))


def checked_kind(kind: str) -> str:
    """The name of a kind that there is. Raises ConfigError for any other."""
    if kind not in kind_names():
        what = "the kind {!r} is not there yet" if kind in COMING else "no kind {!r}"
        raise ConfigError(f"{what.format(kind)}; expected one of {', '.join(kind_names())}")
    return kind


def _listing(found: Found, sort: str, files: Iterable[FoundFile]) -> Listing:
    return Listing(sort, tuple(files), found.left_out)


def _as_asked(found: Found, kind: str, column: Wanted) -> Guess:
    """The files that a kind would read, as far as there are any: of the most frequent sort."""
    opened = build_kind(kind)
    suffixes = opened.suffixes
    sorts: dict[str, list[FoundFile]] = {}
    for files in found.files.values():
        for file in files:
            if sort := sort_of(file.path, suffixes):
                sorts.setdefault(sort, []).append(file)
    if not sorts:
        expected = f"*{', *'.join((*suffixes, '.parquet', '.npy', '.npz'))}"
        what = f"{found.path} has {found.describe()}, of which the kind `{kind}` reads none; expected {expected}"
        raise DataError(what, advice=_advice_for(found) or "name other files, or another kind")
    if len(sorts) > 1:
        there = ", ".join(f"{len(files):,} {sort} ({files[0].name})" for sort, files in sorts.items())
        raise DataError(f"{found.path} has several sorts of files: {there}; name those of one sort by a glob")
    ((sort, files),) = sorts.items()
    files = sorted(files, key=lambda file: file.name)
    if sort == TABLE and isinstance(column, str):
        column = _in_a_list(_first_schema(files)[1], opened, column)
    return Guess(kind, "as asked", _listing(found, sort, files), column)


def _of_no_kind(found: Found) -> Guess:
    """Tables and texts in files that are not read, which is said; or a DataError."""
    known = [sort for sort in (TABLES, TEXTS) if sort in found.files]
    if set(found.files) <= {TABLES, TEXTS, OTHERS} and known:
        sort = max(known, key=lambda sort: len(found.files[sort]))
        files = found.files[sort]
        endings = ", ".join(sorted({PurePosixPath(file.name).suffix.lower() for file in files}))
        return Guess(_SORT_OF_KIND[sort], f"by the endings of the files ({endings})", _listing(found, sort, files))
    what = f"{found.path} has {found.describe()}, which no kind reads"
    raise DataError(what, advice=_advice_for(found) or f"expected {_expected()}")


def _advice_for(found: Found) -> str | None:
    if IDX in found.files:
        return f"for IDX files: `ae-pipeline init FOLDER --data {found.path} --source idx`"
    return None


def _expected() -> str:
    return f"pictures ({', '.join(IMAGE_SUFFIXES)}), sounds ({', '.join(SOUND_SUFFIXES)}), Parquet, .npy or .npz"


def _of_array(found: Found, files: Sequence[FoundFile], column: str | None) -> Guess:
    """Vectors have two axes, pictures three or four. The first file that can be read says it."""
    troubles = []
    for file in files:
        try:
            name, shape = records_of_array(file.path, column)
        except DataError as error:
            troubles.append(error)
            continue
        kind = _VECTOR if len(shape) <= 2 else _IMAGE
        what = f"array `{name}`" if name else file.name
        shown = "x".join(map(str, shape)) or "no axis"
        return Guess(kind, f"by the shape of {what}, {shown}", _listing(found, ARRAY, files), column)
    raise troubles[0]


def _of_table(found: Found, files: Sequence[FoundFile], column: str | None) -> Guess:
    file, schema = _first_schema(files)
    if column is not None and not isinstance(together := _in_a_list(schema, build_kind(_VECTOR), column), str):
        return _of_columns(found, TABLE, files, together or ())
    listing = _listing(found, TABLE, files)
    if column in (None, PIXELS) and PIXELS in schema.names and stated_spec(file.path, schema) is not None:
        spec = spec_of(file.path, schema, None)
        kind = _VECTOR if len(spec.shape) == 1 else _IMAGE
        return Guess(kind, f"by `{PIXELS}`, this package's own layout, of {spec.describe()}", listing, column)
    if column is not None and column not in schema.names:
        advice = (
            f"name one of {', '.join(schema.names)}; of several columns of numbers, each with a --column of its own"
        )
        raise DataError(f"has no column `{column}`", place=file.path, advice=advice)
    found_columns = dict(_columns_of_kinds(file, schema))
    # A kind of another package is meant where none of this package's own is.
    able = {name: kind for name, kind in found_columns.items() if kind in KINDS or column} or found_columns
    if column is not None and column not in able:
        what = f"has `{column}` of type {schema.field(column).type}, which no kind reads as records"
        raise DataError(what, place=file.path, advice=f"name one of {', '.join(able)}" if able else _coming(schema))
    if len(able) > 1 and column is None:
        there = ", ".join(f"{name} ({kind}, {schema.field(name).type})" for name, kind in able.items())
        advice = "say which with --column; the others are then kept beside it"
        raise DataError(f"has several columns that can be records: {there}", place=file.path, advice=advice)
    if not able:
        kind = _table_or_text(schema)
        return Guess(kind, "by the columns, of which none holds pictures, sounds or lists of numbers", listing)
    name = column or next(iter(able))
    return Guess(able[name], f"by the column `{name}` of {schema.field(name).type}", listing, column)


def _of_columns(found: Found, sort: str, files: Sequence[FoundFile], columns: Sequence[str]) -> Guess:
    """Columns of numbers that are taken together are vectors."""
    if sort != TABLE:
        what = f"{found.path} has {found.describe()}, of which none is a table with several columns"
        raise DataError(what, advice="name Parquet files, or name one --column at most")
    file, schema = _first_schema(files)
    chosen = choose_columns(str(file.path), schema, build_kind(_VECTOR), columns)
    names = named([f"`{name}`" for name in chosen], _NAMED)
    what = f"columns {names}, together" if len(chosen) > 1 else f"column {names}, a vector of one number"
    return Guess(_VECTOR, f"by the {what}", _listing(found, TABLE, files), chosen)


def _in_a_list(schema: pa.Schema, kind: Kind, column: str) -> Wanted:
    """One column of numbers in a list, as params.yaml has it; a column of records as it is."""
    found = schema.field(column).type if column in schema.names else None
    is_one = found is not None and kind.takes_together(found) and not kind.takes(found)
    return [column] if is_one else column


def _first_schema(files: Sequence[FoundFile]) -> tuple[FoundFile, pa.Schema]:
    """The columns of the first file that can be opened. Raises DataError where none can."""
    troubles = []
    for file in files:
        try:
            with open_parquet(file.path) as parquet:
                refuse_repeated_names(file.path, parquet.schema_arrow)
                return file, parquet.schema_arrow
        except DataError as error:
            troubles.append(error)
    raise DataError(f"none of the {len(files):,} Parquet files can be read, the first one: {troubles[0]}")


def _columns_of_kinds(file: FoundFile, schema: pa.Schema) -> Iterator[tuple[str, str]]:
    """Columns that can be records, and the kind that would read each."""
    for field in schema:
        if is_encoded(field.type):
            if kind := _kind_of_bytes(file.path, field.name):
                yield field.name, kind
        elif kind := next((name for name, kind in every_kind() if kind.takes(field.type)), None):
            yield field.name, kind


def _kind_of_bytes(path: Path, column: str) -> str | None:
    """What the first file in a column of bytes is; None for no picture and no sound."""
    with open_parquet(path) as parquet:
        batch = next(parquet.iter_batches(_HEAD_ROWS, columns=[column], use_threads=False), None)
    values = bytes_of(batch.column(0)).drop_null() if batch is not None else []
    return kind_of_bytes(values[0].as_py()[:_FIRST_BYTES]) if len(values) else None


def kind_of_bytes(start: bytes) -> str | None:
    """Which kind reads a file that begins so; None: none does."""
    if start.startswith(b"RIFF"):
        return _RIFF.get(start[8:12])
    return next((kind for kind, magic in _MAGIC if start.startswith(magic)), None)


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a column of this type holds one number a row."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _table_or_text(schema: pa.Schema) -> str:
    """`text` where one or two columns of text stand alone or beside an id, `table` for all others."""
    texts = [field for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    return TEXT_KIND if 1 <= len(texts) <= 2 and len(schema) <= len(texts) + 1 else TABLE_KIND


def _coming(schema: pa.Schema) -> str:
    return f"the kind `{_table_or_text(schema)}` is not there yet"
