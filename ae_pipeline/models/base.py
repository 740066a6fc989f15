"""The contract of an autoencoder, and the pieces that all of them share.

Shapes: N rows, L latent size, `shape` the shape of one sample.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

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


# What options are once a model is frozen: normalisation is folded into the weights.
_FROZEN = {"hidden_norm": "none", "latent_norm": "none", "dropout": 0.0}


class Autoencoder(nn.Module, ABC):
    """Maps scaled samples (N, *shape), float32 in [0, 1] for pixels, to latents (N, L) and back.

    `widest` is the number of values per row of the largest thing that the network computes.
    """

    def __init__(self, sample_shape: tuple[int, ...], latent_size: int, options: ModelOptions, output_activation: str):
        super().__init__()
        self.sample_shape = sample_shape
        self.latent_size = latent_size
        self.widest = latent_size
        self.output: nn.Module = OUTPUTS[output_activation]()
        self._options = options.model_dump()

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """(N, *shape) to (N, L)."""

    @abstractmethod
    def decode_raw(self, z: Tensor) -> Tensor:
        """(N, L) to (N, *shape), before the output activation."""

    @abstractmethod
    def norms(self) -> dict[str, nn.Module]:
        """The modules that normalise what a layer gives, by the layer's name; nn.Identity where none does."""

    @abstractmethod
    def latent_axes(self) -> dict[str, int]:
        """Tensors of the state in which the latent dimensions are an axis, and which one it is."""

    @abstractmethod
    def encoder_layers(self) -> list[str]:
        """Names of the modules with weights through which `encode` goes, in that order; the last one gives latents."""

    @abstractmethod
    def decoder_layers(self) -> list[str]:
        """Names of those through which `decode_raw` goes; the first one is linear and takes latents."""

    def frozen(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Options and state of an equal model for inference: without dropout, normalisation folded into weights."""
        own = {name: value for name, value in self._options.items() if name not in _FROZEN}
        return own | {name: _FROZEN[name] for name in _FROZEN if name in self._options}, fold_norms(self, self.norms())

    def decode(self, z: Tensor) -> Tensor:
        """(N, L) to (N, *shape)."""
        raw: Tensor = self.output(self.decode_raw(z))
        return raw

    def losses(
        self,
        x: Tensor,
        target: Tensor,
        *,
        loss: str,
        l1_latent: float,
        rate: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        rate_weight: float = 0.0,
    ) -> dict[str, Tensor]:
        """Named losses of one batch; `total` is minimised, the others are logged.

        Reconstruction losses are means over rows and values: `mse`, or `bce` (binary cross-entropy in nats). With
        `rate` the decoder gets latents as after quantising, and `rate_weight` times their bits per row is added.
        """
        encoded = self.encode(x)
        z, bits = (encoded, None) if rate is None else rate(encoded)
        raw = self.decode_raw(z).float()  # under autocast the last layer gives bfloat16
        if loss == "bce":
            reconstruction = _BceWithLogits.apply(raw, target)
        else:
            reconstruction = functional.mse_loss(self.output(raw), target)
        found = {"total": reconstruction}
        if l1_latent:
            found |= {"reconstruction": reconstruction, "l1": encoded.abs().mean()}
            found["total"] = found["total"] + l1_latent * found["l1"]
        if bits is not None:
            found |= {"reconstruction": reconstruction, "bits": bits.mean()}
            found["total"] = found["total"] + rate_weight * found["bits"]
        return found


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


Weighted = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


def output_axis(layer: Weighted) -> int:
    """Axis of a layer's weight along which its outputs lie."""
    return 1 if isinstance(layer, nn.ConvTranspose2d) else 0


def fold_norms(model: nn.Module, norms: dict[str, nn.Module]) -> dict[str, Tensor]:
    """The state of a model whose layers are followed by these modules, by the layer's name, and equal without them.

    Batch normalisation is folded into the layer's weights, as in evaluation mode; of other modules nothing stays.
    """
    inside = {name for name, module in model.named_modules() if module in set(norms.values())}
    state = {name: value for name, value in model.state_dict().items() if name.rpartition(".")[0] not in inside}
    for name, norm in norms.items():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            layer = model.get_submodule(name)
            assert isinstance(layer, Weighted)
            state |= {f"{name}.{key}": value for key, value in _folded(layer, norm).items()}
    return state


def _folded(layer: Weighted, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> dict[str, Tensor]:
    """Weight and bias of one layer that equals `layer` followed by `norm` in evaluation mode."""
    assert layer.bias is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.affine:
        factor = factor * norm.weight.double()
    bias = (layer.bias.double() - norm.running_mean.double()) * factor
    if norm.affine:
        bias = bias + norm.bias.double()
    shape = [-1 if axis == output_axis(layer) else 1 for axis in range(layer.weight.dim())]
    return {"weight": (layer.weight.double() * factor.reshape(shape)).float(), "bias": bias.float()}
