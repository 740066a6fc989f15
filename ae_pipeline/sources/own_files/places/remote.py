"""Files at a URL: which there are, and how they are fetched. The only file of this room that knows fsspec.

place = open_place("s3://bucket/photos/**/*.png")     # ConfigError for a kind of URL that is not read
place.find()                                          # {name below place.root: RemoteFile}
place.fetch(file, Path("work/a.png"), on_bytes)

s3:// has files, folders and globs; http:// and https:// have single files, as no server need list others.
"""

import errno
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ae_pipeline.errors import ConfigError, DataError, PipelineError, UnreachableError, first_line, without_secrets
from ae_pipeline.sources.own_files.listing import is_magic

_BUCKETS, _WEB = ("s3", "s3a"), ("http", "https")
_REFUSED = (401, 403)
# What this machine lacks, and no server.
_HERE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE)
# One stream for each file: s3fs would hold ten pieces of 50 MB of a large one in memory.
_ONE_STREAM = {"max_concurrency": 1}
_PATIENCE_S = 60
_MARKS = ("ETag", "LastModified", "Last-Modified", "Content-MD5", "Digest")
"""What changes with a file's content, as the file systems of fsspec call it."""


@dataclass(frozen=True)
class RemoteFile:
    """A file at a URL. `stamp` changes with its content; `size` is in bytes, None where the server does not say it."""

    name: str
    path: str
    """What the file system calls it."""
    size: int | None
    stamp: str


def is_url(path: str) -> bool:
    """Whether what a person gives is a URL, and not a path."""
    return "://" in path


def as_shown(path: str) -> str:
    """A path or URL for messages and for what is kept: without users, passwords and queries."""
    if is_url(path) and _scheme(path) in _WEB:
        path = path.partition("#")[0].partition("?")[0]
    return without_secrets(path)


def refuse_secrets(path: str) -> None:
    """Raise ConfigError for a URL with a password or a key in it, as params.yaml goes into git and MLflow."""
    if is_url(path) and _scheme(path) in _WEB and as_shown(path) != path:
        raise ConfigError(
            f"{as_shown(path)} has a user or a query beside that, which git and MLflow would keep with params.yaml; "
            "name it without these, or copy the file to this machine or to s3://"
        )


def data_name(path: Path | str) -> str:
    """What data is called in a store that is made of it: the last part of its path or URL."""
    return Path(as_shown(str(path))).name


def open_place(url: str) -> "Place":
    """The files that a URL means. Nothing is asked of its server. Raises ConfigError for what cannot be read."""
    scheme = _scheme(url)
    if scheme not in (*_BUCKETS, *_WEB):
        raise ConfigError(
            f"{as_shown(url)} cannot be read: data is read from this machine, from s3://, and single files from "
            f"http:// or https://, but not from {scheme}://; copy it to one of these, and give that"
        )
    return Bucket(url) if scheme in _BUCKETS else WebFile(url)


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


class Place(ABC):
    """What a URL means. Nothing is cached: what others have written since is seen."""

    shown: str
    """The URL, for messages."""
    root: str
    """The URL that names are relative to, for messages."""
    name: str | None = None
    """The only file's name; None for a folder or a glob."""
    glob: str | None = None
    """The glob below `root`; None for a file or a folder."""

    def __init__(self, protocol: str, url: str, options: Callable[[], dict[str, Any]] = dict):
        import fsspec

        self.shown = as_shown(url)
        self._streams: dict[str, Any] = {}
        """How a file is fetched."""
        try:
            self._files = fsspec.filesystem(protocol, **options())
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{self.shown} cannot be opened: {first_line(error)}; install what URLs need (pip install "
                "'ae-pipeline[s3]'), or copy the data to this machine"
            ) from None

    @abstractmethod
    def find(self) -> dict[str, RemoteFile]:
        """All files by their names, more than a glob means. Raises DataError where there are none, UnreachableError."""

    @abstractmethod
    def head(self, file: RemoteFile, size: int) -> bytes:
        """The first bytes of a file."""

    def url_of(self, name: str) -> str:
        """A file's URL, for messages."""
        return f"{self.root}/{name}"

    def fetch(self, file: RemoteFile, target: Path, on_bytes: Callable[[int], None]) -> None:
        """Copy a file to this machine; `on_bytes` is told how many bytes have come, and may end it by an error.

        Raises DataError for one that is gone or of another size, UnreachableError.
        """
        from fsspec.callbacks import Callback

        before = 0

        def count(size: int | None, value: int, **_: Any) -> None:  # noqa: ARG001
            nonlocal before
            on_bytes(value - before)
            before = value

        with self._reaching(self.url_of(file.name)):
            callback = Callback(hooks={"count": count})
            try:
                self._files.get_file(file.path, str(target), callback=callback, **self._streams)
            except FileNotFoundError:
                raise self.changed(file.name) from None
        if file.size is not None and target.stat().st_size != file.size:
            raise self.changed(file.name)

    def changed(self, name: str) -> DataError:
        """The error for a file that is not the one that was found."""
        return DataError(
            "changed while it was read", place=self.url_of(name), advice="run again when nobody writes to it"
        )

    def _file(self, name: str, path: str, facts: dict[str, Any]) -> RemoteFile:
        marks = [str(facts[mark]) for mark in _MARKS if facts.get(mark)]
        return RemoteFile(name, path, facts.get("size"), " ".join([str(facts.get("size")), *marks]))

    @contextmanager
    def _reaching(self, url: str) -> Iterator[None]:
        """Errors of whatever library is behind the URL, as those that callers know."""
        try:
            yield
        except (PipelineError, MemoryError):
            raise
        except Exception as error:  # each kind of storage has errors of its own
            if getattr(error, "errno", None) in _HERE:
                raise
            raise _described(url, error) from error


