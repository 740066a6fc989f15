"""Which files a data set is, and what their folders say: no file of a folder is passed over without a word.

    found = find_files(Path("data"))
    found.files, found.keys, found.left_out

A folder may hold Parquet files under any name, and folders `key=value` as Hive, Spark and pandas write them, whose keys
become columns of text. What such writers leave beside the data is left out and listed; anything else is refused.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from urllib.parse import unquote

from ae_pipeline.errors import DataError, named

Keys = tuple[tuple[str, str | None], ...]
"""Names and values of the folders that a file lies in, outermost first."""
PARQUET_SUFFIXES = (".parquet", ".pq", ".parq")
_MAGIC = (b"PAR1", b"PARE")  # the second one begins encrypted files: reading says why that fails
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_IMAGES = (
    "image files are read with a codec that was trained on such files (docs/your-data.md), and by the inbox "
    '(docs/operations.md, "The inbox")'
)
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_SYSTEM = ("thumbs.db", "desktop.ini")
_NAMED = 20


@dataclass(frozen=True)
class FoundFiles:
    """The files in name order, what their folders say of them, and what lies beside them."""

    root: Path
    files: tuple[Path, ...]
    keys: Mapping[Path, Keys] = field(default_factory=dict)
    """Keys of files; all files have the same names of keys, or none."""
    left_out: tuple[str, ...] = ()
    """Paths below `root`; of folders that are left out as a whole, they end with `/`."""

    def describe_left_out(self) -> str | None:
        """How many are left out, and the first of them, in words; None if none is."""
        if not self.left_out:
            return None
        files = "1 file or folder" if len(self.left_out) == 1 else f"{len(self.left_out):,} files or folders"
        names = named(self.left_out, _NAMED)
        return f"{files} in {self.root} left out, as no data goes by such names: {names}"


def find_files(path: Path) -> FoundFiles:
    """A Parquet file, or those of a folder. Raises DataError for files that are no Parquet, or are in sub-folders."""
    if path.is_file():
        return FoundFiles(path.parent, (path,))
    if not path.is_dir():
        raise DataError(f"no data set at {path}; expected a Parquet file or a folder of them")
    walk = _Walk(path)
    walk.look_into(path, ())
    walk.refuse_others()
    files = tuple(sorted(walk.keys))
    found = FoundFiles(path, files, walk.keys, tuple(sorted(walk.left_out)))
    if not files:
        said = f" ({found.describe_left_out()})" if found.left_out else ""
        raise DataError(f"no Parquet files in {path}{said}; expected a Parquet file or a folder of them")
    for file in files[1:]:
        _refuse_other_keys(file, walk.keys[file], files[0], walk.keys[files[0]])
    return found


def is_parquet(file: Path) -> bool:
    """Whether a file is Parquet: by its ending, or else by its first bytes."""
    if not file.is_file():  # a pipe would have us wait; a link may lead nowhere
        return False
    if file.name.lower().endswith(PARQUET_SUFFIXES):
        return True
    with open(file, "rb") as opened:
        return opened.read(4) in _MAGIC


def key_in_path(file: Path, names: Collection[str]) -> str | None:
    """The first folder `key=value` above a file whose key is one of these names."""
    return next((part for part in file.parts[:-1] if "=" in part and unquote(part.split("=")[0]) in names), None)


def lost_key(file: PurePath, names: Collection[str]) -> str | None:
    """The first folder `key=value` above a file whose key is none of these columns."""
    keys = ((part, part.split("=")) for part in file.parts[:-1] if not part.startswith("."))
    return next((part for part, words in keys if len(words) > 1 and words[0] and unquote(words[0]) not in names), None)


class _Walk:
    """Goes through a folder and its folders `key=value`, and sorts what it finds."""

    def __init__(self, root: Path):
        self._root = root
        self._foreign: list[str] = []
        self._nested: list[str] = []
        self.keys: dict[Path, Keys] = {}
        self.left_out: list[str] = []

    def look_into(self, folder: Path, keys: Keys, above: tuple[Path, ...] = ()) -> None:
        """Raises DataError for a link that leads back to a folder above it, and for a key that is there twice."""
        above = (*above, folder)
        if any(map(folder.samefile, above[:-1])):
            raise DataError(f"{folder} is a link to a folder that it lies in; remove the link")
        for item in sorted(folder.iterdir()):
            name, is_folder = self._name(item), item.is_dir()
            if is_folder and (key := key_of(item)):
                if key[0] in dict(keys):
                    raise DataError(f"{item} is the second folder of its path for the key `{key[0]}`; rename one")
                self.look_into(item, (*keys, key), above)
            elif is_leftover(item.name):
                self.left_out.append(f"{name}/" if is_folder else name)
            elif is_folder:
                for file in sorted(below for below in item.rglob("*") if not below.is_dir()):
                    (self.left_out if is_leftover(file.name) else self._nested).append(self._name(file))
            elif is_parquet(item):
                self.keys[item] = keys
            else:
                self._foreign.append(name)

    def refuse_others(self) -> None:
        """Raise DataError for what is neither data nor a known leftover."""
        if self._nested:
            images = any(name.lower().endswith(IMAGE_ENDINGS) for name in self._nested)
            raise DataError(
                f"{self._root} has files in sub-folders ({_first(self._nested)}), whose rows would be left out; "
                + (
                    _IMAGES
                    if images
                    else "put all files into one folder, name the folders key=value where they say something of the "
                    "rows, or encode the sub-folders one by one"
                )
            )
        if self._foreign:
            images = any(name.lower().endswith(IMAGE_ENDINGS) for name in self._foreign)
            raise DataError(
                f"{self._root} has files that are not Parquet ({_first(self._foreign)}), which would be left out; move "
                "them elsewhere, or give the Parquet files in a folder of their own" + f"; {_IMAGES}" * images
            )

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def is_leftover(name: str) -> bool:
    """Names that Spark, pandas and pyarrow pass over, too, and files that DVC and Windows keep for themselves."""
    return name.startswith(("_", ".")) or name.lower().endswith((".crc", ".dvc")) or name.lower() in _SYSTEM


def key_of(folder: Path) -> tuple[str, str | None] | None:
    """What a folder's name `key=value` says. Raises DataError for what is no text."""
    matched = re.fullmatch(r"([^.=][^=]*)=(.*)", folder.name, re.DOTALL)
    if not matched:
        return None
    try:
        folder.name.encode()
        key, value = (unquote(text, errors="strict") for text in matched.groups())
    except UnicodeError:
        raise DataError(f"{folder}: its name is no UTF-8, and cannot be a column's; rename it") from None
    return key, None if value == _HIVE_NULL else value


def _refuse_other_keys(file: Path, keys: Keys, first: Path, expected: Keys) -> None:
    found, wanted = ([name for name, _ in some] for some in (keys, expected))
    if found != wanted:
        some, others = (
            f"folders for {', '.join(names)}" if names else "no folder key=value" for names in (found, wanted)
        )
        raise DataError(f"{file} lies in {some}, but {first} in {others}; give all files the same keys")
