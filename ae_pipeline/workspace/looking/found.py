"""All files at a path, by what they can be: a kind's single records, Parquet, NumPy's arrays, or what no kind reads."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ae_pipeline.data.idx import idx_name
from ae_pipeline.errors import ConfigError, DataError, named
from ae_pipeline.kinds import KINDS, build_kind, kind_names
from ae_pipeline.kinds.base import Kind
from ae_pipeline.sources.own_files.listing import FoundFile, all_files, sort_of
from ae_pipeline.sources.own_files.places.at_hand import AtHand

IDX, TABLES, TEXTS, OTHERS = "IDX files", "tables", "texts", "other files"
"""Sorts of files beside those of the source `files`: MNIST's format, what kinds to come would read, and the rest."""
_TABLE_ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".arrow", ".feather", ".orc", ".xlsx", ".xls", ".avro")
_TEXT_ENDINGS = (".txt", ".md", ".html", ".htm", ".xml", ".log", ".tex", ".rst")
_WORDS = {"image": "pictures", "audio": "sounds"}
_NAMED = 5


@dataclass(frozen=True)
class Found:
    """All files at a path, by what they can be: a kind's single records, or one of the other sorts."""

    path: str
    files: dict[str, list[FoundFile]]
    left_out: tuple[str, ...]
    is_folder: bool

    @property
    def readable(self) -> list[str]:
        """Sorts that some kind may read."""
        return [sort for sort in self.files if sort not in (IDX, TABLES, TEXTS, OTHERS)]

    def unread(self, sort: str) -> list[FoundFile]:
        """Files of no sort that a kind reads, beside those of `sort`."""
        return [file for other, files in self.files.items() if other != sort for file in files]

    def describe(self) -> str:
        """How many of each sort, with one name each."""
        found = ((_WORDS.get(sort, sort), files) for sort, files in self.files.items())
        return ", ".join(
            f"{len(files):,} {word if len(files) > 1 else word.removesuffix('s')} ({files[0].name})"
            for word, files in found
        )

    def glob(self, sort: str) -> str:
        """A glob for the files of one sort, or for most of them, in quotation marks."""
        endings = Counter(PurePosixPath(file.name).suffix for file in self.files[sort])
        folder = self.path.rstrip("/") if self.is_folder else "FOLDER"
        return f"'{folder}/**/*{endings.most_common(1)[0][0]}'"


def find(data: AtHand) -> Found:
    """All files of data: a file, a folder or a glob. Raises DataError where there are none."""
    files, left_out = all_files(data.path, data.root)
    if not files:
        more = f" but {named(left_out, _NAMED)}, and no data goes by such names" if left_out else ""
        raise DataError(
            f"there are no files at {data.shown}{more}; name a file, a folder or a glob such as 'photos/**/*.png'"
        )
    suffixes = {suffix: name for name, kind in every_kind() for suffix in kind.suffixes}
    sorts: dict[str, list[FoundFile]] = {}
    for file in files:
        sorts.setdefault(_sort(file, suffixes), []).append(file)
    return Found(data.shown, sorts, tuple(left_out), is_folder=Path(data.path).is_dir())


def telling_endings() -> list[str]:
    """Endings that tell what a file is, so that it needs no look inside."""
    return [suffix for _, kind in every_kind() for suffix in kind.suffixes] + [*_TABLE_ENDINGS, *_TEXT_ENDINGS]


def every_kind() -> Iterator[tuple[str, Kind]]:
    """Every kind that can be had, those of this package first."""
    for name in kind_names():
        try:
            yield name, build_kind(name)
        except ConfigError:
            if name in KINDS:
                raise


def _sort(file: FoundFile, suffixes: dict[str, str]) -> str:
    ending = PurePosixPath(file.name).suffix.lower()
    if ending in suffixes:
        return suffixes[ending]
    if idx_name(PurePosixPath(file.name).name):
        return IDX
    if ending in _TABLE_ENDINGS:
        return TABLES
    if ending in _TEXT_ENDINGS:
        return TEXTS
    return sort_of(file.path, ()) or OTHERS
