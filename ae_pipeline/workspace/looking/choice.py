"""The settings that suit a person's data: what `init` writes into params.yaml, and why.

The preset is the one of middle quality that takes the fewest bits for these rows, its codec counted. How many those are
is not known before a training; they are taken for a share of PCA's at the same weight of the rate (klt.py).
"""

from dataclasses import dataclass, field, replace
from math import floor, log, log2
from typing import Any

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.experiments.presets import ICON_SHAPE, ICONS, TILES, icon_settings, preset_values, suiting
from ae_pipeline.params import LARGEST_PCA, Params, flattened
from ae_pipeline.params.base import replaced
from ae_pipeline.workspace.looking.klt import Klt
from ae_pipeline.workspace.looking.outlook import Speed, codec_bytes


@dataclass(frozen=True)
class Way:
    """A preset, perhaps changed, and what it took beside PCA at the same `train.rate_weight`.

    That was measured on MNIST, textures, emoji, embeddings of texts and speech, as if with tens of thousands of rows
    (docs/choosing.md has the rule).
    """

    preset: str
    bits: float
    """Its bits, as a share of PCA's."""
    mse: float
    """Its mean squared error, as a share of PCA's."""
    changes: dict[str, Any] = field(default_factory=dict)
    words: str = ""
    """What the changes are, after the preset's name."""


# Ways of middle quality, by kind: the small codec first.
_MIDDLE = {
    "image": (Way("compact_balanced", 0.37, 0.74), Way("balanced", 0.30, 0.74)),
    "vector": (
        Way("vector", 0.95, 0.74, {"model.dense.hidden_sizes": []}, " without hidden layer"),
        Way("vector", 0.90, 0.74),
    ),
    ICONS: (Way("icons", 0.63, 0.70),),
    TILES: (Way("tiles", 0.22, 0.60),),
    "audio": (Way("sound", 0.81, 1.19),),
}
_FOR = {"tiles": "for pictures in tiles", "icons": "for small pictures in colour"}
# For each e-th part of these rows, this share of PCA's error is added: with 1,200 pictures of MNIST the error was 1.36
# times PCA's, with 500 vectors 1.45 times.
_MANY_ROWS, _LOST_BY_FEW = 20_000, 0.22
# Values of the rows that the presets for images were tuned on, and how far others may be from that.
_TUNED_VALUES, _TUNED_WITHIN = 784, 2.0
# Values have nothing in common where PCA takes more than this share of what they take one by one: as in noise.
_IN_COMMON = 0.95
# Latents of an autoencoder for each component that takes bits in PCA: on MNIST, at two qualities, 22 of 105, 36 of 184.
_LATENTS_PER_COMPONENT, _LEAST_LATENTS = 0.2, 4
TRAINED = 0.81
"""The share of all rows that is trained on: a tenth is held out for the test, and a tenth of the rest to validate."""
# 20,000 vectors: 700 steps end at 395 bits, 3,200 at 231, with the sum that is made small a fifth smaller.
_LEAST_STEPS, _LEAST_BATCH = 5000, 16
_MOST_TRAINING_SECONDS, _LEAST_EPOCHS, _EPOCHS_STEP = 300, 3, 5
# PCA must be expected to have so many times the error before a gate asks for less than its.
_SURELY = 1.3
_NETWORK = ("model.", "train.", "quantiser.", "encode.")


@dataclass(frozen=True)
class Choice:
    """Settings by their paths in params.yaml, but for those of the source."""

    settings: dict[str, Any]
    way: Way | None = None
    reasons: tuple[str, ...] = ()

    @property
    def preset(self) -> str | None:
        """The preset that the settings are made of; None for a kind without one."""
        return self.way.preset if self.way else None

    @property
    def params(self) -> Params:
        """All settings, those that are not chosen at their defaults."""
        return replaced(Params(), self.settings)


@dataclass(frozen=True)
class Expected:
    """What a codec will probably take, and leave."""

    bits: float
    """A row, without the codec."""
    mse: float
    codec_bytes: int


