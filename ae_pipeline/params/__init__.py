"""Every knob of the pipeline: one frozen class per section of params.yaml.

To add a knob: a field here and the same name in params.yaml. Its description says unit and meaning.
Options of a model or source stand under its own name (`model.dense.*`), so that switching `model.name` needs no other
edit and changes to an unused model re-run nothing; `class Options` in its own file says which they are (options.py).
Limits on metrics (`max_mse`) are known by the table in evaluation/measures/metrics.py (base.py).
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ae_pipeline.errors import ConfigError
from ae_pipeline.files import read_small
from ae_pipeline.params.base import Count, Limits, NonNegative, Positive, Section, Seed, Size, problems
from ae_pipeline.params.operation import (
    BenchParams,
    CheckpointParams,
    CompactParams,
    DriftParams,
    ExecuteParams,
    InboxParams,
    PromotionParams,
    SweepParams,
)
from ae_pipeline.params.options import ModelParams, SourceParams

# Folders below paths.work that took long to make: `encode`, which clears that, leaves them.
SWEEPS, BENCHMARKS, TRAINING = "sweep", "benchmark", "training"

LARGEST_PCA = 8192
"""Values of a row up to which a linear path begins as PCA: the covariance has as many rows and columns (0.5 GB)."""
MNIST_MAX_MSE = 0.0052
"""evaluate.gate.max_mse as params.yaml comes, which is right for MNIST with the other defaults alone."""

Split = Literal["train", "validation", "test"]
WeightBits = Literal[8, 16]


class Paths(Section):
    """Where each stage writes, relative to the workspace."""

    raw: str = "data/raw"
    prepared: str = "data/prepared"
    codec: str = "data/codec"
    latents: str = "data/latents"
    decoded: str = "data/decoded"
    reports: str = "reports"
    work: str = "data/.work"
    """Unfinished parts of `encode`, checkpoints of `train`, and sweeps; no stage's outputs, which DVC would delete."""
    growing: str = "data/growing"
    """Stores that `encode_new` adds to, one for each champion; nothing of DVC's."""
    tracking: str = "mlruns"
    """Folder of the default MLflow store (SQLite and artifacts); MLFLOW_TRACKING_URI overrides it."""

    @field_validator("*")
    @classmethod
    def _inside_the_workspace(cls, path: str) -> str:
        if not path or Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError("expected a path inside the workspace, which is all that DVC keeps")
        return path


class PrepareParams(Section):
    """Splitting and sharding."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the source's train rows that becomes the validation split."""
    seed: Seed = 0
    rows_per_shard: Count = 10_000


