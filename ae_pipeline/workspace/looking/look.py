"""All that can be said of a person's data without training on them.

looked = look("photos")          # DataError where there is nothing, or several kinds at once
looked.kind, looked.records, looked.choice, looked.refused
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.value_range import ValueRange, scaled_by
from ae_pipeline.errors import DataError, as_in_messages, named
from ae_pipeline.experiments.presets import TILES
from ae_pipeline.kinds import build_kind
from ae_pipeline.kinds.base import Kind, Source
from ae_pipeline.kinds.state import entry_of
from ae_pipeline.kinds.vector import VectorState
from ae_pipeline.sources.own_files.columns import Kept, Wanted, refuse_same_names
from ae_pipeline.sources.own_files.listing import SINGLE, Listing, list_files
from ae_pipeline.sources.own_files.places.at_hand import AtHand, at_hand
from ae_pipeline.sources.own_files.readers import open_reader
from ae_pipeline.sources.own_files.records import Reader
from ae_pipeline.training.outlook import ALL_ALIKE
from ae_pipeline.workspace.looking.choice import Choice, choose, expected, of_columns, within_minutes
from ae_pipeline.workspace.looking.fetching import Sample, fetch_some
from ae_pipeline.workspace.looking.found import Found, find, telling_endings
from ae_pipeline.workspace.looking.guess import COMING, Guess, guess_kind
from ae_pipeline.workspace.looking.klt import Klt
from ae_pipeline.workspace.looking.outlook import LARGEST_TRIED, Speed, measure_speed
from ae_pipeline.workspace.looking.sampling import plan, read, rows_of
from ae_pipeline.workspace.looking.tables import TableLook, look_at_table
from ae_pipeline.workspace.looking.tally import MOST_BYTES, Reason, Tally
from ae_pipeline.workspace.looking.worth import Worth, measure_worth

# The share of all records that is not held out for the test.
_TRAIN_SHARE = 0.9
_LEAST_RECORDS = 2
# Up to so many values of columns that are taken together, their scaling is that of all, in about a second.
_FITTED_VALUES = 1 << 24
_NAMED = 5


@dataclass
class Looked:
    """What `inspect` says. Values are of the records that were looked at: `tally.records` of `records`."""

    path: str
    guess: Guess
    files: int
    nbytes: int
    records: int = 0
    tally: Tally = field(default_factory=lambda: Tally(0))
    value_range: ValueRange | None = None
    columns: dict[str, str] = field(default_factory=dict)
    """Columns that are kept beside the records, and their types."""
    sample: Sample | None = None
    """The files that were fetched, for a URL; all that is said is about these, but for `files` and `nbytes`."""
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Columns that make a record together, and the ends of the range that each is scaled by."""
    table: TableLook | None = None
    """For tables and texts, which are not read yet."""
    passed_over: tuple[str, ...] = ()
    """Files that no data go by the names of, such as hidden ones."""
    problems: list[str] = field(default_factory=list)
    """Why nothing can be trained on these files as they are."""
    fit_problem: str | None = None
    """What the kind says of all records together: a setting of `source.files.settings` is needed."""
    tiled: bool = False
    """Whether pictures are cut into tiles, which have presets of their own."""
    notes: list[str] = field(default_factory=list)
    """What to know of the values."""
    choice: Choice | None = None
    speed: Speed | None = None
    worth: Worth | None = None

    @property
    def is_guess(self) -> bool:
        """Whether the number of records is one, by the size of files that were not fetched."""
        return self.sample is not None and not self.sample.is_all and self.guess.listing.sort != SINGLE

    @property
    def folders(self) -> list[str]:
        """Sub-folders of files of one record each."""
        listing = self.guess.listing
        files = self.sample.of_files if self.sample else listing.files
        return sorted({file.folder for file in files if file.folder}) if listing.sort == SINGLE else []

    @property
    def spec(self) -> SampleSpec | None:
        """Shape and dtype of most rows."""
        return self.tally.spec

    @property
    def rows(self) -> int:
        """Rows of all records, as far as those that were looked at tell."""
        tally = self.tally
        return round(self.records * tally.rows / tally.records) if tally.records else 0

    @property
    def refused(self) -> list[Reason]:
        """Why records end the reading, but for those that can be left out."""
        found = [reason for reason in self.tally.reasons.values() if not reason.can_be_left_out]
        sizes = self.tally.sizes
        if len(sizes) > 1:
            others = sum(sizes.values()) - sizes.most_common(1)[0][1]
            odd = sizes.most_common(2)[1][0]
            advice = build_kind(self.guess.kind).for_several_shapes
            what = f"{self.tally.examples[odd]} is {odd.describe()}, and most are not: {advice}"
            found.append(Reason(others, what, False))
        return found

    @property
    def left_out(self) -> list[Reason]:
        """Why records cannot be read."""
        return [reason for reason in self.tally.reasons.values() if reason.can_be_left_out]

    @property
    def nothing_can_be_read(self) -> bool:
        """Whether there are records, of which none that was looked at is whole."""
        return self.table is None and self.fit_problem is None and not self.tally.readable