def _described(url: str, error: Exception) -> PipelineError:
    """The line that says what became of a request."""
    if isinstance(error, FileNotFoundError):
        return _missing(url)
    kind = "" if isinstance(error, PermissionError) else f"{type(error).__name__}: "
    if isinstance(error, PermissionError) or getattr(error, "status", None) in _REFUSED:
        advice = "give credentials that permit it (for s3: s3:ListBucket and s3:GetObject), or another URL"
        return UnreachableError(f"{url} may not be read: {kind}{first_line(error)}; {advice}")
    return UnreachableError(
        f"{url} cannot be read: {kind}{first_line(error)}; check its address, the network and your credentials, then "
        "run again"
    )


def _missing(what: str) -> DataError:
    return DataError(f"there is no {what}; see how it is spelt, or give another file, folder or glob")


class Bucket(Place):
    """Objects in S3, or in a server that speaks like it, with credentials as boto3 finds them."""

    def __init__(self, url: str):
        super().__init__("s3", url)
        self._streams = _ONE_STREAM
        self._scheme, _, path = url.partition("://")
        self._bucket, _, self._key = path.partition("/")
        if not self._bucket or is_magic(self._bucket):
            raise ConfigError(f"{self.shown} names no bucket; give s3://BUCKET/PATH, with a glob only in PATH")
        if "//" in self._key or self._key.startswith("/"):
            raise ConfigError(f"{self.shown} has two slashes in a row; write one, and rename objects that have two")
        if "@" in self._bucket:
            raise ConfigError(f"{self.shown} holds credentials; give them in the environment, as boto3 reads them")
        self._base, self._prefix = "", ""

    def find(self) -> dict[str, RemoteFile]:
        found: dict[str, Any] = {}
        with self._reaching(self.shown), suppress(FileNotFoundError):
            self._files.invalidate_cache()
            if self.name is None and self.glob is None:
                self._resolve()
            if self.name is not None:
                found = {self._path(): self._files.info(self._path())}
            else:
                found = self._files.find(self._base, prefix=self._prefix, detail=True)
            self._files.invalidate_cache()
        files = {}
        for path, facts in found.items():
            name = path.removeprefix(f"{self._base}/")
            # An object that stands for a folder is no file.
            if facts.get("type") == "file" and not (name.endswith("/") and not facts["size"]) and name:
                files[name] = self._file(name, path, facts)
        if not files:
            raise _missing(self.shown if self._has_bucket() else f"bucket {self._bucket} ({self.shown})")
        return files

    def _has_bucket(self) -> bool:
        """Whether the bucket is there; also where it may not be asked for."""
        with suppress(Exception):
            return bool(self._files.exists(self._bucket))
        return True

    def _path(self) -> str:
        return f"{self._bucket}/{self._key}".rstrip("/")

    def _resolve(self) -> None:
        """What the URL means: an object of just this name, all that lie in such a folder, or else a glob."""
        kind = self._type_of(self._path())
        if kind == "file" and not self._key.endswith("/"):
            self._set_root(self._path().rpartition("/")[0])
            self.name = self._path().rpartition("/")[2]
        elif kind is not None or not any(map(is_magic, self._key.split("/"))):
            self._set_root(self._path())
        else:
            parts = self._key.split("/")
            fixed = next(number for number, part in enumerate(parts) if is_magic(part))
            self._set_root("/".join([self._bucket, *parts[:fixed]]))
            self._prefix = re.split(r"[*?\[]", parts[fixed])[0]
            self.glob = "/".join(parts[fixed:])

    def _type_of(self, path: str) -> str | None:
        try:
            return str(self._files.info(path)["type"])
        except FileNotFoundError:
            return None

    def _set_root(self, base: str) -> None:
        self._base, self.root = base, f"{self._scheme}://{base}"

    def head(self, file: RemoteFile, size: int) -> bytes:
        if not file.size:  # S3 refuses a range of nothing
            return b""
        with self._reaching(self.url_of(file.name)):
            return bytes(self._files.cat_file(file.path, start=0, end=size))


class WebFile(Place):
    """One file at a web server. Proxies are those of the environment (HTTPS_PROXY)."""

    def __init__(self, url: str):
        super().__init__("http", url, _web_options)
        self._url = url
        path = urlsplit(url).path
        self.root, _, name = self.shown.rpartition("/")
        self.name = unquote(name)
        if not path.strip("/") or not self.name or "/" in self.name:
            raise ConfigError(f"{self.shown} names no file; give the URL of one file, or a folder at s3://")
        if set("*[") & set(path):
            raise ConfigError(f"{self.shown} is a glob, and web servers list no files; give one file, or use s3://")

    def find(self) -> dict[str, RemoteFile]:
        assert self.name is not None
        with self._reaching(self.shown):
            try:
                return {self.name: self._file(self.name, self._url, self._files.info(self._url))}
            except FileNotFoundError as error:
                if not isinstance(error.__cause__, Exception) or getattr(error.__cause__, "status", None) == 404:
                    raise
                raise error.__cause__ from None  # fsspec says of all errors that there is no file

    def head(self, file: RemoteFile, size: int) -> bytes:
        # A server may ignore that a part is asked for.
        with self._reaching(self.shown), self._files.open(file.path, "rb", block_size=0) as opened:
            return bytes(opened.read(size))


def _web_options() -> dict[str, Any]:
    from aiohttp import ClientTimeout

    # The default would end any file after five minutes.
    timeout = ClientTimeout(total=None, sock_connect=_PATIENCE_S, sock_read=_PATIENCE_S)
    return {"client_kwargs": {"trust_env": True, "timeout": timeout}}
