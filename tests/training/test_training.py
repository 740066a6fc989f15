"""training/loop.py, training/build.py: every knob does what its name says, measurably."""

import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from handmade import random_pixels, write_rows

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.pixels import RawSplit
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import write_splits
from ae_pipeline.errors import DataError, TargetError, TrainingError
from ae_pipeline.models import build_model
from ae_pipeline.models.dense import Options as DenseOptions
from ae_pipeline.params import Params, PrepareParams, TrainParams
from ae_pipeline.training.batches import MemoryRows
from ae_pipeline.training.build import build_codec
from ae_pipeline.training.loop import fit
from ae_pipeline.training.streaming import StreamedRows

CPU = torch.device("cpu")
GIT = {"commit": None, "dirty": None}
# Said here where a default may be tuned: these tests compare losses.
OPTIONS = {
    "hidden_sizes": [32],
    "hidden_norm": "none",
    "activation": "relu",
    "latent_norm": "batch",
    "output_activation": "sigmoid",
}
KNOBS = {
    "latent_size": 6,
    "epochs": 6,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "optimizer": "adamw",
    "schedule": "cosine",
    "patience": 10,
}


@pytest.fixture(scope="module")
def data(synthetic_prepared):
    """The sample sets `train` and `validation`, and the pixels of each."""
    train, validation = (SampleSet.open(synthetic_prepared / name) for name in ("train", "validation"))
    return SimpleNamespace(
        train=train, validation=validation, train_pixels=train.load().pixels, pixels=validation.load().pixels
    )


def fitted(data, options=(), *, rows=540, device=CPU, streamed=False, on_epoch=lambda epoch: None, **knobs):
    """A dense model trained on `rows` rows, and what `fit` returned."""
    values = {**KNOBS, **knobs}
    params = TrainParams.model_validate(values)
    torch.manual_seed(0)
    chosen = DenseOptions.model_validate({**OPTIONS, **dict(options)})
    model = build_model("dense", (12, 12), params.latent_size, dict(chosen)).to(device)
    train = StreamedRows(data.train, device, 130) if streamed else MemoryRows(data.train_pixels[:rows], device)
    result = fit(model, train, MemoryRows(data.pixels, device), params, Scaling(offset=0, scale=255), on_epoch)
    return model.eval(), result


