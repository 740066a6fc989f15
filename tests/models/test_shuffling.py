"""models/layers/shuffling.py: what torch's own functions give, in the same places of memory."""

import pytest
import torch
from torch.nn import functional

from ae_pipeline.models.layers import shuffling
from ae_pipeline.models.layers.shuffling import image_to_patches, patches_to_image, shuffled, unshuffled

SHAPES = [(1, 4, 4, 1), (3, 8, 12, 3), (2, 8, 8, 16), (5, 2, 2, 3), (2, 16, 4, 1)]


def both_ways(function, x, side):
    """By the list of places, and, with gradients allowed, by torch."""
    with torch.inference_mode():
        found = function(x, side)
    return found, function(x, side)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [1, 2])
@pytest.mark.parametrize("channels_last", [True, False])
def test_values_go_where_torch_puts_them(shape, side, channels_last):
    image = torch.rand(shape)
    x = image.permute(0, 3, 1, 2)
    x = x if channels_last else x.contiguous()
    deep = functional.pixel_unshuffle(x, side)
    for function, values in (
        (image_to_patches, image),
        (unshuffled, x),
        (shuffled, deep),
        (patches_to_image, deep),
    ):
        found, wanted = both_ways(function, values, side)
        assert torch.equal(found, wanted)
        assert found.stride() == wanted.stride()


def test_there_and_back_is_the_same():
    image = torch.rand(2, 8, 12, 3)
    with torch.inference_mode():
        assert torch.equal(patches_to_image(image_to_patches(image, 4), 4), image)


def test_rows_of_many_values_have_no_list_of_places(monkeypatch):
    monkeypatch.setattr(shuffling, "_MOST_PLACES", 50)
    shuffling._places.cache_clear()
    for image in (torch.rand(2, 8, 8, 3), torch.rand(2, 4, 4, 3)):
        found, wanted = both_ways(image_to_patches, image, 2)
        assert torch.equal(found, wanted)
    assert shuffling._places.cache_info().currsize == 1
