"""Source `files`: a person's own files as they are: pictures, Parquet, NumPy's arrays.

    source: {name: files, files: {path: photos, kind: image, label: folder}}

A kind (kinds/) says what a record is and makes its row. `fetch` checks all records and writes the rows to raw/, beside
`files.parquet`, which names every file that was read with its size and SHA-256, and `left_out.parquet`, which names
every record that was left out. Memory does not grow with the number of records, but for their files' names.
"""

import tempfile
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.pixels import RawSplit, SampleSpec
from ae_pipeline.data.shares import far_from_share
from ae_pipeline.errors import ConfigError, DataError, named, warn
from ae_pipeline.kinds import build_kind
from ae_pipeline.kinds.base import Kind, Several
from ae_pipeline.kinds.state import entry_of
from ae_pipeline.params.base import Section, problems
from ae_pipeline.sources.base import Source
from ae_pipeline.sources.own_files.columns import Kept, Wanted, refuse_same_names
from ae_pipeline.sources.own_files.drawing.groups import GroupDrawing
from ae_pipeline.sources.own_files.drawing.records import Drawing, RecordDrawing
from ae_pipeline.sources.own_files.listing import SINGLE, Listing, list_files
from ae_pipeline.sources.own_files.places.at_hand import at_hand
from ae_pipeline.sources.own_files.places.remote import is_url, open_place, refuse_secrets
from ae_pipeline.sources.own_files.readers import open_reader, unchanged
from ae_pipeline.sources.own_files.records import Reader
from ae_pipeline.sources.own_files.sink import FILES, Sink
from ae_pipeline.sources.own_files.splits import read_splits, refuse_repeated_ids, write_kind

_NAMED = 5
# Files whose sizes are looked at before any is read.
_LOOKED_AT = 200