def choose(kind: str, spec: SampleSpec | None, rows: int, klt: Klt | None) -> Choice:
    """The settings for rows of a kind; without `spec` their shape is not known, and without `klt` there are too few."""
    ways = _ways(kind, spec)
    if not ways:
        return _plain(kind, spec)
    found = [_adapted(way, spec, klt) for way in ways]
    chosen, why = found[0], _FOR.get(ways[0].preset, f"for the kind `{kind}`")
    if spec is not None and klt is not None and len(found) > 1:
        totals = [_total_bits(choice, spec, rows, klt) for choice in found]
        chosen = found[totals.index(min(totals))]
        others = ", ".join(
            f"`{choice.way.preset}`{choice.way.words}" for choice in found if choice.way and choice is not chosen
        )
        why = f"smaller than {others} for {rows:,} rows, codec counted"
    assert chosen.way is not None
    reason = f"preset `{chosen.preset}`{chosen.way.words}: {why}"
    chosen = replace(chosen, reasons=(reason, *chosen.reasons))
    return _with_gate(_with_steps(chosen, rows), kind, spec, rows, klt)


def of_columns(choice: Choice) -> Choice:
    """A choice for columns of numbers that are taken together: nobody searches them for neighbours.

    On three columns the loss of neighbours kept a training from ever becoming better than PCA, which it began as.
    """
    settings = {**choice.settings, "train.neighbour_weight": 0.0}
    reason = "train.neighbour_weight 0: columns of numbers are not searched for nearest neighbours"
    return replace(choice, settings=settings, reasons=(*choice.reasons, reason))


def expected(choice: Choice, spec: SampleSpec, rows: int, klt: Klt) -> Expected:
    """See the module: a guess, as good as the data are like those that the shares were measured on."""
    params = choice.params
    linear = klt.at(params.train.rate_weight)
    assert choice.way is not None
    bits, mse = choice.way.bits, choice.way.mse
    if linear.bits > _IN_COMMON * klt.alone_at(params.train.rate_weight):
        bits = 1.0
    mse += _LOST_BY_FEW * max(0.0, log(_MANY_ROWS / max(rows, 1)))
    found = mse * linear.mse
    if choice.way in _MIDDLE["image"] and not _is_tuned_for(spec):
        # On 10,000 tiles of textures the error was not below that of PCA with as many latents.
        found = max(found, klt.without_rate(params.train.latent_size))
    return Expected(bits * linear.bits, found, codec_bytes(params, spec, max(1, linear.components)))


