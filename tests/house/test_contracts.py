"""What every source, model and metric must do, run on each of them. New ones are found by name, here too."""

from importlib import import_module
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from ae_pipeline import models, sources
from ae_pipeline.codec.header import Model
from ae_pipeline.data.pixels import DTYPES
from ae_pipeline.errors import DataError, DownloadError
from ae_pipeline.evaluation.measures.metrics import METRICS, of_rows
from ae_pipeline.models import build_model
from ae_pipeline.models.base import Autoencoder
from ae_pipeline.params import Section, SourceParams, TrainParams
from ae_pipeline.params.options import ModelParams
from ae_pipeline.sources import build_source
from ae_pipeline.sources.base import Source
from ae_pipeline.sources.idx import FILES

MODELS = get_args(ModelParams.model_fields["name"].annotation)
SOURCES = get_args(SourceParams.model_fields["name"].annotation)
# Files beside the entries, which they share.
PARTS = {"__init__", "base", "mirrors", "neighbours"}
SHAPES = {
    "dense": [(5,), (6, 5), (4, 3, 2)],
    "conv": [(6, 5), (7, 8, 3)],
    "patches": [(8, 8), (7, 6, 3)],
    "grid": [(8, 8), (7, 6, 3)],
}
# Options that most models have, and these have not.
WITHOUT = {"grid": ("hidden_norm", "latent_norm")}
MODELS_AND_SHAPES = [(name, shape) for name in MODELS for shape in SHAPES.get(name, [(6, 5)])]
LATENT_SIZE = 3
MSE = TrainParams(loss="mse")


# --- wiring: one file, one name, one options class -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "section", "names", "last", "base"),
    [(models, ModelParams, MODELS, "MODEL", Autoencoder), (sources, SourceParams, SOURCES, "SOURCE", Source)],
    ids=["models", "sources"],
)
def test_files_names_and_options_are_the_same_list(package, section, names, last, base):
    folder = Path(package.__file__).parent
    assert {file.stem for file in folder.glob("*.py") if not file.stem.endswith("_options")} - PARTS == set(names)
    for name in names:
        assert issubclass(section.model_fields[name].annotation, Section), f"{name} has no options class"
        entry = getattr(import_module(f"{package.__name__}.{name}"), last)
        assert issubclass(entry, base)
        assert (folder / f"{name}.py").read_text(encoding="utf-8").endswith(f"\n{last} = {entry.__name__}\n")


@pytest.mark.parametrize("name", MODELS)
def test_a_codec_can_hold_every_model(name):
    options = dict(getattr(ModelParams(), name))
    assert Model.model_validate({"name": name, "latent_size": 3, "options": options}).options == options


# --- models ---------------------------------------------------------------------------------------------------------


def model_of(name, shape, **options):
    torch.manual_seed(0)
    had = {key: value for key, value in options.items() if key not in WITHOUT.get(name, ())}
    chosen = ModelParams.model_validate({"name": name, name: had}).options
    return build_model(name, shape, LATENT_SIZE, chosen)


def x_of(shape, rows=32):
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(1)) ** 2


def step(model, shape, steps):
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    x = x_of(shape)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(x, x, MSE).backward()
        optimizer.step()


@pytest.mark.parametrize(("name", "shape"), MODELS_AND_SHAPES)
def test_a_model_maps_samples_to_latents_and_back(name, shape):
    model = model_of(name, shape)
    z = model.encode(x_of(shape))
    assert z.shape == (32, LATENT_SIZE)
    assert model.decode(z).shape == model.decode_raw(z).shape == (32, *shape)
    assert (model.sample_shape, model.latent_size) == (shape, LATENT_SIZE)


@pytest.mark.parametrize(("name", "shape"), MODELS_AND_SHAPES)
def test_gradients_reach_every_parameter_of_a_model(name, shape):
    # Without ReLU's dead halves, a zero gradient means that a parameter is not used.
    model = model_of(name, shape, activation="gelu", latent_norm="none")
    model.loss(x_of(shape), x_of(shape), TrainParams(loss="bce", l1_latent=0.1)).backward()
    unreached = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum()]
    assert unreached == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), MODELS_AND_SHAPES)
