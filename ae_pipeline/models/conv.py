"""Convolutional autoencoder for images: stride-2 3x3 convolutions down, one linear layer to L, and back up."""

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from ae_pipeline.data.pixels import image_shape
from ae_pipeline.models.base import ACTIVATIONS, Autoencoder, stack
from ae_pipeline.models.conv_options import Options
from ae_pipeline.models.layers.linear import Linear


class ConvAutoencoder(Autoencoder):
    """Samples are (height, width) or (height, width, channels); see `Options`."""

    def __init__(self, sample_shape: tuple[int, ...], latent_size: int, options: Options):
        super().__init__(sample_shape, latent_size, options, options.output_activation)
        channels, is_normed = options.channels, options.hidden_norm == "batch"
        self.encoder_depth = len(channels) + 1
        height, width, image_channels = image_shape(sample_shape, "conv")
        widths = [image_channels, *channels]
        sizes = [(height, width)]
        for _ in channels:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        flat = channels[-1] * sizes[-1][0] * sizes[-1][1]
        self.widest = max(number * height * width for number, (height, width) in zip(widths, sizes, strict=True))

        down = {f"conv{number}": nn.Conv2d(*pair, 3, 2, 1) for number, pair in enumerate(pairwise(widths))}
        self.down = stack(down, options.hidden_norm, options.activation, all_hidden=True)
        self.to_latent = nn.Sequential(nn.Flatten(), nn.Dropout(options.dropout), Linear(flat, latent_size))
        self.norm = nn.BatchNorm1d(latent_size, affine=False) if options.latent_norm == "batch" else nn.Identity()
        from_latent: dict[str, nn.Module] = {
            "0": Linear(latent_size, flat),
            "norm": nn.BatchNorm1d(flat) if is_normed else nn.Identity(),
            "1": nn.Dropout(options.dropout),
            "2": ACTIVATIONS[options.activation](),
            "3": nn.Unflatten(1, (channels[-1], *sizes[-1])),
        }
        self.from_latent = nn.Sequential(OrderedDict(from_latent))
        up = {}
        for number in reversed(range(len(channels))):
            # A size n came down to (n + 1) // 2; one more row or column is needed where n was even.
            extra = (1 - sizes[number][0] % 2, 1 - sizes[number][1] % 2)
            up[f"conv{number}"] = nn.ConvTranspose2d(widths[number + 1], widths[number], 3, 2, 1, extra)
        self.up = stack(up, options.hidden_norm, options.activation)

    def encode(self, x: Tensor) -> Tensor:
        image = x.unsqueeze(1) if len(self.sample_shape) == 2 else x.movedim(-1, 1)
        return self.norm(self.to_latent(self.down(image)).float())

    def decode_raw(self, z: Tensor) -> Tensor:
        image: Tensor = self.up(self.from_latent(z))
        return image.squeeze(1) if len(self.sample_shape) == 2 else image.movedim(1, -1)


MODEL = ConvAutoencoder