def validation_loss(model, data, noise=0.0):
    """MSE of the validation rows, decoded from rows with noise added."""
    target = torch.from_numpy(data.pixels).float() / 255
    x = target + noise * torch.randn(target.shape, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        return float((model.decode(model.encode(x)) - target).square().mean())


def with_knobs(params, **knobs):
    return Params.model_validate({**params.model_dump(), "train": {**params.train.model_dump(), **knobs}})


def built(data, params, folder, on_epoch=lambda epoch: None):
    return build_codec(data.train, data.validation, params, folder, GIT, on_epoch)


# --- knobs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 3e-3), ("adamw", 3e-3), ("adadelta", 1.0)])
def test_every_optimizer_lowers_every_loss(data, optimizer, rate, loss):
    _, result = fitted(data, optimizer=optimizer, learning_rate=rate, loss=loss)
    assert result.history[-1].train_loss < 0.95 * result.history[0].train_loss
    assert result.history[-1].validation_loss < 0.95 * result.history[0].validation_loss


def test_an_l1_penalty_makes_latents_small_and_sparse(data):
    plain, sparse = (
        fitted(data, {"latent_norm": "none"}, l1_latent=weight, epochs=12)[0].encode(
            torch.from_numpy(data.pixels) / 255
        )
        for weight in (0.0, 0.02)
    )
    assert sparse.abs().mean() < 0.3 * plain.abs().mean()
    nearly_zero = [float((z.abs() < 0.05 * z.abs().max()).float().mean()) for z in (plain, sparse)]
    assert nearly_zero[1] > 2 * nearly_zero[0]


@pytest.mark.parametrize(
    ("optimizer", "decay", "rate"), [("adam", 0.1, 3e-3), ("adamw", 5.0, 3e-3), ("adadelta", 0.1, 1.0)]
)
def test_weight_decay_shrinks_weights(data, optimizer, decay, rate):
    sizes = []
    for weight_decay in (0.0, decay):
        model, _ = fitted(data, optimizer=optimizer, weight_decay=weight_decay, learning_rate=rate)
        sizes.append(sum(float(v.detach().square().sum()) for k, v in model.named_parameters() if k.endswith("weight")))
    assert sizes[1] < 0.8 * sizes[0]


@pytest.mark.slow
def test_averages_are_better_than_weights_that_every_step_shakes(data):
    knobs = {"schedule": "constant", "learning_rate": 0.05, "epochs": 20, "batch_size": 32}

    def losses(ema):
        # Three trainings: another processor's rounding alone moves one of them by 3%.
        return [fitted(data, rows=rows, ema=ema, **knobs)[1].best.validation_loss for rows in (540, 520, 500)]

    assert sum(losses(0.1)) < 0.96 * sum(losses(0.0))


@pytest.mark.parametrize("ema", [0.0, 0.1])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_weights_that_were_validated_are_kept(data, ema, norm):
    model, result = fitted(data, {"hidden_norm": norm}, ema=ema)
    assert validation_loss(model, data) == pytest.approx(result.best.validation_loss, rel=1e-5)


def test_glorot_initialisation_depends_on_both_sides_of_a_layer(data):
    starts = {}
    for initialisation in ("torch", "glorot"):
        model, _ = fitted(data, {"latent_norm": "none"}, initialisation=initialisation, learning_rate=1e-5, epochs=1)
        starts[initialisation] = model.encoder.linear0
    weight, bias = starts["glorot"].weight.detach(), starts["glorot"].bias.detach()
    bound = math.sqrt(6 / (144 + 32))
    assert 0.95 * bound < float(weight.abs().max()) < 1.01 * bound
    assert float(bias.abs().max()) < 1e-3
    assert float(starts["torch"].weight.detach().abs().max()) < 1.01 / math.sqrt(144)


def test_dropout_hinders_training_but_not_validation(data):
    (_, plain), (model, dropped) = (fitted(data, {"dropout": share}, epochs=12) for share in (0.0, 0.5))
    hindrance = [result.best.train_loss / result.best.validation_loss for result in (plain, dropped)]
    assert hindrance[1] > 1.03 * hindrance[0]
    assert validation_loss(model, data) == pytest.approx(dropped.best.validation_loss, rel=1e-6)


def test_noise_in_training_makes_a_better_denoiser(data):
    options = {"options": {"hidden_sizes": [64]}, "latent_size": 16, "epochs": 20, "learning_rate": 5e-3}
    (plain, _), (denoising, _) = fitted(data, **options), fitted(data, **options, noise_std=0.5)
    assert validation_loss(denoising, data, noise=0.5) < 0.97 * validation_loss(plain, data, noise=0.5)
    assert validation_loss(plain, data) < validation_loss(denoising, data)


@pytest.mark.parametrize(("ema", "end"), [(0.0, 0.0), (0.03, 0.1)])
def test_a_cosine_schedule_ends_near_zero_or_for_averages_a_tenth_and_a_constant_one_stays(data, ema, end):
    rates = [epoch.learning_rate for epoch in fitted(data, schedule="cosine", epochs=10, ema=ema)[1].history]
    assert 0 < rates[0] < 3e-3  # it rises over the first steps
    assert 2.5e-3 < rates[1] < 3e-3
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[5] == pytest.approx((1 + end) * 1.5e-3)
    assert end * 3e-3 < rates[-1] < (0.03 + end) * rates[1]
    assert {epoch.learning_rate for epoch in fitted(data, schedule="constant")[1].history} == {3e-3}


OVERFITTING = {"rows": 40, "batch_size": 8, "learning_rate": 1e-2, "schedule": "constant", "latent_size": 16}


def test_early_stopping_stops_and_gives_the_best_epochs_weights_back(data):
    seen = []
    model, result = fitted(data, epochs=400, patience=3, on_epoch=seen.append, **OVERFITTING)
    losses = [epoch.validation_loss for epoch in result.history]
    assert result.stopped_early
    assert len(losses) == result.best_epoch + 3 < 400
    assert result.best.validation_loss == min(losses) < losses[-1]
    assert validation_loss(model, data) == pytest.approx(min(losses), rel=1e-6)
    assert seen == result.history
    assert [epoch.epoch for epoch in seen] == list(range(1, len(losses) + 1))


def test_patience_0_never_stops_early_and_still_gives_the_best_weights_back(data):
    model, result = fitted(data, epochs=60, patience=0, **OVERFITTING)
    assert len(result.history) == 60
    assert not result.stopped_early
    assert result.best_epoch < 60
    assert validation_loss(model, data) == pytest.approx(result.best.validation_loss, rel=1e-6)


def test_autocast_trains_with_less_precision(data):
    (_, exact), (model, rounded) = fitted(data), fitted(data, autocast=True)
    assert rounded.history[-1].validation_loss < 0.8 * rounded.history[0].validation_loss
    assert rounded.history[-1].train_loss == pytest.approx(exact.history[-1].train_loss, rel=0.05)
    assert rounded.history[-1].train_loss != exact.history[-1].train_loss
    assert {value.dtype for value in model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler, c++ is not on PATH")
def test_a_compiled_model_trains_to_the_same_losses(data, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    (_, plain), (_, compiled) = (
        fitted(data, {"hidden_sizes": []}, rows=512, epochs=2, compile=knob) for knob in (False, True)
    )
    for one, other in zip(plain.history, compiled.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)


@pytest.mark.slow
def test_pictures_that_are_mirrored_in_training_are_learned_both_ways(data):
    halves = SimpleNamespace(train_pixels=data.train_pixels.copy(), pixels=data.pixels.copy())
    for pixels in (halves.train_pixels, halves.pixels):
        pixels[:, :, 6:] = 0
    turned = SimpleNamespace(pixels=np.ascontiguousarray(halves.pixels[:, :, ::-1]))
    one_way, both = (fitted(halves, mirror=knob, epochs=40)[0] for knob in (False, True))
    assert validation_loss(both, turned) < 0.5 * validation_loss(one_way, turned)
    assert validation_loss(both, turned) == pytest.approx(validation_loss(both, halves), rel=0.3)


def test_what_has_no_sides_is_not_mirrored(tiny_params, tmp_path):
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((20, 6), "uint8"), id=list(range(20)))
    with pytest.raises(DataError, match=r"train.mirror is for pictures, found uint8 6 of kind image; set it to false"):
        build_codec(samples, samples, with_knobs(tiny_params, mirror=True), tmp_path / "codec", GIT, lambda _: None)


def test_streaming_trains_as_well_as_memory(data):
    (_, memory), (_, streamed) = fitted(data), fitted(data, streamed=True)
    assert streamed.best.validation_loss == pytest.approx(memory.best.validation_loss, rel=0.05)


@pytest.mark.gpu
def test_training_on_a_gpu_leads_where_training_on_the_cpu_does(data):
    (_, there), (_, here) = fitted(data, device=torch.device("cuda")), fitted(data)
    assert there.best.validation_loss == pytest.approx(here.best.validation_loss, rel=0.05)


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "loss", "message"),
    [(1e6, "mse", "not a number in epoch 1"), (1.0, "mse", "training diverges: validation loss .* in epoch 1")],
)
def test_a_diverging_training_is_an_error_and_leaves_no_codec(data, tiny_params, tmp_path, rate, loss, message):
    values = tiny_params.model_dump()
    values["model"]["dense"] |= {"output_activation": "linear", "latent_norm": "none"}
    params = with_knobs(Params.model_validate(values), learning_rate=rate, loss=loss)
    with pytest.raises(TrainingError, match=rf"{message}.*lower train\.learning_rate\b.*no codec"):
        built(data, params, tmp_path / "codec")
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_never_helps_is_an_error(data):
    with pytest.raises(TrainingError, match=r"never lowered the validation loss of .* in 4 epochs; change"):
        fitted(data, learning_rate=1e-30, patience=4, options={"latent_norm": "none"})