def within_minutes(choice: Choice, speed: Speed, rows: int) -> Choice:
    """Fewer epochs where the preset's would take more than five minutes."""
    epochs = choice.params.train.epochs
    able = floor(_MOST_TRAINING_SECONDS / max(speed.seconds(rows, 1), 1e-9))
    if able >= epochs:
        return choice
    fewer = max(_LEAST_EPOCHS, able // _EPOCHS_STEP * _EPOCHS_STEP if able > 2 * _EPOCHS_STEP else able)
    if fewer >= epochs:
        return choice
    reason = f"train.epochs {fewer} of the preset's {epochs}: about five minutes here; more make it a little better"
    return replace(choice, settings={**choice.settings, "train.epochs": fewer}, reasons=(*choice.reasons, reason))


def _plain(kind: str, spec: SampleSpec | None) -> Choice:
    """A network that takes rows of any shape, where params.yaml has one for pictures."""
    settings = {path: value for path, value in flattened(Params().model_dump()).items() if path.startswith(_NETWORK)}
    if spec is not None:
        settings["train.latent_size"] = max(1, min(settings["train.latent_size"], spec.size - 1))
    return Choice(settings, None, (f"the kind `{kind}` has no preset: a plain network",))


def _ways(kind: str, spec: SampleSpec | None) -> list[Way]:
    """The ways of middle quality that take such rows; where none of them does, the first preset that suits."""
    wanted = _MIDDLE.get(kind, ())
    if spec is None or not wanted:
        return list(wanted)
    if kind == "image" and len(spec.shape) == len(ICON_SHAPE) and not _is_tuned_for(spec):
        icons = _MIDDLE[ICONS][0]
        if spec.shape == ICON_SHAPE:
            return [icons]
        changes = icon_settings(spec.shape)
        return [replace(icons, changes=changes, words=f" for {' x '.join(map(str, spec.shape))}")]
    able = suiting(spec.shape, kind)
    return [way for way in wanted if way.preset in able] or [Way(able[0], 1.0, 1.0)]


def _adapted(way: Way, spec: SampleSpec | None, klt: Klt | None) -> Choice:
    """A preset, with what must be otherwise for rows that are not like those that it was tuned on."""
    settings = preset_values(way.preset) | way.changes
    reasons = []
    latents = settings["train.latent_size"]
    if spec is None:
        return Choice(settings, way)
    ratio = spec.size / _TUNED_VALUES
    if way in _MIDDLE["image"] and not _is_tuned_for(spec):
        # One bit is worth the same squared error of a row, of which the MSE is the mean over its values.
        settings["train.rate_weight"] = float(f"{settings['train.rate_weight'] / ratio:.2g}")
        reasons.append(
            f"train.rate_weight {settings['train.rate_weight']:g}: the preset's, for rows of {spec.size} values"
        )
        if klt is not None:
            worth = klt.at(settings["train.rate_weight"]).components
            settings["train.latent_size"] = max(_LEAST_LATENTS, round(_LATENTS_PER_COMPONENT * worth))
            reasons.append(f"train.latent_size {settings['train.latent_size']}: PCA would use {worth} component(s)")
    if settings["train.latent_size"] > max(1, spec.size - 1) and latents != spec.size:
        settings["train.latent_size"] = max(1, spec.size - 1)
        reasons.append(f"train.latent_size {settings['train.latent_size']}: rows have {spec.size} value(s)")
    if settings.get("model.dense.linear_path") and spec.size > LARGEST_PCA:
        settings["model.dense.linear_path"] = False
        reasons.append(f"model.dense.linear_path false: it begins as PCA, of at most {LARGEST_PCA} values")
    return Choice(settings, way, tuple(reasons))


def _is_tuned_for(spec: SampleSpec) -> bool:
    """Whether rows have about as many values as those that the presets for images were tuned on."""
    return 1 / _TUNED_WITHIN <= spec.size / _TUNED_VALUES <= _TUNED_WITHIN


def _total_bits(choice: Choice, spec: SampleSpec, rows: int, klt: Klt) -> float:
    found = expected(choice, spec, rows, klt)
    return found.bits + 8 * found.codec_bytes / max(1, rows)


def _with_steps(choice: Choice, rows: int) -> Choice:
    """Smaller batches for few rows: a training of some hundred steps comes to nothing."""
    train = choice.params.train
    batch = train.batch_size
    wanted = 2 ** int(log2(max(1.0, TRAINED * rows * train.epochs / _LEAST_STEPS)))
    smaller = max(_LEAST_BATCH, min(batch, wanted))
    if smaller >= batch:
        return choice
    reason = f"train.batch_size {smaller} of the preset's {batch}: {rows:,} rows would make too few steps"
    settings = {**choice.settings, "train.batch_size": smaller}
    return replace(choice, settings=settings, reasons=(*choice.reasons, reason))


def _with_gate(choice: Choice, kind: str, spec: SampleSpec | None, rows: int, klt: Klt | None) -> Choice:
    """Whether PCA of the same latent size is to be beaten: where a codec trained for few bits should."""
    beaten, why = kind == "image", "PCA of as many latents has less error, in many more bits"
    if beaten and klt is not None and spec is not None:
        params = choice.params
        if klt.without_rate(params.train.latent_size) < _SURELY * expected(choice, spec, rows, klt).mse:
            beaten, why = False, "PCA of as many latents has less error here, in many more bits"
    elif beaten:
        beaten, why = False, "there are too few rows to tell"
    settings = {**choice.settings, "evaluate.gate.beat_pca": beaten, "evaluate.gate.max_mse": None}
    reason = "gate: better than PCA of the same latent size" if beaten else f"gate: beat_pca false: {why}"
    return replace(choice, settings=settings, reasons=(*choice.reasons, reason))