class Files(Source):
    """See files_options.py for what the options mean."""

    def __init__(
        self,
        *,
        path: str,
        kind: str,
        column: Wanted,
        label: str | None,
        group: str | None,
        settings: dict[str, Any],
        test_fraction: float,
        seed: int,
        skip_unreadable: bool,
    ):
        self._path, self._kind, self._column, self._label, self._settings = path, kind, column, label, settings
        self._group, self._fraction, self._seed, self._skip = group, test_fraction, seed, skip_unreadable

    def announce(self) -> None:
        """Nothing but whether there are files of one sort, and the kind: all else takes reading.

        A URL is looked at for its form only: its server is not asked.
        """
        kind = build_kind(self._kind)
        _settings_of(kind, self._kind, self._settings)
        if is_url(self._path):
            refuse_secrets(self._path)
            open_place(self._path)
        else:
            list_files(self._path, kind.suffixes)

    def look_at_first(self) -> SampleSpec | None:
        """Reads one record, and what the kind asks of some others: how large pictures are."""
        if is_url(self._path) or isinstance(self._column, list):
            return None
        kind = build_kind(self._kind)
        with suppress(DataError, OSError), tempfile.TemporaryDirectory(prefix="ae-pipeline-") as work:
            listing = list_files(self._path, kind.suffixes)
            some = replace(listing, files=listing.files[: _LOOKED_AT if listing.sort == SINGLE else 1])
            reader = open_reader(some, kind, self._column, Path(work))
            if reader.form is not None:
                settings = _settings_of(kind, self._kind, self._settings)
                reader.state = kind.fit(reader.form, settings, islice(reader.sources(), _LOOKED_AT))
            row = next(next(reader.read(some.files[0])).rows)
            first = next(iter(row.pieces))[0][0] if isinstance(row, Several) else row
            return (
                SampleSpec(first.shape, first.dtype.newbyteorder("=").name) if isinstance(first, np.ndarray) else None
            )
        return None

    def fetch(self, raw: Path) -> None:
        """Read, check and write all records. Raises DataError that names files, and rows in them."""
        kind = build_kind(self._kind)
        settings = _settings_of(kind, self._kind, self._settings)
        refuse_secrets(self._path)
        with tempfile.TemporaryDirectory(dir=raw) as work, at_hand(self._path, Path(work), kind.suffixes) as data:
            listing = list_files(data.path, kind.suffixes, data.root)
            if listing.left_out:
                names = named(listing.left_out, _NAMED)
                warn([f"{self._path}: {len(listing.left_out):,} left out, as no data goes by such names: {names}"])
            data.fetch(listing.files)
            reader = open_reader(listing, kind, self._column, Path(work))
            drawing = self._draw(reader, Path(work))
            entry = self._fit(reader, settings, drawing)
            several = kind.row_columns(reader.state) if reader.state and kind.makes_several(reader.state) else None
            kept = Kept(reader.schema, listing.files[0], self._label, several)
            folded = kind.folded(reader.state) if reader.state else ()
            refuse_same_names(listing.files[0].path, reader.form and reader.form.together, kept.schema, folded)
            with Sink(raw, self._path, self._skip, kept, kind.for_several_shapes) as sink:
                self._read_all(listing, reader, sink, drawing)
        sink.refuse_what_was_found()
        if sink.kept.has_ids:
            refuse_repeated_ids(raw, self._path, sink.kept.key, sink.records)
        write_kind(raw, entry)
        print(sink.describe(kind.what_is_rounded(reader.state)))

    def _draw(self, reader: Reader, work: Path) -> Drawing:
        if self._group is None:
            return RecordDrawing([(file.name, reader.count(file)) for file in reader.files], self._fraction, self._seed)
        drawing = GroupDrawing(reader, self._group, self._fraction, self._seed, work)
        print(drawing.describe())
        warn(far_from_share("test", drawing.share, self._fraction, "source.files.test_fraction"))
        return drawing

    def _fit(self, reader: Reader, settings: Section, drawing: Drawing) -> KindEntry | None:
        """Fit the kind's state, and say what the codec is to keep; files in this package's own layout say it.

        Columns that are taken together get their scalings from the records that are trained on alone.
        """
        if reader.form is None:
            return reader.entry
        form = reader.form.model_copy(update={"label": self._label})
        # Lists and grids are of all records: what is not on them is kept by itself, and none of it is learned from.
        records = reader.sources(drawing if form.together is not None and not reader.kind.takes_all_together else None)
        try:
            reader.state = reader.kind.fit(form, settings, records)
        except DataError as error:
            raise error if error.place else error.with_fields(finding=f"{self._path}: {error.finding}") from None
        return entry_of(self._kind, reader.state)

    def _read_all(self, listing: Listing, reader: Reader, sink: Sink, drawing: Drawing) -> None:
        from tqdm import tqdm

        for name, error in reader.broken.items():
            sink.leave_out(name, error)
        sink.refuse_unreadable()
        counts = [(file.name, reader.count(file)) for file in listing.files]
        total = sum(count for _, count in counts)
        if total < 2:
            what = f"holds {total} record(s), expected at least 2: one to train and one to test"
            raise DataError(what, place=self._path, advice="name more files in source.files.path")
        first = 0
        with tqdm(total=total, unit=" records", desc=self._path, disable=None) as bar:
            for file, (_, count) in zip(listing.files, counts, strict=True):
                if file.name in reader.broken:
                    continue
                with unchanged(file.path) as (size, digest):
                    read = 0
                    for records in reader.read(file):
                        added = sink.add(file, records, first + records.first, drawing)
                        read += added
                        bar.update(added)
                sink.files.append(pa.table([[file.name], [size], [digest], [count], [read]], schema=FILES))
                first += count

    def read(self, raw: Path) -> dict[str, RawSplit]:
        """Memory maps; ids are the person's own, or the records' numbers."""
        return read_splits(raw, self._group, self._label)


def _settings_of(kind: Kind, name: str, settings: dict[str, Any]) -> Section:
    try:
        return kind.Options.model_validate(settings)
    except ValidationError as error:
        known = ", ".join(kind.Options.known()) or "none, it has no settings"
        found = "; ".join(problems(error))
        raise ConfigError(f"source.files.settings of the kind {name!r}: {found} (known: {known})") from None


SOURCE = Files
