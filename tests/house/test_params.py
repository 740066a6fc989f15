"""params.py: params.yaml and the defaults agree, and every mistake is reported at once."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from ae_pipeline.errors import ConfigError
from ae_pipeline.params import Params, load_params

ROOT = Path(__file__).resolve().parents[2]


def load_text(folder: Path, text: str) -> Params:
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return load_params(folder / "params.yaml")


def problems_of(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_repositorys_params_yaml_says_every_knob_and_is_read_as_it_stands():
    written = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    assert load_params(ROOT / "params.yaml").model_dump() == written


def test_an_empty_section_list_gives_the_defaults(tmp_path):
    assert load_text(tmp_path, "{}") == Params()


def test_one_error_lists_every_problem(tmp_path):
    text = """
        speed: fast
        train: {epochs: 3.5, learning_rate: 0, optimiser: adam, autocast: "yes"}
        quantiser: {levels: 257}
        model: {name: vae, dense: {hidden_sizes: [64, 0]}}
        source: {synthetic: {height: 3}}
        prepare: {validation_fraction: 1.0, seed: -1}
    """
    message = problems_of(tmp_path, text)
    assert "11 problem(s)" in message
    for place in (
        "speed: unknown key (known: paths, source, prepare",
        "train.optimiser: unknown key (known: latent_size,",
        "train.epochs: ",
        "train.learning_rate: ",
        "train.autocast: ",
        "quantiser.levels: Input should be less than or equal to 256, found 257",
        "model.name: Input should be 'dense', 'conv', 'conv1d', 'grid' or 'patches', found 'vae'",
        "model.dense.hidden_sizes.1: ",
        "source.synthetic.height: ",
        "prepare.validation_fraction: ",
        "prepare.seed: ",
    ):
        assert place in message


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("train: {epochs: '3'}", "train.epochs"),
        ("train: {epochs: 3.0}", "train.epochs"),
        ("train: {epochs: true}", "train.epochs"),
        ("train: {epochs: 0}", "train.epochs"),
        ("train: {batch_size: 1}", "train.batch_size"),
        ("train: {learning_rate: .nan}", "train.learning_rate"),
        ("train: {learning_rate: .inf}", "train.learning_rate"),
        ("train: {noise_std: -0.1}", "train.noise_std"),
        ("train: {loss: mae}", "train.loss"),
        ("train: {patience: -1}", "train.patience"),
        ("train: {seed: 4294967296}", "train.seed"),
        ("train:", "train"),
        ("prepare: {validation_fraction: 0}", "prepare.validation_fraction"),
        ("model: {conv: {channels: []}}", "model.conv.channels"),
        ("model: {dense: {dropout: 1.0}}", "model.dense.dropout"),
        ("model: {dense: {channels: [8]}}", "model.dense.channels"),
        ("source: {mnist: {folder: x}}", "source.mnist.folder"),
        ("evaluate: {gate: {max_mse: 0}}", "evaluate.gate.max_mse"),
        ("evaluate: {gate: {max_ms: 1}}", "evaluate.gate.max_ms"),
        ("encode: {data_sets: []}", "encode.data_sets"),
        ("quantiser: {levels: 1}", "quantiser.levels"),
        ("1: 2", "1"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_place(tmp_path, text, place):
    message = problems_of(tmp_path, text)
    assert f"1 problem(s): {place}: " in message


def test_binary_cross_entropy_needs_a_sigmoid_at_the_output_of_the_chosen_model(tmp_path):
    message = problems_of(tmp_path, "{train: {loss: bce}, model: {dense: {output_activation: linear}}}")
    assert "train.loss: bce needs model.dense.output_activation: sigmoid, found linear" in message
    other = load_text(tmp_path, "{train: {loss: bce}, model: {conv: {output_activation: linear}}}")
    assert other.train.loss == "bce"


def test_scientific_notation_is_a_number_with_and_without_a_point(tmp_path):
    params = load_text(tmp_path, "train: {learning_rate: 1e-3, weight_decay: 1.0e-4}")
    assert (params.train.learning_rate, params.train.weight_decay) == (0.001, 0.0001)


@pytest.mark.parametrize(
    "text",
    [
        "train: [",
        "a: b: c",
        "train: {epochs: 1}\ntrain: {epochs: 2}",
        "train: !!python/object/apply:os.system [ls]",
        "train: {seed: 2001-99-99}",
        "[" * 1000,
    ],
    ids=["open bracket", "two colons", "a key twice", "python object", "impossible date", "bottomless"],
)
def test_invalid_yaml_is_said_to_be(tmp_path, text):
    assert f"{tmp_path / 'params.yaml'} is not valid YAML: " in problems_of(tmp_path, text)


@pytest.mark.parametrize(("text", "found"), [("", "NoneType"), ("- 1", "list"), ("hello", "str")])
def test_a_file_without_sections_is_refused(tmp_path, text, found):
    assert f"expected sections such as `train:`, found {found}" in problems_of(tmp_path, text)


def test_a_missing_or_unreadable_file_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"no .*nowhere\.yaml here; run this in the folder that holds it"):
        load_params(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        load_params(tmp_path)
    (tmp_path / "params.yaml").write_bytes(b"train: {loss: \xff\xfe}")
    with pytest.raises(ConfigError, match="cannot read"):
        load_params(tmp_path / "params.yaml")


def test_used_leaves_out_paths_tracking_and_unused_models_and_sources():
    chosen = {
        "model": {"name": "conv", "conv": {"channels": [4, 8]}},
        "source": {"name": "synthetic", "synthetic": {"train_rows": 70}},
        "evaluate": {"gate": {"max_mse": 0.25}},
    }
    params = Params.model_validate(chosen)
    used = params.used()
    assert used["model.name"] == "conv"
    assert used["model.conv.channels"] == [4, 8]
    assert used["source.synthetic.train_rows"] == 70
    assert used["evaluate.gate.max_mse"] == 0.25
    assert {key.split(".")[0] for key in params.used("model", "train")} == {"model", "train"}
    wrong = ("paths.", "tracking.", "model.dense.", "source.idx.", "source.mnist.")
    assert not [key for key in used if key.startswith(wrong)]


def test_a_change_to_an_unused_model_changes_nothing_that_is_used():
    changed = Params.model_validate({"model": {"conv": {"channels": [8]}}})
    assert changed.used() == Params().used()


def test_options_are_those_of_the_chosen_name():
    params = Params.model_validate({"model": {"name": "conv", "conv": {"channels": [4]}}})
    assert params.model.options["channels"] == [4]
    assert Params.model_validate({"source": {"name": "idx", "idx": {"folder": "x"}}}).source.options == {"folder": "x"}


def test_the_registered_model_is_named_after_the_source_unless_told():
    assert Params.model_validate({"source": {"name": "fashion_mnist"}}).registered_model == "fashion-mnist-ae"
    assert Params.model_validate({"tracking": {"registered_model": "mine"}}).registered_model == "mine"


def test_params_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Params().train.epochs = 5