def test_a_model_learns(name, shape):
    model, x = model_of(name, shape), x_of(shape)
    before = model.loss(x, x, MSE)
    step(model, shape, 40)
    assert model.loss(x, x, MSE) < 0.8 * before


@pytest.mark.parametrize("latent_norm", ["batch", "none"])
@pytest.mark.parametrize("output", ["sigmoid", "clamp", "linear"])
@pytest.mark.parametrize(("name", "shape"), MODELS_AND_SHAPES)
def test_a_frozen_model_computes_what_the_trained_one_does_in_evaluation(name, shape, output, latent_norm):
    model = model_of(name, shape, latent_norm=latent_norm, output_activation=output, dropout=0.2)
    step(model, shape, 30)
    model.eval()
    options, state = model.frozen()
    frozen = build_model(name, shape, LATENT_SIZE, options)
    frozen.load_state_dict(state)
    # Nothing of what training needs is left: the frozen model computes the same in either mode.
    x = x_of(shape).flip(0)
    assert not any("running" in key for key in state)
    torch.testing.assert_close(frozen.train().encode(x), model.encode(x), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(frozen.decode(model.encode(x)), model.decode(model.encode(x)), rtol=1e-6, atol=1e-5)
    again, _ = frozen.frozen()
    assert again == options


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("output", ["sigmoid", "clamp"])
def test_decoded_values_are_kept_within_the_pixels_range(name, output):
    z = 100 * torch.randn(64, LATENT_SIZE, generator=torch.Generator().manual_seed(0))
    decoded = model_of(name, (6, 5), output_activation=output).decode(z)
    assert 0 <= decoded.min() < decoded.max() <= 1
    linear = model_of(name, (6, 5), output_activation="linear").decode(z)
    assert linear.min() < 0
    assert linear.max() > 1


@pytest.mark.parametrize("name", MODELS)
def test_dropout_acts_in_training_only(name):
    plain = {"latent_norm": "none", "hidden_norm": "none"}
    model, x = model_of(name, (6, 5), dropout=0.5, **plain), x_of((6, 5))
    model.train()
    assert not torch.equal(model.encode(x), model.encode(x))
    model.eval()
    assert torch.equal(model.encode(x), model.encode(x))
    without = model_of(name, (6, 5), dropout=0.0, **plain)
    torch.testing.assert_close(model.decode(model.encode(x)), without.decode(without.encode(x)))


@pytest.mark.parametrize("name", MODELS)
def test_every_option_of_a_model_is_an_argument_of_its_class(name):
    options = ModelParams.model_validate({"name": name}).options
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        build_model(name, (6, 5), LATENT_SIZE, {**options, "no_such": 1})
    for left_out in options:
        with pytest.raises(TypeError, match=left_out):
            build_model(name, (6, 5), LATENT_SIZE, {key: options[key] for key in options if key != left_out})


# --- metrics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_says_what_it_is_called_and_which_way_is_better(name):
    metric = METRICS[name]
    assert metric.name == name
    assert metric.title
    assert metric.limit == f"{'max' if metric.better == 'lower' else 'min'}_{name}"
    assert sum(bool(made) for made in (metric.of_rows, metric.of_means, metric.of_records)) <= 1
    # Where a sweep reports a metric it is a column of every sweep; one of whole records is of some data alone.
    assert bool(metric.of_kind) == bool(metric.of_records) <= ("sweep" not in metric.reports)
    computed = metric.of_rows or metric.of_means or metric.of_records
    # What all vectors have together, and the SNR of sound, are measured by the benchmark itself.
    by_bench = {"bench"} if metric.of_vectors or name == "snr" else set()
    assert computed or set(metric.reports) <= by_bench, f"{name}: {metric.reports}"


@pytest.mark.parametrize("name", of_rows())
def test_a_metric_gives_one_number_per_row_and_is_best_for_identical_rows(name):
    random = np.random.default_rng(0)
    original = random.random((6, 14, 14)).astype(np.float32)
    decoded = np.clip(original + random.normal(0, 0.2, original.shape), 0, 1).astype(np.float32)
    metric = of_rows()[name]
    kept = original.copy(), decoded.copy()
    perfect, lossy = metric(original=original, decoded=original), metric(original=original, decoded=decoded)
    assert perfect.shape == lossy.shape == (6,)
    assert perfect.dtype == lossy.dtype == np.float64
    assert np.isfinite(perfect).all()
    assert np.isfinite(lossy).all()
    assert (perfect > lossy if METRICS[name].better == "higher" else perfect < lossy).all()
    if name != "bce":  # its least value is the entropy of the row
        np.testing.assert_allclose(perfect, 1.0 if name in ("ssim", "cosine") else 0.0, atol=1e-12)
    np.testing.assert_array_equal((original, decoded), kept)


@pytest.mark.parametrize("name", of_rows())
def test_a_metric_of_a_row_does_not_depend_on_the_others(name):
    random = np.random.default_rng(1)
    original, decoded = random.random((2, 5, 12, 13)).astype(np.float32)
    together = of_rows()[name](original=original, decoded=decoded)
    alone = of_rows()[name](original=original[3:4], decoded=decoded[3:4])
    np.testing.assert_allclose(alone, together[3:4], rtol=1e-6)


@pytest.mark.parametrize("name", of_rows())
def test_a_metric_says_which_array_is_which(name):
    values = np.zeros((1, 12, 12), np.float32)
    with pytest.raises(TypeError, match="positional"):
        of_rows()[name](values, values)


# --- sources --------------------------------------------------------------------------------------------------------


@pytest.fixture
def source_of(tmp_path, request):
    """A function: a source that can be fetched here and now, with its raw folder, filled."""

    def fetched(name):
        raw = tmp_path / name
        raw.mkdir()
        options = {}
        if name == "idx":
            mine = tmp_path / "mine"
            mine.mkdir()
            build_source(SourceParams(name="synthetic")).fetch(mine)
            options = {"idx": {"folder": str(mine)}}
        if name == "files":
            np.savez(
                tmp_path / "mine.npz", pictures=np.arange(720, dtype=np.uint16).reshape(60, 4, 3), label=np.arange(60)
            )
            options = {"files": {"path": str(tmp_path / "mine.npz")}}
        source = build_source(SourceParams.model_validate({"name": name, **options}))
        if name == "mnist":
            return source, request.getfixturevalue("mnist_raw")
        if name == "fashion_mnist":
            pytest.skip("its files are not on this machine; what it shares with mnist is tested there")
        source.fetch(raw)
        return source, raw

    return fetched


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_has_a_train_and_a_test_split_with_ids_of_their_own(name, source_of):
    source, raw = source_of(name)
    splits = source.read(raw)
    assert list(splits) == ["train", "test"]
    train, test = splits["train"], splits["test"]
    assert train.first_id + len(train.pixels) <= test.first_id
    for split in splits.values():
        assert split.pixels.dtype.newbyteorder("=").name in DTYPES
        assert split.pixels.shape[1:] == train.pixels.shape[1:]
        assert "label" in split.attributes
        assert {len(values) for values in split.attributes.values()} == {len(split.pixels)}
    assert source.read(raw)["test"].first_id == test.first_id


@pytest.mark.parametrize("name", SOURCES)
def test_reading_before_fetching_is_an_error_of_the_users_and_fetches_nothing(name, tmp_path):
    with pytest.raises(DataError, match=r"cannot be read: No such file") as caught:
        build_source(SourceParams(name=name)).read(tmp_path)
    assert not isinstance(caught.value, DownloadError)
    assert list(tmp_path.iterdir()) == []


def test_synthetic_pictures_depend_on_the_seed_alone(tmp_path):
    contents = []
    for number, seed in enumerate((3, 3, 4)):
        raw = tmp_path / str(number)
        raw.mkdir()
        options = {"train_rows": 20, "test_rows": 5, "height": 6, "width": 9, "seed": seed}
        build_source(SourceParams.model_validate({"name": "synthetic", "synthetic": options})).fetch(raw)
        contents.append([(raw / name).read_bytes() for name in FILES])
    assert contents[0] == contents[1]
    assert all(one != other for one, other in zip(contents[0], contents[2], strict=True))
    assert [len(content) for content in contents[0]] == [16 + 20 * 54, 8 + 20, 16 + 5 * 54, 8 + 5]
