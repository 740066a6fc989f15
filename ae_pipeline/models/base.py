"""The contract of an autoencoder, and the pieces that all of them share.

Shapes: N rows, L latent size, `shape` the shape of one sample.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ae_pipeline.models.layers.fused import Sequence
from ae_pipeline.models.neighbours import neighbour_loss
from ae_pipeline.params import TrainParams
from ae_pipeline.params.base import ModelOptions

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}


class Clamp(nn.Module):
    """Values below 0 are 0, and above 1 are 1.

    Gradients pass as if they were not (straight-through): with a squared error they are zero where the target is the
    same bound, and lead back where it is not.
    """

    def forward(self, raw: Tensor) -> Tensor:
        """Any shape."""
        return raw + (raw.clamp(0, 1) - raw).detach() if raw.requires_grad else raw.clamp(0, 1)


OUTPUTS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "clamp": Clamp, "linear": nn.Identity}
Weighted = nn.Linear | nn.Conv2d | nn.ConvTranspose2d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
# What options are once a model is frozen: normalisation is folded into the weights.
_FROZEN = {"hidden_norm": "none", "latent_norm": "none", "dropout": 0.0}


class Autoencoder(nn.Module, ABC):
    """Maps scaled samples (N, *shape), float32 in [0, 1] for pixels, to latents (N, L) and back.

    Modules are registered in the order in which rows go through them: a batch norm after the layer that it normalises.
    """

    widest: int
    """Values per row of the largest thing that the network computes."""
    encoder_depth: int
    """Layers with weights in the encoder."""
    begins_as_klt = False
    """Whether training begins with `begin_as_klt`."""
    begins_as_cosines = False
    """Whether it is a cosine transform before training, which is kept where it codes well and no epoch does better."""
    latent_channels = 0
    """Latent d is of channel d % latent_channels, and all of a channel are quantised alike; 0: each in its own way."""
    zero: float = 0.0
    """Where 0 of the samples' own units lies among scaled values; `fit` sets it. Angles of vectors are seen from it."""
    batches_watched = 0
    """Batches of training that a model has taken a mean over. It is no weight: `fit` keeps it when it is taken up."""

    def __init__(self, sample_shape: tuple[int, ...], latent_size: int, options: ModelOptions, output_activation: str):
        super().__init__()
        self.sample_shape = sample_shape
        self.latent_size = latent_size
        self.output: nn.Module = OUTPUTS[output_activation]()
        self._options = options.model_dump()

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """(N, *shape) to (N, L), float32 whatever autocast computes in."""

    @abstractmethod
    def decode_raw(self, z: Tensor) -> Tensor:
        """(N, L) to (N, *shape), before the output activation."""

    def encoder_layers(self) -> list[str]:
        """Names of the modules with weights through which `encode` goes, in that order; the last one gives latents.

        What stands beside them is in `gives_latents` alone, and in `takes_latents`.
        """
        return self._layers()[: self.encoder_depth]

    def decoder_layers(self) -> list[str]:
        """Names of those through which `decode_raw` goes; the first one is linear and takes latents."""
        return self._layers()[self.encoder_depth :]

    def gives_latents(self) -> list[str]:
        """Names of the layers whose results, added up, are the latents."""
        return self.encoder_layers()[-1:]

    def takes_latents(self) -> list[str]:
        """Names of the layers that take latents."""
        return self.decoder_layers()[:1]

    def kept_together(self, dimensions: Tensor) -> Tensor:
        """The latent dimensions to keep where these, rising, are worth it."""
        return dimensions

    def units_of(self, dimensions: Tensor) -> Tensor:
        """Which outputs of the layers of `gives_latents` stand for these dimensions, which are kept together."""
        return dimensions

    def begin_as_klt(self, mean: Tensor, components: Tensor, unit: float) -> None:
        """Make this, before any training, the KLT of scaled rows: their mean (values,) and components (values, values).

        The components stand in rows, the largest variance first; `unit` is what a latent of 1 stands for.
        """
        raise NotImplementedError(f"{type(self).__name__} has no linear path")

    def _layers(self) -> list[str]:
        return [
            name
            for name, module in self.named_modules()
            if hasattr(module, "weight") and not isinstance(module, BatchNorm)
        ]

    def frozen(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Options and state of an equal model for inference: without dropout, normalisation folded into weights."""
        own = {name: value for name, value in self._options.items() if name not in _FROZEN}
        return own | {name: _FROZEN[name] for name in _FROZEN if name in self._options}, fold_norms(self)

    def decode(self, z: Tensor) -> Tensor:
        """(N, L) to (N, *shape)."""
        return self.output(self.decode_raw(z))

    def loss(
        self,
        x: Tensor,
        target: Tensor,
        params: TrainParams,
        rate: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        rate_share: float = 1.0,
    ) -> Tensor:
        """What is minimised: `params.loss` and, with a weight each, what neighbours, latents and their bits add.

        It is a mean over rows and values: `mse`, or `bce` (binary cross-entropy in nats). With `rate` the decoder gets
        latents as after quantising; `rate_share` is a factor of their weight.
        """
        encoded = self.encode(x)
        z, bits = (encoded, None) if rate is None else rate(encoded)
        raw = self.decode_raw(z).float()  # under autocast the last layer gives bfloat16
        bce = params.loss == "bce"
        total = _BceWithLogits.apply(raw, target) if bce else functional.mse_loss(self.output(raw), target)
        if params.neighbour_weight:
            total = total + params.neighbour_weight * neighbour_loss(target, self.output(raw), self.zero)
        if params.l1_latent:
            total = total + params.l1_latent * encoded.abs().mean()
        if bits is not None:
            total = total + params.rate_weight * rate_share * bits.mean()
        return total


class _BceWithLogits(torch.autograd.Function):
    """Mean binary cross-entropy of sigmoid(raw); torch's own takes several times as long on a CPU.

    Its time is log1p's and memory's. Here softplus(raw) = max(raw, 0) - log(sigmoid(|raw|)), and the sums are taken
    without writing their terms down. The gradient is (sigmoid(raw) - target) / n.
    """

    @staticmethod
    def forward(context: Any, raw: Tensor, target: Tensor) -> Tensor:
        context.save_for_backward(raw, target)
        magnitude = raw.abs()
        positive_part = (magnitude.sum() + raw.sum()) / 2
        log_sigmoid = magnitude.sigmoid_().log_().sum()
        return (positive_part - log_sigmoid - torch.dot(raw.flatten(), target.flatten())) / raw.numel()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        raw, target = context.saved_tensors
        return torch.sigmoid(raw).sub_(target).mul_(gradients[0] / raw.numel()), None


def stack(
    layers: Mapping[str, Weighted], norm: str, activation: str, *, dropout: float = 0.0, all_hidden: bool = False
) -> Sequence:
    """Layers by their names. After the hidden ones come normalisation, activation and dropout; the last may be none."""
    modules = Sequence()
    for number, (name, layer) in enumerate(layers.items()):
        modules.add_module(name, layer)
        if number < len(layers) - 1 or all_hidden:
            if norm == "batch":
                normalised = nn.BatchNorm1d if isinstance(layer, nn.Linear) else nn.BatchNorm2d
                modules.add_module(f"norm{number}", normalised(layer.weight.shape[output_axis(layer)]))
            modules.add_module(f"activation{number}", ACTIVATIONS[activation]())
            if dropout:
                modules.add_module(f"dropout{number}", nn.Dropout(dropout))
    return modules


def output_axis(layer: Weighted) -> int:
    """Axis of a layer's weight along which its outputs lie."""
    return 1 if isinstance(layer, nn.ConvTranspose2d) else 0


def fold_norms(model: nn.Module) -> dict[str, Tensor]:
    """The state of an equal model without batch normalisation, which is folded into weights as in evaluation mode."""
    state = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, Weighted):
            before, layer = name, module
        elif isinstance(module, BatchNorm):
            state[f"{before}.weight"], state[f"{before}.bias"] = _folded(layer, module)
            for key in module.state_dict():
                del state[f"{name}.{key}"]
    return state


def _folded(layer: Weighted, norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer, linear ones too, that equals `layer` followed by `norm`; computed in float64."""
    layer, norm = copy.deepcopy(layer).double(), copy.deepcopy(norm).double()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    weight, bias = fuse_conv_bn_weights(layer.weight, layer.bias, *statistics, transpose=output_axis(layer) == 1)
    return weight.detach().float(), bias.detach().float()