def test_a_train_split_of_one_row_is_refused(data):
    with pytest.raises(DataError, match="the train split has 1 row; expected at least 2"):
        fitted(data, rows=1)


def test_a_last_batch_of_one_row_does_not_stop_training(data):
    _, result = fitted(data, rows=129)
    assert len(result.history) == 6


def test_a_target_that_exists_is_refused_before_training(data, tiny_params, tmp_path):
    (tmp_path / "codec.json").write_text("{}")
    with pytest.raises(TargetError, match="exists already"):
        built(data, tiny_params, tmp_path, on_epoch=lambda epoch: pytest.fail("trained in vain"))


def test_splits_of_two_shapes_are_refused(data, tiny_params, tmp_path):
    split = RawSplit(np.zeros((4, 5, 5), np.uint8), {}, 0)
    other = write_splits({"train": split, "test": split}, tmp_path / "other", PrepareParams(validation_fraction=0.5))
    with pytest.raises(DataError, match="validation samples are uint8 5x5, expected uint8 12x12 as the train samples"):
        build_codec(data.train, other["validation"], tiny_params, tmp_path / "codec", GIT, lambda epoch: None)


# --- the same again -------------------------------------------------------------------------------------------------


def test_one_seed_gives_the_same_codec_and_another_one_another(data, tiny_params, tmp_path):
    fingerprints = {}
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        knobs = {"seed": seed, "noise_std": 0.1, "epochs": 2}
        header, _ = built(data, with_knobs(tiny_params, **knobs), tmp_path / name)
        fingerprints[name] = header.fingerprint
        torch.rand(3)  # torch's own state must not matter
    assert fingerprints["one"] == fingerprints["again"] != fingerprints["other"]


def test_the_seed_decides_both_the_first_weights_and_the_order_of_rows(data, tiny_params, tmp_path):
    in_two_orders = [fitted(data, seed=seed, epochs=1)[1].best.validation_loss for seed in (0, 1)]
    assert in_two_orders[0] != in_two_orders[1]
    values = tiny_params.model_dump()
    values["model"]["dense"]["latent_norm"] = "none"
    untrained = []
    for seed in (0, 1):
        params = with_knobs(Params.model_validate(values), seed=seed, learning_rate=1e-6, epochs=1)
        untrained.append(built(data, params, tmp_path / str(seed))[1].best.validation_loss)
    assert untrained[0] != pytest.approx(untrained[1], rel=1e-3)


def test_training_leaves_torchs_own_state_alone(data):
    after = []
    for epochs in (1, 3):
        fitted(data, {"dropout": 0.5}, noise_std=0.1, epochs=epochs)
        after.append(torch.rand(3))
    assert torch.equal(*after)
    assert not torch.are_deterministic_algorithms_enabled()
