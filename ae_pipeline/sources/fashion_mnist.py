"""Source `fashion_mnist`: 60,000 + 10,000 pictures of clothes, uint8 28x28 (Xiao et al., arXiv:1708.07747)."""

from ae_pipeline.sources.idx import FILES
from ae_pipeline.sources.mirrors import MnistLike, Pinned

# Digests of the gzipped files, as published with the data set: a local mirror must hold these.
_GZIP_DIGESTS = (
    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
)
PINS = {name: Pinned(gzip_sha256=digest) for name, digest in zip(FILES, _GZIP_DIGESTS, strict=True)}


class FashionMnist(MnistLike):
    """See `MnistLike`."""

    name = "fashion_mnist"
    pins = PINS
    dataset = "FashionMNIST"


SOURCE = FashionMnist
