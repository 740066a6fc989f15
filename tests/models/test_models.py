"""models/: what is special to one of them. What all must do is in test_contracts.py."""

import pytest
import torch

from ae_pipeline.errors import ConfigError
from ae_pipeline.models import build_model
from ae_pipeline.models.base import ACTIVATIONS, Clamp, _BceWithLogits, fold_norms
from ae_pipeline.models.conv import Options as ConvOptions
from ae_pipeline.models.dense import Options as DenseOptions
from ae_pipeline.models.patches import Options as PatchOptions
from ae_pipeline.params import TrainParams
from ae_pipeline.params.options import MODELS


def dense(shape=(6, 5), latent_size=4, **options):
    torch.manual_seed(0)
    return build_model("dense", shape, latent_size, dict(DenseOptions.model_validate(options)))


def conv(shape, latent_size=4, **options):
    torch.manual_seed(0)
    return build_model("conv", shape, latent_size, dict(ConvOptions.model_validate(options)))


def patches(shape, latent_size=4, **options):
    torch.manual_seed(0)
    return build_model("patches", shape, latent_size, dict(PatchOptions.model_validate(options)))


def x_of(shape, rows=7):
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(1))


def test_dense_layers_have_the_sizes_asked_for_and_are_mirrored():
    model = dense(hidden_sizes=[20, 10], hidden_norm="none")
    sizes = {name: tuple(value.shape) for name, value in model.named_parameters() if name.endswith("weight")}
    assert sizes == {
        "encoder.linear0.weight": (20, 30),
        "encoder.linear1.weight": (10, 20),
        "encoder.linear2.weight": (4, 10),
        "decoder.linear0.weight": (10, 4),
        "decoder.linear1.weight": (20, 10),
        "decoder.linear2.weight": (30, 20),
    }


def test_the_encoder_may_have_sizes_of_its_own():
    model = dense(hidden_sizes=[20, 10], encoder_hidden_sizes=[7], hidden_norm="batch")
    sizes = {
        name: tuple(value.shape) for name, value in model.named_parameters() if "linear" in name and "weight" in name
    }
    assert [sizes[f"{name}.weight"] for name in model.encoder_layers()] == [(7, 30), (4, 7)]
    assert [sizes[f"{name}.weight"] for name in model.decoder_layers()] == [(10, 4), (20, 10), (30, 20)]


def test_dense_without_hidden_layers_is_the_briefs_784_128_784():
    model = dense((28, 28), 128, hidden_sizes=[], latent_activation="relu", latent_norm="none")
    assert sum(value.numel() for value in model.parameters()) == 784 * 128 + 128 + 128 * 784 + 784
    z = model.encode(x_of((28, 28)))
    assert (z >= 0).all()
    assert (z == 0).any()


def test_dense_without_any_activation_is_a_linear_map():
    plain = {"hidden_norm": "none", "latent_norm": "none", "output_activation": "linear"}
    model = dense(hidden_sizes=[8], activation="identity", **plain)
    x, y = x_of((6, 5)), x_of((6, 5)).flip(0)
    middle = model.decode(model.encode((x + y) / 2))
    torch.testing.assert_close(middle, (model.decode(model.encode(x)) + model.decode(model.encode(y))) / 2)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("build", [dense, conv, patches])
def test_every_activation_can_be_chosen_and_makes_a_difference(build, activation):
    model, other = (build((6, 5), activation=name, latent_norm="none") for name in (activation, "tanh"))
    x = x_of((6, 5))
    assert torch.isfinite(model.encode(x)).all()
    assert torch.equal(model.encode(x), other.encode(x)) == (activation == "tanh")


@pytest.mark.parametrize("shape", [(28, 28), (5, 7), (13, 1), (1, 1), (3, 8, 3), (9, 4, 1)], ids=str)
@pytest.mark.parametrize("channels", [[4], [4, 8], [4, 8, 8]], ids=str)
def test_conv_takes_any_height_and_width_with_and_without_channels(shape, channels):
    model = conv(shape, channels=channels)
    x = x_of(shape)
    z = model.encode(x)
    assert z.shape == (7, 4)
    assert model.decode(z).shape == x.shape


def test_conv_keeps_the_channels_of_a_pixel_together():
    # A change to one value must reach the latents only through its own channel's weights.
    model = conv((6, 6, 2), latent_norm="none").eval()
    with torch.no_grad():
        model.down.conv0.weight[:, 1] = 0
    x = x_of((6, 6, 2))
    ignored, seen = x.clone(), x.clone()
    ignored[..., 1] += 1
    seen[..., 0] += 1
    assert torch.equal(model.encode(ignored), model.encode(x))
    assert not torch.equal(model.encode(seen), model.encode(x))


