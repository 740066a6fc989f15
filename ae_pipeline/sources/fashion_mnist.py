"""Source `fashion_mnist`: 60,000 + 10,000 pictures of clothes, uint8 28x28 (Xiao et al., arXiv:1708.07747)."""

from collections.abc import Iterator
from pathlib import Path

from ae_pipeline.data.pixels import RawSplit, SampleSpec
from ae_pipeline.sources.base import Announced, Source
from ae_pipeline.sources.idx import FILES, read_idx_splits
from ae_pipeline.sources.mirrors import Mirror, Pinned, fetch_verified, local_mirror, torchvision_mirrors
from ae_pipeline.sources.mnist import how_to_supply

# Digests of the gzipped files, as published with the data set: a local mirror must hold these.
_GZIP_DIGESTS = (
    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
)
PINS = {name: Pinned(gzip_sha256=digest) for name, digest in zip(FILES, _GZIP_DIGESTS, strict=True)}


class FashionMnist(Source):
    """Fashion-MNIST from a local mirror or torchvision's mirror."""

    def fetch(self, raw: Path) -> None:
        """Fetch and verify the four files."""
        fetch_verified(PINS, self._mirrors(), raw, how_to_supply("fashion_mnist"))

    def announce(self) -> Announced:
        """The files are pinned."""
        return Announced(SampleSpec((28, 28), "uint8"), 60_000, 10_000)

    def read(self, raw: Path) -> dict[str, RawSplit]:
        """Memory maps of the files."""
        return read_idx_splits(raw)

    def _mirrors(self) -> Iterator[Mirror]:
        yield from local_mirror("fashion_mnist")
        yield from torchvision_mirrors("FashionMNIST")


SOURCE = FashionMnist
