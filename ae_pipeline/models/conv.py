"""Convolutional autoencoder for images: stride-2 3x3 convolutions down, one linear layer to L, and back up."""

from collections import OrderedDict

from torch import Tensor, nn

from ae_pipeline.data.pixels import image_shape
from ae_pipeline.models.base import ACTIVATIONS, Autoencoder
from ae_pipeline.models.conv_options import Options
from ae_pipeline.models.linear import Linear


class ConvAutoencoder(Autoencoder):
    """Samples are (height, width) or (height, width, channels); see `Options`."""

    def __init__(self, sample_shape: tuple[int, ...], latent_size: int, options: Options):
        super().__init__(sample_shape, latent_size, options, options.output_activation)
        channels, is_normed = options.channels, options.hidden_norm == "batch"
        self.encoder_depth = len(channels) + 1
        height, width, self._image_channels = image_shape(sample_shape, "conv")
        sizes = [(height, width)]
        for _ in channels:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        flat = channels[-1] * sizes[-1][0] * sizes[-1][1]
        layers = zip([self._image_channels, *channels], sizes, strict=True)
        self.widest = max(number * height * width for number, (height, width) in layers)

        down = nn.Sequential()
        steps = zip([self._image_channels, *channels], channels, strict=False)
        for number, (channels_in, channels_out) in enumerate(steps):
            down.add_module(f"conv{number}", nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1))
            if is_normed:
                down.add_module(f"norm{number}", nn.BatchNorm2d(channels_out))
            down.add_module(f"activation{number}", ACTIVATIONS[options.activation]())
        self.down = down
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
        up = nn.Sequential()
        for number in reversed(range(len(channels))):
            channels_out = channels[number - 1] if number else self._image_channels
            # A size n came down to (n + 1) // 2; one more row or column is needed where n was even.
            extra = (1 - sizes[number][0] % 2, 1 - sizes[number][1] % 2)
            up.add_module(f"conv{number}", nn.ConvTranspose2d(channels[number], channels_out, 3, 2, 1, extra))
            if number and is_normed:
                up.add_module(f"norm{number}", nn.BatchNorm2d(channels_out))
            if number:
                up.add_module(f"activation{number}", ACTIVATIONS[options.activation]())
        self.up = up

    def encode(self, x: Tensor) -> Tensor:
        image = x.unsqueeze(1) if len(self.sample_shape) == 2 else x.movedim(-1, 1)
        z: Tensor = self.norm(self.to_latent(self.down(image)).float())
        return z

    def decode_raw(self, z: Tensor) -> Tensor:
        image: Tensor = self.up(self.from_latent(z))
        return image.squeeze(1) if len(self.sample_shape) == 2 else image.movedim(1, -1)


MODEL = ConvAutoencoder