def look(path: str, kind: str | None = None, column: Wanted = None) -> Looked:
    """Look at the data at a path or URL, which `source.files.path` takes.

    Memory does not grow with the number of records. Some of the files at a URL are fetched (fetching.py).
    Raises DataError where there is nothing, or it is not clear which kind is meant; ConfigError for a kind that there
    is not, or a URL that is not read; UnreachableError.
    """
    with at_hand(path, known=telling_endings()) as data, tempfile.TemporaryDirectory(prefix="ae-pipeline-") as work:
        return _look(data, kind, column, Path(work))


def _look(data: AtHand, kind: str | None, column: Wanted, work: Path) -> Looked:
    found, sample = fetch_some(data, find(data), kind)
    guess = guess_kind(found, kind, column)
    files = sample.of_files if sample and sample.of_files else guess.listing.files
    looked = Looked(data.shown, guess, len(files), sum(map(data.size, files)), sample=sample)
    looked.passed_over = guess.listing.left_out
    if guess.kind in COMING:
        looked.table = look_at_table(guess.listing)
        looked.records = _all_records(looked, looked.table.records)
        return looked
    opened = build_kind(guess.kind)
    looked.problems += _listing_problems(data, opened, found, guess.listing)
    reader = _open(looked, opened, column, work)
    if reader is not None:
        _read(looked, reader)
    if looked.spec is not None:
        _judge(looked)
    elif looked.fit_problem is not None:
        looked.choice = choose(guess.kind, None, looked.records, None)
    return looked


def _all_records(looked: Looked, found: int) -> int:
    """Records of all files, by those that were found in the ones that were fetched."""
    return looked.sample.records(found, looked.guess.listing.sort) if looked.sample else found


def _listing_problems(data: AtHand, kind: Kind, found: Found, listing: Listing) -> list[str]:
    """What the source would say of the files before it opens one."""
    try:
        list_files(data.path, kind.suffixes, data.root)
    except DataError as error:
        names = {file.name for file in listing.files}
        others = [file.name for files in found.files.values() for file in files if file.name not in names]
        if not others:
            return [str(error)]
        sort = next(sort for sort, files in found.files.items() if files and files[0].name in names)
        what = f"{len(others):,} file(s) that the kind does not read ({named(others, _NAMED)})"
        return [f"{what}: move them elsewhere, or name the others by a glob such as {found.glob(sort)}"]
    return []


def _open(looked: Looked, kind: Kind, column: Wanted, work: Path) -> Reader | None:
    """The reader of the files, its kind fitted; None where the files do not go together, which is noted."""
    listing = looked.guess.listing
    try:
        reader = open_reader(listing, kind, looked.guess.column or column, work)
        records = sum(reader.count(file) for file in listing.files) + len(reader.broken)
        looked.records = _all_records(looked, records)
        paths = {file.name: as_in_messages(str(file.path)) for file in listing.files}
        for name, error in reader.broken.items():
            looked.tally.leave_out(error, paths[name])
        if looked.records < _LEAST_RECORDS:
            looked.problems.append(f"{looked.records} record(s) are too few: one is needed to train, and one to test")
        if reader.form is not None and not _fit(looked, reader):
            return None
        several = kind.row_columns(reader.state) if reader.state else pa.schema([])
        kept = Kept(reader.schema, listing.files[0], None, several if several.names else None)
        refuse_same_names(listing.files[0].path, reader.form and reader.form.together, kept.schema)
        looked.tiled = looked.guess.kind == "image" and bool(several.names)
        looked.columns = {field.name: str(field.type) for field in kept.schema if field.name not in several.names}
    except DataError as error:
        looked.problems.append(str(error))
        return None
    return reader