class TrainParams(Section):
    """Fitting the autoencoder."""

    unsaid: ClassVar[dict[str, Any]] = {"memory": None, "processes": 1}
    """Values that `Params.used` leaves out: knobs that were added later, as they were before there were any."""
    latent_size: Size = 28
    loss: Literal["mse", "bce"] = "mse"
    optimizer: Literal["adam", "adamw", "adadelta"] = "adamw"
    learning_rate: Positive = 0.006
    """For tens of thousands of rows and hidden_norm: batch, .02 in batches of 256 is as good in less time; few rows
    make it worse (docs/experiments.md)."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """cosine: up in the first fiftieth of all steps, then down, to a tenth, or to zero with ema: 0."""
    ema: Annotated[float, Field(ge=0, le=1)] = 0.03
    """What is kept and validated are averages of the weights, exponential, over this share of all steps
    (averaging.py); 0: the weights themselves."""
    weight_decay: NonNegative = 0.0
    """L2 penalty (adam, adadelta) or decoupled weight decay (adamw)."""
    l1_latent: NonNegative = 0.0
    """Weight of the mean absolute latent in the loss."""
    rate_weight: NonNegative = 0.0
    """Weight of the quantised latents' bits per row in the loss (rate.py); 0 trains without quantiser and rate. The
    larger, the smaller and coarser: at the optimum one bit less per row costs this much error."""
    rate_code: Literal["shared", "separate"] = "shared"
    """How the bits of rate_weight are counted: by one code for all dimensions, which is how the layouts list and binary
    are compressed, or by one for each, as in the layout coded."""
    neighbour_weight: NonNegative = 0.0
    """Weight, in the loss, of what a search for nearest neighbours loses (models/neighbours.py). For vectors: of the
    size of 0.005 it costs some MSE, and finds more."""
    rate_latents: Literal["noisy", "rounded"] = "noisy"
    """What the decoder gets while it is trained for a rate: latents with noise, or rounded ones, which is better
    where most latents are zero, as those of sound are (rate.py)."""
    noise_std: NonNegative = 0.0
    """Standard deviation of Gaussian noise added to the scaled input; the target stays clean (denoising)."""
    mirror: bool = False
    """Whether every picture is shown mirrored, left to right, half of the time: for few pictures (some thousands) whose
    mirror images could be among them; not for letters or digits."""
    initialisation: Literal["torch", "glorot"] = "torch"
    """torch: weights and biases within 1 / sqrt(fan_in); glorot: Keras's, by both sides of a layer, biases zero."""
    arithmetic: Literal["auto", "float", "integer"] = "auto"
    """What the codec computes in. integer: half the bytes, the same rows on every machine, and faster where the
    processor multiplies bytes; takes a twentieth more epochs (tuning.py). auto: where it is possible: uint8
    samples, activation relu, and identity for latents."""
    weight_bits: WeightBits = 16
    """Bits of a stored weight of a codec that computes in floats: 16, or 8 for half the codec (weights.py)."""
    batch_size: Annotated[int, Field(ge=2, lt=2**31)] = 128
    """Rows of a step; at least 2, for one row has no batch statistics."""
    epochs: Count = 45
    patience: Annotated[int, Field(ge=0)] = 10
    """Epochs without a better validation loss before training stops; 0 never stops early."""
    seed: Seed = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    autocast: Literal["auto", True, False] = "auto"
    """bfloat16 autocast; auto: where it is faster and as good, by measurement at the start (precision.py)."""
    compile: bool = False
    """torch.compile; can take minutes to start."""
    data: Literal["auto", "memory", "stream"] = "auto"
    """Whether rows are in the device's memory or streamed from Parquet in each epoch; auto: in memory if they fit."""
    memory: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """GiB for rows: more are streamed with auto, and the shuffle buffer of streamed rows takes as much (streaming.py).
    null: 0.4 of what is free on the device, and a buffer of 1 GiB."""
    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes of this machine that train together, each on its share of every batch; of GPUs, one for each."""


class CodecParams(Section):
    """Which family the codec is of."""

    family: Literal["autoencoder", "context"] = "autoencoder"
    """autoencoder: few latents for each row, with an error that is measured; context: every value within max_error,
    for grey pictures of uint8 (codec/context), and tables (codec/tables)."""
    max_error: Annotated[int, Field(ge=0, le=127)] = 0
    """For family context: no value comes back further away, in the samples' units. 0: every value as it was. Bounds of
    tables are in source.files.settings."""


class QuantiserParams(Section):
    """How latents become integers."""

    levels: Annotated[int, Field(ge=2, le=256)] = 16
    """Values of each integer; with train.rate_weight the most there may be: steps are learned, levels follow."""


class EncodeParams(Section):
    """Writing latent stores."""

    data_sets: Annotated[list[Split], Field(min_length=1)] = ["train", "validation", "test"]
    """Splits to encode, each into a store of its own."""
    layout: Literal["list", "binary", "packed", "coded", "stream"] = "list"
    """list: opens as arrays everywhere; binary: faster, opens as bytes; packed: as binary, compressed harder, for rows
    with many zeros; coded: fewest bits of many rows, opens here only; stream: of context codecs alone, opens here."""
    row_group_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """The format allows no more (`store/format/manifest.py`)."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    @field_validator("data_sets")
    @classmethod
    def _named_once(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("a data set is named twice")
        return names


class GateParams(Limits):
    """What a codec must reach on the test split, in any metric; null switches a condition off.

    Whatever is asked for, a codec that is not better than answering each value's mean fails (mean_answer.py).
    """

    max_mse: Positive | None = None
    min_psnr: Positive | None = None
    """Decibel."""
    max_bits_per_row: Positive | None = None
    beat_pca: bool = True
    """Lower MSE than PCA of the same latent size, quantiser and file layout."""


class EvaluateParams(Section):
    """Measuring the codec on held-out rows."""

    gate: GateParams = GateParams()
    seed: Seed = 0
    """Chooses the random rows of the pictures."""


class TrackingParams(Section):
    """Names in MLflow."""

    experiment: str = "ae-pipeline"
    registered_model: str | None = None
    """null: the source's name with `-ae`, e.g. mnist-ae."""


class Params(Section):
    """The whole of params.yaml."""

    paths: Paths = Paths()
    source: SourceParams = SourceParams()
    prepare: PrepareParams = PrepareParams()
    model: ModelParams = ModelParams()
    train: TrainParams = TrainParams()
    checkpoint: CheckpointParams = CheckpointParams()
    quantiser: QuantiserParams = QuantiserParams()
    codec: CodecParams = CodecParams()
    encode: EncodeParams = EncodeParams()
    execute: ExecuteParams = ExecuteParams()
    evaluate: EvaluateParams = EvaluateParams()
    tracking: TrackingParams = TrackingParams()
    inbox: InboxParams = InboxParams()
    compact: CompactParams = CompactParams()
    drift: DriftParams = DriftParams()
    promotion: PromotionParams = PromotionParams()
    sweep: SweepParams = SweepParams()
    bench: BenchParams = BenchParams()

    @property
    def may_be_integer(self) -> bool:
        """Whether the network is one that integers can compute."""
        options = self.model.options
        one_way = not options.get("linear_path")
        return one_way and (options.get("activation"), options.get("latent_activation", "identity")) == (
            "relu",
            "identity",
        )

    @model_validator(mode="after")
    def _values_fit_together(self) -> "Params":
        if self.train.arithmetic == "integer" and not self.may_be_integer:
            name, options = self.model.name, self.model.options
            keys = ("activation", "latent_activation", *(["linear_path"] if options.get("linear_path") else []))
            found = [str(options[key]).lower() for key in keys if key in options]
            path = ", without linear_path" if options.get("linear_path") else ""
            raise ValueError(
                f"train.arithmetic: integer needs model.{name}.activation: relu and latent_activation: identity{path}, "
                f"found {', '.join(found)}; change these, or set it to auto or float"
            )
        output = self.model.options.get("output_activation")
        if self.train.loss == "bce" and output != "sigmoid":
            raise ValueError(
                f"train.loss: bce needs model.{self.model.name}.output_activation: sigmoid, found {output}"
            )
        if self.encode.layout == "stream" and self.codec.family != "context":
            raise ValueError(
                f"encode.layout: stream needs codec.family: context, found {self.codec.family}; change this, or set "
                "the layout to binary"
            )
        return self

    @property
    def registered_model(self) -> str:
        """Name of the registered model in MLflow."""
        return self.tracking.registered_model or f"{self.source.name.replace('_', '-')}-ae"

    def used(self, *sections: str) -> dict[str, Any]:
        """What decided a result, flat, under the names of params.yaml: no paths, checkpoints, executor, unused models.

        `sections` restricts it, e.g. to those that a codec depends on.
        """
        undecided = {"paths", "checkpoint", "execute", "tracking", "inbox", "compact", "promotion", "sweep", "bench"}
        tree = self.model_dump(exclude=undecided)
        for section in ("source", "model"):
            name = tree[section]["name"]
            tree[section] = {"name": name, name: tree[section][name]}
        for name, value in TrainParams.unsaid.items():
            if tree["train"][name] == value:
                del tree["train"][name]
        return flattened({name: values for name, values in tree.items() if not sections or name in sections})


def load_params(path: Path) -> Params:
    """Read and check params.yaml; raise one ConfigError that lists every problem."""
    try:
        text = read_small(path).decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"no {path} here; run this in the folder that holds it, or name it: a command by --params FILE, a flow by "
            "--workspace FOLDER"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    try:
        # The parser that DVC uses, so that both read the same values (YAML 1.2: 1e-3 is a number).
        values = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2001-99-99
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections such as `train:`, found {type(values).__name__}")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        found = "; ".join(problems(error, Params))
        raise ConfigError(f"{path}: {error.error_count()} problem(s): {found}") from None


def flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their dotted path, of sections within sections."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
