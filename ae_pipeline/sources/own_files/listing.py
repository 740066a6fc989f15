"""Which files a path means, sorted by name. None is passed over without a word."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ae_pipeline.data.sample_files import Keys, is_leftover, is_parquet, key_of
from ae_pipeline.errors import DataError, named
from ae_pipeline.files import recorded_name

SINGLE, TABLE, ARRAY = "files of one record each", "Parquet files", "NumPy files"
"""What a file can be: the three ways in which records stand in files."""
ARRAY_SUFFIXES = (".npy", ".npz")
_MAGIC = "*?["
_NAMED = 5


@dataclass(frozen=True)
class FoundFile:
    """One file: its path, its name below the folder that was asked for, and what its folders `key=value` say."""

    path: Path
    name: str
    keys: Keys

    @property
    def folder(self) -> str:
        """The sub-folders that it lies in, without those that are keys; empty for none."""
        return folder_of(self.name)


@dataclass(frozen=True)
class Listing:
    """The files, all of one sort (SINGLE, TABLE or ARRAY), and the names of what is left out."""

    sort: str
    files: tuple[FoundFile, ...]
    left_out: tuple[str, ...]


def folder_of(name: str) -> str:
    """The sub-folders in a file's name, without those that are keys; empty for none."""
    return "/".join(part for part in PurePosixPath(name).parent.parts if key_of(Path(part)) is None)


def list_files(path: str, suffixes: Sequence[str], root: Path | None = None) -> Listing:
    """The files that `path` means: a file, a folder with all below it, or a glob. `suffixes` end single records.

    `root` is the folder in which a glob begins, if it is known: its own name may look like a part of the glob.
    Raises DataError where there is none, for files of several sorts, and for what cannot be read at all.
    """
    found, left_out = all_files(path, root)
    if not found:
        more = f" ({named(left_out, _NAMED)} left out, as no data goes by such names)" if left_out else ""
        raise DataError(f"there are no files at {path}{more}; set source.files.path to a file, a folder or a glob")
    sort = _one_sort(path, found, suffixes)
    _refuse_other_keys(found)
    return Listing(sort, tuple(found), tuple(left_out))


def all_files(path: str, root: Path | None = None) -> tuple[list[FoundFile], list[str]]:
    """Every file that `path` means, whatever it is, and the names of what is left out; both sorted by name.

    `root` as in `list_files`. Raises DataError where there is nothing at `path`, and for what is neither a file nor a
    folder.
    """
    root, starts = starts_of(path, root)
    walk = _Walk(root)
    for start in starts:
        walk.begin(start, found_by_glob=not Path(path).exists())
    return sorted(walk.files, key=lambda file: file.name), sorted(walk.left_out)


def starts_of(path: str, root: Path | None = None) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and what to look into. Raises DataError where there is nothing."""
    place = Path(path)
    if place.is_dir():
        return place, [place]
    if place.exists():
        return place.parent, [place]
    parts = place.parts
    fixed = len(root.parts) if root else next((number for number, part in enumerate(parts) if is_magic(part)), None)
    if fixed is None:
        raise DataError(
            f"there is no {path}; set source.files.path to a file, a folder or a glob such as photos/**/*.png"
        )
    root = Path(*parts[:fixed])
    try:
        found = set(root.glob("/".join(parts[fixed:])))
    except ValueError as error:
        raise DataError(f"{path} is no glob: {error}; expected one such as photos/**/*.png") from None
    # A folder that a glob names stands for all below it, unless the glob goes on into it.
    inner = {folder for item in found for folder in item.parents}
    return root, sorted(item for item in found if not (item.is_dir() and item in inner))


def is_magic(part: str) -> bool:
    """Whether a part of a path is one of a glob, unless a file is called so."""
    return bool(set(part) & set(_MAGIC))


class _Walk:
    """Goes through folders and lists all files below them."""

    def __init__(self, root: Path):
        self._root = root
        self.files: list[FoundFile] = []
        self.left_out: list[str] = []

    def begin(self, item: Path, *, found_by_glob: bool) -> None:
        """Look into what was asked for. A glob also finds what is no data by its name."""
        if found_by_glob and is_leftover(item.name):
            self.left_out.append(self._name(item))
        else:
            self.look_into(item, ())

    def look_into(self, item: Path, above: tuple[Path, ...]) -> None:
        """Raises DataError for a link that leads back to a folder above it, and for what is no file."""
        if item.is_dir():
            if any(map(item.samefile, above)):
                raise DataError(f"{item} is a link to a folder that it lies in; remove the link")
            for inner in sorted(item.iterdir()):
                if is_leftover(inner.name):
                    self.left_out.append(self._name(inner))
                else:
                    self.look_into(inner, (*above, item))
        elif item.is_file():
            self.files.append(FoundFile(item, self._name(item), self._keys(item)))
        else:
            raise DataError(f"{item} is neither a file nor a folder; remove it, or mend the link")

    def _name(self, item: Path) -> str:
        return recorded_name(item.relative_to(self._root).as_posix())

    def _keys(self, file: Path) -> Keys:
        keys = [key for folder in file.relative_to(self._root).parent.parts if (key := key_of(Path(folder)))]
        if len(dict(keys)) < len(keys):
            raise DataError(f"{file} lies in two folders with the same key; rename one")
        return tuple(keys)


def sort_of(file: Path, suffixes: Sequence[str]) -> str | None:
    """What a file can be for a kind of these `suffixes`: SINGLE, TABLE or ARRAY; None: it reads no such file."""
    ending = file.suffix.lower()
    if ending in suffixes:
        return SINGLE
    if ending in ARRAY_SUFFIXES:
        return ARRAY
    return TABLE if is_parquet(file) else None


def _one_sort(path: str, files: Sequence[FoundFile], suffixes: Sequence[str]) -> str:
    sorts = Counter[str | None]()
    first: dict[str | None, str] = {}
    for file in files:
        sort = sort_of(file.path, suffixes)
        sorts[sort] += 1
        first.setdefault(sort, file.name)
    wanted = f"*{', *'.join((*suffixes, '.parquet', *ARRAY_SUFFIXES))}"
    if None in sorts:
        from ae_pipeline.data.idx import idx_name  # NumPy, which the stage `code` does not load

        if idx_name(PurePosixPath(first[None]).name):
            raise DataError(f"{path} has IDX files ({first[None]}); read them with source.name: idx")
        raise DataError(
            f"{path} has {sorts[None]:,} file(s) that this kind does not read ({first[None]}), expected {wanted}; move "
            "them elsewhere, or name the others by a glob in source.files.path"
        )
    if len(sorts) > 1:
        found = ", ".join(f"{count:,} {sort} ({first[sort]})" for sort, count in sorts.items())
        raise DataError(f"{path} has several sorts of files: {found}; name one sort by a glob in source.files.path")
    return next(sort for sort in sorts if sort is not None)


def _refuse_other_keys(files: Sequence[FoundFile]) -> None:
    wanted = [name for name, _ in files[0].keys]
    for file in files:
        names = [name for name, _ in file.keys]
        if names != wanted:
            some, others = (", ".join(keys) or "none" for keys in (names, wanted))
            raise DataError(
                f"{file.path} lies in folders key=value with the keys {some}, but {files[0].path} in those of "
                f"{others}; give all files the same keys"
            )
