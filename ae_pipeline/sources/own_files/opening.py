"""The data that a command is given, for a codec: prepared Parquet with `pixels`, or a person's own files.

samples = open_data("photos", header.kind, header.spec)     # a file, a folder or a glob, or the URL of one
"""

import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pyarrow as pa

from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.parquet.reader import open_parquet
from ae_pipeline.data.pixels import PIXELS, SampleSpec
from ae_pipeline.data.sample_files import find_files
from ae_pipeline.data.sample_schema import stated_spec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import ConfigError, DataError, named
from ae_pipeline.kinds import open_kind
from ae_pipeline.kinds.base import Kind
from ae_pipeline.kinds.state import Form, KindState
from ae_pipeline.sources.own_files.columns import FOLDER, Kept, refuse_same_names
from ae_pipeline.sources.own_files.grouping import KnownGroup
from ae_pipeline.sources.own_files.listing import ARRAY, SINGLE, TABLE, Listing, all_files, list_files
from ae_pipeline.sources.own_files.places.at_hand import AtHand, at_hand
from ae_pipeline.sources.own_files.readers import open_reader
from ae_pipeline.sources.own_files.records import Reader
from ae_pipeline.sources.own_files.samples import OwnSamples
from ae_pipeline.sources.own_files.words import in_words_of_commands

_NAMED = 5
_SORTS = {"files": SINGLE, "table": TABLE, "array": ARRAY}


def open_data(
    path: Path | str,
    kind: KindEntry | None,
    spec: SampleSpec | None,
    *,
    stored: Mapping[str, str] | None = None,
    skip_unreadable: bool = False,
    known: Sequence[KnownGroup] = (),
) -> SampleSet:
    """Open data for a codec of this `kind` and `spec`; `stored` as in `SampleSet.open`.

    Prepared Parquet files, which have a column `pixels`, are read as they are. All else is read by the kind, if there
    is one: records that cannot be read are refused, or left out and listed. `known` are groups of files that are in a
    store. Files at a URL are fetched, all of them, and go when the data set does. Raises DataError, UnreachableError,
    and ConfigError for a kind that is not installed here.
    """
    with ExitStack() as stack:
        with in_words_of_commands():
            data = stack.enter_context(at_hand(str(path), known=_endings(kind)))
            _fetch(data, kind)
        if kind is None or spec is None or is_prepared(data, kind):
            samples = SampleSet.open(Path(data.path), spec, stored)
        else:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ae-pipeline-")))
            with in_words_of_commands():
                samples = _open_own(data, kind, spec, work, skip_unreadable, known)
        samples.elsewhere = data.elsewhere
        weakref.finalize(samples, stack.pop_all().close)
        return samples


def _endings(kind: KindEntry | None) -> Sequence[str]:
    """Endings of the files that a kind reads; none for a kind that is not here."""
    with suppress(ConfigError):
        return open_kind(kind, "the codec")[0].suffixes if kind else ()
    return ()


def _fetch(data: AtHand, kind: KindEntry | None) -> None:
    """Bring files at a URL here. Those that will not be read are refused before, by their names."""
    if not data.is_remote:
        return
    if kind is None:
        find_files(Path(data.path))
    else:
        _listing(data, _endings(kind), kind.name)
    data.fetch(all_files(data.path, data.root)[0])


def _open_own(
    data: AtHand, entry: KindEntry, spec: SampleSpec, work: Path, skip: bool, known: Sequence[KnownGroup]
) -> OwnSamples:
    kind, state = open_kind(entry, "the codec")
    listing = _listing(data, kind.suffixes, entry.name)
    reader, notes = _reader(listing, kind, state, work)
    notes = [*_left_out(data.shown, listing), *notes]
    several = kind.row_columns(state) if kind.makes_several(state) else None
    kept = Kept(reader.schema, listing.files[0], _label(state.form, reader, listing), several)
    refuse_same_names(listing.files[0].path, state.form.together, kept.schema, kind.folded(state))
    return OwnSamples(listing, reader, kept, spec, skip=skip, notes=notes, known=known)


