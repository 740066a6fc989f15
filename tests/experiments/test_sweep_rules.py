"""The arithmetic of a sweep: intervals, front, knee, tolerance, and when a trial is stopped."""

import pytest

from ae_pipeline.errors import ConfigError
from ae_pipeline.experiments.sweep.report import verdict
from ae_pipeline.experiments.sweep.results import as_json, estimate, knee, summarise
from ae_pipeline.experiments.sweep.space import combinations, parse_space
from ae_pipeline.experiments.sweep.stopping import StopRule
from ae_pipeline.experiments.sweep.trial import StopTrial, Trial
from ae_pipeline.params import Params
from ae_pipeline.params.base import replaced

SIZE, LEVELS, RATE, L1 = "train.latent_size", "quantiser.levels", "train.learning_rate", "train.l1_latent"


def finished(setting, bits, mse, losses=(0.1, 0.05, 0.04, 0.04), seed=0):
    metrics = {"bits_per_row": bits, "mse": mse, "psnr": 0.0}
    history = {"validation_loss": list(losses)}
    return Trial(setting, seed, "finished", len(losses), 1.0, metrics, history)


def reason(setting, losses, known, *, margin=0.05, max_mse=None, **train):
    params = Params.model_validate({"train": {"epochs": 4, **train}})
    try:
        StopRule(margin, max_mse).check(params, setting, losses, known)
    except StopTrial as stopped:
        found = stopped
    else:
        return None
    assert found.behind in [trial.setting for trial in known]
    return str(found)


def test_a_trial_at_its_last_epoch_is_measured_whatever_it_has_lost():
    known = [finished({SIZE: 8}, 60, 0.01, losses=(0.1, 0.05, 0.02, 0.01))]
    assert reason({SIZE: 9}, [0.5, 0.5, 0.5], known) is not None
    assert reason({SIZE: 9}, [0.5, 0.5, 0.5, 0.5], known) is None


def test_the_interval_is_students():
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # t(0.975, 2) from a table, s = 1
    assert estimate([1.0]).half is None


def test_the_knee_of_a_hyperbola_is_where_its_slope_is_that_of_the_diagonal():
    bits = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 9.0]
    assert bits[knee(bits, [1 / value for value in bits])] == 3.0  # sqrt(1 * 9)


@pytest.mark.parametrize(
    "mse", [[3.0, 2.0, 1.0], [3.0, 2.9, 1.0], [3.0, 1.0]], ids=["straight", "concave", "two points"]
)
def test_a_curve_without_a_bend_has_no_knee(mse):
    assert knee([1.0, 2.0, 3.0][: len(mse)], mse) is None


def test_front_and_tolerance_go_by_the_means_over_seeds():
    trials = [
        finished({SIZE: 4}, 40, 0.08, seed=0),
        finished({SIZE: 4}, 42, 0.10, seed=1),
        finished({SIZE: 8}, 60, 0.048, seed=0),
        finished({SIZE: 8}, 60, 0.050, seed=1),
        finished({SIZE: 16}, 90, 0.049, seed=0),  # no better than 8
        finished({SIZE: 32}, 120, 0.04, seed=0),
    ]
    results = summarise(trials, 0.05)
    assert [item.setting[SIZE] for item in results.front] == [4, 8, 32]
    assert (results.smallest.setting, results.knee.setting, results.best.setting) == ({SIZE: 8}, {SIZE: 8}, {SIZE: 32})
    assert results.chosen is results.smallest
    written = as_json(results)
    assert written["settings"][0]["mse"] == pytest.approx(0.09)
    assert [item["on_front"] for item in written["settings"]] == [True, True, False, True]
    assert summarise(trials, 0.0485).smallest.setting == {SIZE: 32}  # 8 has one seed below, and a mean above
    assert summarise(trials, 0.001).chosen is None
    assert summarise(trials, None).chosen.setting == {SIZE: 8}


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_a_setting_of_which_a_seed_did_not_finish_is_not_chosen(state):
    unlucky = Trial({SIZE: 4}, 1, state, 4, 1.0, {}, {"validation_loss": [1.0]}, "why")
    results = summarise([finished({SIZE: 4}, 40, 0.01), unlucky, finished({SIZE: 8}, 60, 0.02)], 0.05)
    assert results.smallest.setting == {SIZE: 8}


def test_nothing_is_stopped_in_the_first_half_or_before_a_trial_has_finished():
    known = [finished({SIZE: 4, RATE: 0.1}, 40, 0.04), finished({SIZE: 8, RATE: 0.1}, 60, 0.04)]
    hopeless = {SIZE: 8, RATE: 0.001}
    assert reason(hopeless, [9.0, 9.0], known) is None
    assert reason(hopeless, [9.0, 9.0, 9.0], []) is None
    assert "behind latent_size=4, learning_rate=0.1 after epoch 3" in reason(hopeless, [9.0, 9.0, 9.0], known)


def test_the_margin_is_one_of_the_latents_bits_not_of_ids_and_footers():
    """On a small split the rest takes most of a row: 5% of all bits would be a whole latent."""
    known = [finished({SIZE: size}, 1000 + bits, 0.04) for size, bits in ((4, 40), (8, 60))]
    for trial in known:
        trial.metrics["latent_bits_per_row"] = trial.bits - 1000
    known.append(finished({SIZE: 4, RATE: 0.1}, 1040, 0.06))
    assert reason({SIZE: 4, RATE: 0.2}, [9.0, 9.0, 0.055], [known[1], known[2]]) is None
    known[1].metrics["latent_bits_per_row"] = known[1].bits
    assert "behind latent_size=8" in reason({SIZE: 4, RATE: 0.2}, [9.0, 9.0, 0.055], [known[1], known[2]])


