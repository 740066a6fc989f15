"""A person's files as paths on this machine, wherever they are. Those at a URL are listed, and fetched when asked for.

with at_hand("s3://bucket/photos", work, (".png",)) as data:
    listing = list_files(data.path, (".png",), data.root)      # by names: an empty file stands for each
    data.fetch(listing.files)                                  # whole, or an error

So the rules of listing.py hold for both, and names are the same. Messages name the URL in place of the folder here.
"""

import errno
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event

from ae_pipeline.data.sample_files import PARQUET_SUFFIXES
from ae_pipeline.errors import DataError, TargetError, name_in_messages
from ae_pipeline.files import run_folder
from ae_pipeline.sources.own_files.listing import ARRAY_SUFFIXES, FoundFile, all_files
from ae_pipeline.sources.own_files.places.elsewhere import Elsewhere
from ae_pipeline.sources.own_files.places.remote import Place, RemoteFile, is_url, open_place
from ae_pipeline.sources.own_files.places.side_by_side import side_by_side

# What tells Parquet.
_HEAD_BYTES = 4
_FOLDER = "ae-pipeline-fetched-"
_GB = 1e9
# Names that no file can have here, or that only one of two files can.
_NO_NAME = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)


class AtHand:
    """Data on this machine: `path` is what `list_files` takes, `root` the folder in which its glob begins."""

    def __init__(self, path: str):
        self.path, self.shown = path, path
        self.root: Path | None = None

    @property
    def is_remote(self) -> bool:
        """Whether files have to be fetched before they are read."""
        return False

    def size(self, file: FoundFile) -> int:
        """Bytes of a file, fetched or not; 0 where its server does not say it."""
        return file.path.stat().st_size

    @property
    def elsewhere(self) -> Elsewhere | None:
        """How another machine gets the files; None for those that were here."""
        return None

    def fetch(self, files: Sequence[FoundFile], most: int | None = None) -> None:
        """Bring files here, whole. Raises DataError, UnreachableError; TargetError where they have no room.

        With `most`, a file of more bytes than that ends it, also where its server does not say how many there are.
        """


class Fetched(AtHand):
    """Data at a URL. `folder` gets an empty file for each one that is there, and what is fetched."""

    def __init__(self, url: str, place: Place, folder: Path):
        self._url, self._place, self._folder = url, place, folder
        self._found = place.find()
        super().__init__(str(folder / (place.name or place.glob or "")))
        self.shown = place.shown
        self.root = folder if place.glob else None

    @property
    def is_remote(self) -> bool:
        return True

    @property
    def elsewhere(self) -> Elsewhere | None:
        return Elsewhere(self._url, self._place.root, self._folder, self._found)

    def size(self, file: FoundFile) -> int:
        return self._of(file).size or 0

    def _of(self, file: FoundFile) -> RemoteFile:
        return self._found[file.path.relative_to(self._folder).as_posix()]

    def make_names(self) -> None:
        """An empty file for each one at the URL. Raises DataError for names that no file can have here."""
        made = {self._folder}
        for name in self._found:
            target = self._folder / name
            try:
                if {"", ".", ".."} & set(name.split("/")) or "\0" in name:
                    raise OSError(errno.EINVAL, "no name of a file")
                if target.parent not in made:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    made.add(target.parent)
                target.open("xb").close()
            except OSError as error:
                if error.errno not in _NO_NAME:
                    raise
                raise DataError(
                    f"cannot be a file on this machine under its name: {error.strerror}",
                    place=self._place.url_of(name),
                    advice="rename it there, or move it to where the URL does not lead",
                ) from None

    def look_inside(self, known: Collection[str]) -> None:
        """Fetch the first bytes of files whose ending is none of `known`, nor tells Parquet or NumPy's arrays."""
        tell = (*known, *PARQUET_SUFFIXES, *ARRAY_SUFFIXES)
        files, _ = all_files(self.path, self.root)
        others = [self._of(file) for file in files if file.path.suffix.lower() not in tell]

        def look(file: RemoteFile, ended: Event) -> None:  # noqa: ARG001
            (self._folder / file.name).write_bytes(self._place.head(file, _HEAD_BYTES))

        side_by_side(look, others)

    def fetch(self, files: Sequence[FoundFile], most: int | None = None) -> None:
        from tqdm import tqdm

        wanted = [self._of(file) for file in files]
        total = sum(file.size or 0 for file in wanted)
        free = shutil.disk_usage(self._folder).free
        if total > free:
            raise TargetError(
                f"{self.shown} has {total / _GB:,.1f} GB in {len(wanted):,} file(s), which are fetched before they are "
                f"read, and {free / _GB:,.1f} GB are free at {self._folder.parent}; free space there, or name fewer "
                "files (TMPDIR names another place for commands, but not for stages)"
            )
        with tqdm(total=total, unit="B", unit_scale=True, desc=f"fetch {self.shown}", disable=None) as bar:

            def fetch(file: RemoteFile, ended: Event) -> None:
                come = 0

                def on_bytes(count: int) -> None:
                    nonlocal come
                    if ended.is_set():
                        raise InterruptedError
                    come += count
                    if most is not None and come > most:
                        raise too_large(self._place.url_of(file.name), most)
                    bar.update(count)

                self._place.fetch(file, self._folder / file.name, on_bytes)

            side_by_side(fetch, wanted)
        self._refuse_changed(wanted)

    def _refuse_changed(self, wanted: Sequence[RemoteFile]) -> None:
        """Raise DataError unless all that was fetched is still there as it was found."""
        now: dict[str, RemoteFile] = {}
        with suppress(DataError):  # all are gone
            now = self._place.find()
        for file in wanted:
            if file.name not in now or now[file.name].stamp != file.stamp:
                raise self._place.changed(file.name)


def too_large(what: str, most: int) -> DataError:
    """The error for what has more bytes than are fetched for a look."""
    return DataError(
        f"has more than {most / _GB:,.1f} GB, of which nothing is fetched for a look",
        place=what,
        advice="copy it to this machine, look at it and make the workspace with it, and then put this URL in its place "
        "in params.yaml",
    )


@contextmanager
def at_hand(path: str, work: Path | None = None, known: Collection[str] = ()) -> Iterator[AtHand]:
    """Data at a path as it is. For a URL there are the names, and room for its files in `work` or a temporary folder.

    `known` are endings of files that need no look inside. Raises ConfigError, DataError and UnreachableError.
    """
    if not is_url(path):
        yield AtHand(path)
        return
    place = open_place(path)
    with ExitStack() as stack:
        inside = work or stack.enter_context(work_folder())
        folder = Path(tempfile.mkdtemp(dir=inside, prefix="url-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        data = Fetched(path, place, folder)
        name_in_messages(folder, place.root)
        stack.callback(name_in_messages, folder, None)
        data.make_names()
        data.look_inside(known)
        yield data


def work_folder() -> AbstractContextManager[Path]:
    """A temporary folder, which is locked. Those that killed runs have left are removed first."""
    return run_folder(_FOLDER)
