"""Sections of params.yaml that no stage depends on; but `evaluate` measures the reference of `drift`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ae_pipeline.params.base import Count, Fraction, Limits, NonNegative, Positive, Section

Names = Annotated[list[str], Field(min_length=1)]
_PCA_SIZES = [2, 4, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256]


ExecutorName = Literal["inline", "threads", "process", "ray", "dask"]
_CLUSTERS = ("ray", "dask")


class ExecuteParams(Section):
    """Where shards are encoded and decoded (docs/scale.md). The bytes are the same wherever that is."""

    name: ExecutorName = "threads"
    workers: Count | None = None
    """Shards that are worked on at a time; null: one for each CPU of this machine or of the cluster (or two that feed
    a GPU)."""
    address: str | None = None
    """Where a Ray or Dask cluster is, as host:port; null: one is started on this machine, for this run."""
    memory: Annotated[float, Field(ge=0.5, allow_inf_nan=False)] | None = None
    """GiB for the data of each worker that is started here (process, ray, dask; on Linux); null: no limit."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a shard is tried again that could not reach a server, or whose worker was lost or had too little memory
    (process, ray, dask)."""

    @property
    def by_processes(self) -> bool:
        """Whether other processes do the work."""
        return self.name not in ("inline", "threads")

    @model_validator(mode="after")
    def _settings_fit_together(self) -> "ExecuteParams":
        if self.name == "inline" and (self.workers or 1) > 1:
            raise ValueError(f"inline has one worker, found workers: {self.workers}; choose threads or process")
        if self.address is not None and self.name not in _CLUSTERS:
            raise ValueError(
                f"address is of a cluster, and {self.name} needs none; leave it out, or choose ray or dask"
            )
        if self.memory is not None and not self.by_processes:
            raise ValueError(
                f"memory is for workers with a process each, found {self.name}; choose process, ray or dask"
            )
        if self.memory is not None and self.address is not None:
            raise ValueError("memory is for workers that are started here; those of a cluster have their own limit")
        return self


class CheckpointParams(Section):
    """How often a training is saved, so that one that was killed goes on (docs/training.md); null: not by that.

    It decides no result: a training that was taken up ends with the same codec.
    """

    minutes: Positive | None = 5.0
    """Minutes after which it is saved, in the middle of an epoch, too."""
    epochs: Count | None = None
    """Epochs after which it is saved."""


class InboxParams(Section):
    """New data that is encoded with the champion, on a schedule."""

    location: str = "data/inbox"
    """Folder, or any fsspec URL (s3://..., memory://...), with Parquet, IDX or image files, in sub-folders too."""
    quarantine: str = "data/quarantine"
    """Local folder that files which cannot be used are moved to (from a URL: copied to), with the reason beside."""
    settle_seconds: NonNegative = 30.0
    """Files that changed less than this ago are left for the next run: somebody may still be writing them.

    Where that time is of no use, as it is in the future, a file is taken when two runs so far apart find it unchanged.
    """


class CompactParams(Section):
    """Small parts of a store that are joined, by `ae-pipeline compact` and by the inbox's flow (docs/operations.md)."""

    parts: Annotated[int, Field(ge=2)] | None = 100
    """After its work, the inbox's flow joins parts of its store as soon as so many can be; null: never."""
    rows: Count = 100_000
    """A joined part has at most so many rows. A part with less than half of these, and of the bytes, is small."""
    megabytes: Positive = 128.0
    """A joined part has about so many megabytes (10**6 bytes) at most."""


class DriftParams(Section):
    """How different incoming rows are from those that a codec was trained on; see evaluation/drift/measure.py."""

    reference_rows: Count = 20_000
    """Rows of the train split that the reference is measured on."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.999
    """Share of undisturbed held-out batches that must stay below the threshold."""


class PromotionParams(Section):
    """When the challenger becomes champion; both are measured on the same held-out rows."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of the interval around the mean paired difference of the rows' MSE."""
    max_mse_increase: Annotated[float, Field(gt=-1, allow_inf_nan=False)] = 0.0
    """Upper end of that interval, relative to the champion's MSE. 0: surely not worse; -0.05: surely 5% better."""
    max_bits_increase: Annotated[float, Field(gt=-1, allow_inf_nan=False)] = 0.02
    """Bits per row, relative to the champion's, codec not included."""
    min_speed: Positive = 0.5
    """Rows per second of encoding and of decoding, relative to the champion's."""
    max_rows: Count = 10_000
    """Held-out rows to compare on, the first of the test split."""


class SweepParams(Limits):
    """What `ae-pipeline sweep` tries, and what is good enough; see sweep/__init__.py."""

    space: Names = ["train.latent_size=12,16,20,24,28,36,48", "quantiser.levels=16"]
    """Parameters and the values to try, PATH=V1,V2,... as in params.yaml; with `trials` also ranges, PATH=LOW..HIGH."""
    seeds: Count = 3
    """Trainings of each setting, with train.seed and the seeds after it; 1 gives no intervals."""
    trials: Count | None = None
    """Settings to try, chosen by Optuna's TPE; null: every combination of the listed values."""
    max_mse: Positive | None = None
    """Tolerance, on the validation split: the smallest codec within it is named."""
    min_psnr: Positive | None = None
    """The tolerance in decibel. A limit on another metric may stand instead (`min_ssim`); one of them at most."""
    margin: Fraction = 0.05
    """A trial is stopped once it is behind by more than this, relative; see experiments/sweep/stopping.py."""

    @model_validator(mode="after")
    def _one_tolerance(self) -> "SweepParams":
        given = [limit.key for limit in self.limits]
        if given == ["max_mse", "min_psnr"]:
            raise ValueError("max_mse and min_psnr say the same thing in two ways; give one of them")
        if len(given) > 1:
            raise ValueError(f"a sweep has one tolerance, found {', '.join(given)}; give one of them")
        if given and given[0].startswith("max_bits"):
            raise ValueError(f"{given[0]} is no tolerance: a sweep looks for the fewest bits; limit an error instead")
        return self


class BenchParams(Section):
    """What `ae-pipeline bench` measures side by side; docs/choosing.md says how."""

    presets: Names | None = None
    """Names of files in ae_pipeline/experiments/presets, without `.yaml`: the codecs that are trained. null: those that
    suit the samples."""
    max_rows: Count = 10_000
    """Rows to measure on, the first of the test split."""
    single_files: Annotated[int, Field(ge=2)] = 500
    """Rows, evenly spaced, that image codecs also encode one file each; their sizes do not depend on each other."""
    image_effort: Literal["fast", "best"] = "best"
    """best: every image codec tries as hard as is reasonable (minutes); fast: a look, unfair to AVIF and JPEG XL."""
    pca_sizes: Annotated[list[Count], Field(min_length=1)] = _PCA_SIZES
    pca_levels: Annotated[list[Annotated[int, Field(ge=2, le=256)]], Field(min_length=1)] = [4, 8, 16, 32, 64, 256]
    """Each is tried with every size; so is one step for all components, which is best for PCA."""
    pq_bits: Annotated[list[Count], Field(min_length=1)] = [64, 128, 256, 512]
    """Bits of vectors in product quantisation: as near to these as whole bytes for pieces of one length allow."""