def test_the_gain_that_others_made_late_and_the_margin_are_granted():
    known = [finished({SIZE: 8}, 60, 0.08, losses=[0.2, 0.15, 0.10, 0.05])]  # halved in the last epoch
    assert reason({SIZE: 16}, [1.0, 0.5, 0.168], known) is None  # .168 / 2 * .95 = .0798
    assert "0.080750 at best" in reason({SIZE: 16}, [1.0, 0.5, 0.17], known)


def test_a_setting_that_may_take_fewer_bits_is_not_stopped():
    known = [finished({SIZE: 8, LEVELS: 16}, 60, 0.04)]
    worse = [9.0, 9.0, 9.0]
    assert reason({SIZE: 4, LEVELS: 16}, worse, known) is None
    assert reason({SIZE: 16, LEVELS: 8}, worse, known) is None
    assert reason({SIZE: 8, LEVELS: 32}, worse, known)
    # What an activation does to the bits is not known.
    path = "model.dense.latent_activation"
    assert reason({SIZE: 8, path: "relu"}, worse, [finished({SIZE: 8, path: "identity"}, 60, 0.04)]) is None
    # More bits by less than the margin are no reason to go on.
    known = [finished({SIZE: 8, RATE: 0.1}, 60, 0.04), finished({SIZE: 8, RATE: 0.001}, 58, 0.3)]
    assert reason({SIZE: 8, RATE: 0.001}, worse, known)
    assert reason({SIZE: 8, RATE: 0.001}, worse, known, margin=0.01) is None


def test_bad_luck_with_a_seed_stops_nothing():
    known = [finished({SIZE: 4}, 40, 0.06), finished({SIZE: 8}, 60, 0.05)]
    assert reason({SIZE: 8}, [9.0, 9.0, 9.0], known) is None
    assert reason({SIZE: 8}, [9.0, 9.0, 9.0], [known[0], finished({SIZE: 8}, 60, 0.07)])


def test_with_a_tolerance_what_misses_it_is_stopped_once_another_meets_it():
    worse = [0.2, 0.2, 0.2]
    known = [finished({SIZE: 8}, 60, 0.05)]
    assert reason({SIZE: 4}, worse, known) is None
    assert reason({SIZE: 4}, worse, known, max_mse=0.04) is None
    assert "not within the tolerance after epoch 3" in reason({SIZE: 4}, worse, known, max_mse=0.06)
    assert reason({SIZE: 4}, [0.2, 0.2, 0.06], known, max_mse=0.06) is None


@pytest.mark.parametrize("train", [{"loss": "bce"}, {"l1_latent": 0.1}], ids=["bce", "L1"])
def test_a_loss_that_says_little_about_the_mse_stops_nothing(train):
    assert reason({SIZE: 16}, [9.0, 9.0, 9.0], [finished({SIZE: 8}, 60, 0.04)], max_mse=0.05, **train) is None


def test_values_are_read_as_in_params_yaml_and_combined_in_order():
    words = ["train.latent_size=8, 16", "model.dense.hidden_sizes=[],[64, 32]", "train.loss=mse"]
    space = parse_space(words, Params(), None)
    settings = combinations(space)
    assert [list(setting.values()) for setting in settings] == [
        [8, [], "mse"], [8, [64, 32], "mse"], [16, [], "mse"], [16, [64, 32], "mse"],
    ]  # fmt: skip
    assert replaced(Params(), settings[1]).model.dense.hidden_sizes == [64, 32]


def test_options_of_another_model_may_be_swept_with_its_name():
    words = ["model.name=dense,conv", "model.conv.channels=[8],[16]"]
    assert len(combinations(parse_space(words, Params(), None))) == 4
    with pytest.raises(ConfigError, match="has no effect"):
        parse_space(words[1:], Params(), None)


def test_with_a_rate_term_a_trial_is_measured_by_its_own_trade_off():
    known = [finished({"train.rate_weight": 1e-4, SIZE: 8}, 100, 0.01)]  # .02 at a weight of 1e-4, .06 at 5e-4
    worse = [0.05, 0.05, 0.05]
    assert "behind rate_weight=0.0001" in reason({"train.rate_weight": 1e-4, SIZE: 4}, worse, known, rate_weight=1e-4)
    assert reason({"train.rate_weight": 5e-4, SIZE: 4}, worse, known, rate_weight=5e-4) is None


def test_what_is_not_better_than_the_mean_is_never_chosen():
    """However small its MSE: all settings are within the tolerance, and one knows something of the rows."""

    def trial(size, r2):
        metrics = {"bits_per_row": 10.0 * size, "mse": 1e-9 / size, "psnr": 90.0, "mean_mse": 1e-9, "r2": r2}
        return Trial({"train.latent_size": size}, 0, "finished", 1, 1.0, {**metrics, "values_with_variance": 4})

    trials = [trial(1, -0.1), trial(2, 0.0), trial(4, 0.5)]
    chosen = summarise(trials, 0.01).chosen
    assert chosen.setting == {"train.latent_size": 4}
    none = summarise(trials[:2], 0.01)
    assert (none.chosen, none.passed_over.setting) == (None, {"train.latent_size": 1})
    assert "not better than answering each value's mean" in verdict(none)[-1]
    assert "latent_size=1" in verdict(none)[-1]
    former = Trial({"train.latent_size": 8}, 0, "finished", 1, 1.0, {"bits_per_row": 1.0, "mse": 1e-9})
    assert summarise([former], 0.01).chosen.setting == {"train.latent_size": 8}
