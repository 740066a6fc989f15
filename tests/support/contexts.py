"""Context codecs that were never trained, and pictures for them."""

import numpy as np
import torch

from ae_pipeline.codec.context.networks import Networks
from ae_pipeline.codec.context.options import Options
from ae_pipeline.codec.context.saving import save_context_codec
from ae_pipeline.codec.context.streams import even
from ae_pipeline.data.pixels import SampleSpec

SMALL = {"mask": (16, 8), "value": (16, 16, 8), "whole": 8}


def pictures(count, sides, seed=0):
    """uint8 (count, *sides): a soft spot on an empty ground."""
    random = np.random.default_rng(seed)
    down, across = np.ogrid[: sides[0], : sides[1]]
    middle = random.uniform(0, 1, (count, 2, 1, 1)) * np.array(sides)[:, None, None]
    distance = (down - middle[:, 0]) ** 2 + (across - middle[:, 1]) ** 2
    found = 300 - 14 * distance + random.normal(0, 8, (count, *sides))
    return np.where(found > 20, found, 0).clip(0, 255).astype(np.uint8)


def random_networks(sides, error=0, seed=0, restore=None):
    """Networks of small random integers."""
    networks = Networks(*even(sides), Options(max_error=error, restore=restore, **SMALL))
    networks.to_empty(device="cpu")
    random = torch.Generator().manual_seed(seed)
    for name, value in networks.state_dict().items():
        if name.endswith("weight"):
            value.copy_(torch.randint(-60, 61, value.shape, generator=random))
        elif name.endswith("bias"):
            value.copy_(torch.randint(0, 9000, value.shape, generator=random))
        elif name.endswith("shift"):
            value.fill_(7)
        elif name == "empty":
            value.fill_(31_000)
        else:
            value.copy_(torch.randint(0, 256, value.shape, generator=random))
    return networks.prepare()


def random_context_codec(folder, sides, error=0, seed=0, restore=None):
    """Write a codec folder."""
    options, networks = Options(max_error=error, restore=restore, **SMALL), random_networks(sides, error, seed, restore)
    return save_context_codec(folder, networks, options, SampleSpec(sides, "uint8"), {"made": "for a test"})