def _fit(looked: Looked, reader: Reader) -> bool:
    """Fit the kind's state; False where it says that it needs a setting, which is noted."""
    assert reader.form is not None
    columns = reader.form.together
    is_large = columns is not None and looked.records * len(columns) > _FITTED_VALUES
    records = _some(looked, reader) if is_large else reader.sources()
    try:
        reader.state = reader.kind.fit(reader.form, reader.kind.Options(), records)
        entry_of(looked.guess.kind, reader.state)
    except DataError as error:
        looked.fit_problem = str(error)
    if isinstance(reader.state, VectorState) and columns is not None:
        ends = [(found.low, found.high) for found in reader.state.ranges or ()]
        looked.ranges = dict(zip(columns.names, ends, strict=True))
    return looked.fit_problem is None


def _some(looked: Looked, reader: Reader) -> Iterator[Source]:
    """The records that are going to be looked at."""
    for stretch in plan(reader, looked.guess.listing.files):
        for records in read(reader, stretch):
            assert records.values is not None
            yield records.values


def _read(looked: Looked, reader: Reader) -> None:
    files = looked.guess.listing.files
    stretches = plan(reader, files)
    planned = sum(stretch.records for stretch in stretches)
    looked.tally = tally = Tally(planned, reasons=looked.tally.reasons)
    for stretch in stretches:
        place, before = as_in_messages(str(stretch.file.path)), tally.records
        # Each place has its share of the bytes, so that large records are not all of one place.
        enough = tally.nbytes + MOST_BYTES // len(stretches)
        try:
            for records in read(reader, stretch):
                tally.add_block(records, together=bool(looked.ranges))
                for number, row in enumerate(rows_of(records, reader)):
                    tally.add(row, records.name(number), place)
                    if tally.nbytes >= enough:
                        break
                if tally.nbytes >= enough:
                    break
        except DataError as error:
            left = stretch.records - (tally.records - before)
            tally.records += left
            tally.leave_out(error, place, refused=True, records=left)
        if tally.is_full:
            break


def _judge(looked: Looked) -> None:
    """What suits these rows, how long it takes, and whether it pays."""
    tally, spec = looked.tally, looked.spec
    assert spec is not None
    rows = tally.kept()
    looked.value_range = tally.value_range()
    offset, scale = scaled_by(spec.dtype, looked.value_range)
    looked.notes += looked.value_range.warnings("the data", offset, scale)
    if spec.size > LARGEST_TRIED:
        looked.notes.append(
            f"rows have {spec.size:,} values, for which no training is tried here, and none may fit into memory: make "
            "them smaller, or cut them into pieces, first"
        )
    try:
        klt = Klt(rows, offset, scale)
    except ValueError:  # too few
        klt = None
    kind, total = TILES if looked.tiled else looked.guess.kind, looked.rows
    choice = choose(kind, spec, total, klt)
    if looked.ranges:
        choice = of_columns(choice)
    trained = round(_TRAIN_SHARE * total)
    looked.speed = measure_speed(choice.params, spec, rows, trained, Scaling(offset=offset, scale=scale))
    if looked.speed is not None:
        choice = within_minutes(choice, looked.speed, trained)
    looked.choice = choice
    if klt is not None and choice.preset is not None and klt.mean_mse > ALL_ALIKE:
        params = choice.params
        whole = looked.guess.listing.sort == SINGLE and len(tally.sizes) == 1
        file_bits = 8 * looked.nbytes / total if whole else None
        expects = expected(choice, spec, total, klt)
        looked.worth = measure_worth(expects, spec, rows, klt, params.train.rate_weight, file_bits, kind)


def training_seconds(looked: Looked) -> float | None:
    """How long the training that is chosen takes on this machine; None: it was not tried."""
    if looked.speed is None or looked.choice is None:
        return None
    return looked.speed.seconds(round(_TRAIN_SHARE * looked.rows), looked.choice.params.train.epochs)