def is_prepared(data: AtHand, kind: KindEntry) -> bool:
    """Whether data is Parquet with a column `pixels` that is not the user's own name for the records."""
    try:
        opened, state = open_kind(kind, "the codec")
        suffixes, column = opened.suffixes, state.form.column
    except ConfigError:  # a kind of a package that is not here: it is not needed for these
        suffixes, column = (), None
    try:
        listing = list_files(data.path, suffixes, data.root)
        if listing.sort != TABLE:
            return False
        with open_parquet(listing.files[0].path) as parquet:
            schema = parquet.schema_arrow
        says_shape = stated_spec(listing.files[0].path, schema) is not None
    except (DataError, OSError):
        return False
    return PIXELS in schema.names and (says_shape or column != PIXELS)


def _listing(data: AtHand, suffixes: Sequence[str], name: str) -> Listing:
    try:
        return list_files(data.path, suffixes, data.root)
    except DataError as error:
        raise error.renamed({"this kind does not read": f"a codec of the kind `{name}` does not read"}) from None


def _reader(listing: Listing, kind: Kind, state: KindState, work: Path) -> tuple[Reader, list[str]]:
    """The reader of files that stand as a codec's records did, and what will come back otherwise, in words."""
    form = state.form
    if form.together is not None:
        return _reader_of_columns(listing, kind, state, form.together, work), []
    same = listing.sort == _SORTS[form.sort]
    wants_name = listing.sort == TABLE or listing.files[0].path.suffix.lower() == ".npz"
    column = form.column if same and wants_name else None
    try:
        reader = open_reader(listing, kind, column, work)
    except DataError as error:
        if column is None:
            raise
        advice = f"give files whose records are in `{column}`, as in the codec's training: decoding calls them so"
        raise error.with_fields(advice=advice) from None
    reader.state = state
    if reader.form is None:  # this package's own layout under the user's own name `pixels`
        return reader, []
    found, wanted = reader.form.arrow_type, form.arrow_type
    if same and found != wanted:  # names of lists' items do not count: Parquet changes them
        raise DataError(
            f"has records of type {found}, expected {wanted}, as decoding gives them back",
            place=listing.files[0].path,
            advice="cast them, or train a codec on these",
        )
    if same:
        return reader, []
    became = {"files": "files of one record each", "table": f"a column `{form.column}`", "array": "NumPy's arrays"}
    return reader, [f"these are {listing.sort}, but decoding gives {became[form.sort]}, as in the codec's training"]


def _reader_of_columns(listing: Listing, kind: Kind, state: KindState, wanted: pa.Schema, work: Path) -> Reader:
    """The reader of Parquet with columns of these names and types. Raises DataError, which names the one that lacks."""
    advice = "give Parquet files with all the columns that the codec was trained on, in their types"
    names = named([f"`{name}`" for name in wanted.names], _NAMED)
    place = listing.files[0].path
    if listing.sort != TABLE:
        raise DataError(f"is no Parquet file; the codec reads the columns {names}", place=place, advice=advice)
    try:
        reader = open_reader(listing, kind, wanted.names, work)
    except DataError as error:
        raise error.with_fields(advice=f"{advice}: {names}") from None
    found = reader.form.together if reader.form else None
    for field, other in zip(wanted, found or (), strict=True):
        if field.type != other.type:
            what = f"has the column `{field.name}` of type {other.type}, expected {field.type}, as decoding gives it"
            raise DataError(what, place=place, advice="cast it, or train a codec on these")
    reader.state = state
    return reader


def _label(form: Form, reader: Reader, listing: Listing) -> str | None:
    """The column or `folder` that is the label, as in training; none where these files have none."""
    if form.label == FOLDER:
        return FOLDER if any(file.folder for file in listing.files) else None
    keys = [name for name, _ in listing.files[0].keys]
    return form.label if form.label in (*reader.schema.names, *keys) else None


def _left_out(path: str, listing: Listing) -> list[str]:
    if not listing.left_out:
        return []
    names = named(listing.left_out, _NAMED)
    return [f"{len(listing.left_out):,} file(s) of {path} left out, as no data goes by such names: {names}"]