@pytest.mark.parametrize("shape", [(28, 28), (5, 7), (13, 1), (1, 1), (3, 8, 3), (9, 4, 1)], ids=str)
@pytest.mark.parametrize("size", [1, 3, 4, 50])
def test_a_grid_of_patches_has_every_value_once_and_leads_back(shape, size):
    model = patches(shape, patch_size=size)
    x = x_of(shape) + 1
    for values in (x, (x * 100).to(torch.uint8)):
        grid = model._to_grid(values)
        assert tuple(grid.shape[2:]) == (-(-shape[0] // size), -(-shape[1] // size))
        assert torch.equal(grid[grid != 0].sort().values, values.flatten().sort().values)
        assert torch.equal(model._from_grid(grid), values)
    assert model.decode(model.encode(x)).shape == x.shape


def test_a_place_of_the_grid_is_a_patch():
    model = patches((4, 6, 2), patch_size=2)
    x = torch.arange(48).reshape(1, 4, 6, 2)
    assert torch.equal(model._to_grid(x)[0, :, 1, 2], x[0, 2:4, 4:6].flatten())


@pytest.mark.parametrize("shape", [(30,), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("build", [conv, patches])
def test_networks_for_images_refuse_what_is_none_and_name_the_alternative(build, shape):
    with pytest.raises(
        ConfigError, match=rf"model\.name: {build.__name__} needs samples of shape height x width.*; use dense"
    ):
        build(shape)


def test_a_clamped_output_is_led_back_from_where_it_is_wrong_and_left_where_it_is_right():
    raw = torch.tensor([-1.0, -1.0, 0.5, 3.0, 3.0], requires_grad=True)
    target = torch.tensor([0.0, 0.25, 0.25, 1.0, 0.0])
    clamped = Clamp()(raw)
    assert clamped.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    (clamped - target).square().sum().backward()
    assert raw.grad.tolist() == [0.0, -0.5, 0.5, 0.0, 2.0]


@pytest.mark.parametrize("build", [dense, conv, patches])
def test_batch_normalised_latents_have_zero_mean_and_unit_variance(build):
    # The factor makes up for an untrained encoder's small variance, next to which BatchNorm's 1e-5 would show.
    z = build((6, 5)).encode(20 * x_of((6, 5), rows=500))
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(dim=0, correction=0), torch.ones(4), atol=1e-3, rtol=0)


LAYERS = {
    "linear": (torch.nn.Linear(9, 5), torch.nn.BatchNorm1d, (9,)),
    "conv": (torch.nn.Conv2d(3, 5, 3, stride=2), torch.nn.BatchNorm2d, (3, 7, 6)),
    "transposed": (torch.nn.ConvTranspose2d(3, 5, 3, 2), torch.nn.BatchNorm2d, (3, 4, 3)),
}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_folded_batch_norm_computes_what_the_two_layers_did(kind, affine):
    torch.manual_seed(2)
    layer, norm_of, shape = LAYERS[kind]
    model = torch.nn.Sequential(layer, norm_of(5, affine=affine))
    if affine:
        torch.nn.init.normal_(model[1].weight)
        torch.nn.init.normal_(model[1].bias)
    for _ in range(20):
        model(torch.randn(64, *shape) * 3 + 1)
    model.eval()
    state = fold_norms(model)
    assert set(state) == {"0.weight", "0.bias"}
    x = torch.randn(11, *shape)
    folded = torch.func.functional_call(layer, {name.removeprefix("0."): value for name, value in state.items()}, x)
    torch.testing.assert_close(folded, model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [dense, conv, patches])
def test_a_frozen_model_computes_what_the_trained_one_did(build):
    model = build((6, 5), hidden_norm="batch", dropout=0.1)
    for _ in range(10):
        model.decode(model.encode(x_of((6, 5), rows=100)))
    model.eval()
    options, state = model.frozen()
    frozen = build_model(build.__name__, (6, 5), model.latent_size, options).eval()
    frozen.load_state_dict(state)
    assert not any("norm" in name for name in state)
    x = x_of((6, 5))
    torch.testing.assert_close(frozen.encode(x), model.encode(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(frozen.decode(frozen.encode(x)), model.decode(model.encode(x)), rtol=1e-4, atol=1e-5)


def test_losses_are_what_their_names_say():
    model, x = dense(latent_norm="none"), x_of((6, 5))
    target = x_of((6, 5)).flip(0)
    z, decoded = model.encode(x), model.decode(model.encode(x))
    mse = model.loss(x, target, TrainParams(loss="mse"))
    torch.testing.assert_close(mse, (decoded - target).square().mean())
    bce = model.loss(x, target, TrainParams(loss="bce"))
    torch.testing.assert_close(bce, -(target * decoded.log() + (1 - target) * (1 - decoded).log()).mean())
    sparse = model.loss(x, target, TrainParams(loss="mse", l1_latent=0.5))
    torch.testing.assert_close(sparse, mse + 0.5 * z.abs().mean())


def test_binary_cross_entropy_and_its_gradient_hold_for_extreme_logits():
    target = x_of((6, 5))
    for factor in (1.0, 30.0, 1e3):
        raw = (factor * torch.randn(7, 6, 5, generator=torch.Generator().manual_seed(3))).requires_grad_()
        loss = _BceWithLogits.apply(raw, target)
        (gradient,) = torch.autograd.grad(loss, raw)
        exact = torch.nn.functional.binary_cross_entropy_with_logits(raw.double(), target.double())
        torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(gradient, torch.autograd.grad(exact, raw)[0], rtol=1e-4, atol=1e-7)


def test_one_seed_gives_the_same_weights_and_another_one_others():
    torch.manual_seed(4)
    other = build_model("dense", (6, 5), 4, dict(DenseOptions()))
    one, again = dense().state_dict(), dense().state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["encoder.linear0.weight"], other.state_dict()["encoder.linear0.weight"])


class Computed(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes what is computed."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(str(function.overloadpacket))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_without_memory_computes_no_start_that_a_files_weights_replace(name):
    """torch computes shapes alone by Python, and imports sympy for it: a second for every command with a codec."""
    with Computed() as computed, torch.device("meta"):
        build_model(name, (8, 8), 4, dict(MODELS[name].model_validate({})))
    assert not {"aten.arange", "aten.cos", "aten.einsum"} & computed.names
