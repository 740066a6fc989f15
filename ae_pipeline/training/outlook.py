"""What is known before training: settings that cannot work with these samples, and how far off the gate's limits are.

check_fits(params, train.spec)      # ConfigError: not after hours
outlook = look_ahead(train, params)
outlook.describe(); outlook.warnings
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from ae_pipeline.codec.context.options import too_many_rows, why_not
from ae_pipeline.data.pixels import SampleSpec, image_shape
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.value_range import keep_some, range_of, scaled_by
from ae_pipeline.errors import ConfigError
from ae_pipeline.params import LARGEST_PCA, Params
from ae_pipeline.params.options import MODELS

# PCA of this many evenly spaced rows, and this many values of them, is a hint in a fraction of a second.
_ROWS = 2000
_VALUES = 1 << 24
# With fewer rows than this for each component, PCA fits the rows themselves.
_ROWS_PER_COMPONENT = 4
ALL_ALIKE = 1e-14
"""Rows are the same where values in [0, 1] have no larger mean squared difference from their mean: it is rounding."""
# On MNIST an autoencoder has a third of PCA's error at the same latent size.
_OUT_OF_REACH = 5
_NOTHING_TO_LEARN = (
    "the rows of the train split are all the same: there is nothing to learn, and evaluate.gate refuses a codec that "
    "does not give them back as they are; keep one of them, or name other data"
)


@dataclass(frozen=True)
class Outlook:
    """MSE on train rows of two answers that need no training, for values in [0, 1]."""

    mean_mse: float
    """Answering each value's mean."""
    pca_mse: float | None
    """PCA of the same latent size, not quantised; None where there are too few rows."""
    limit: float | None
    """The largest MSE that passes `evaluate.gate`; None: it has no limit."""
    warnings: list[str]

    def describe(self) -> str:
        """One line for people."""
        pca = "" if self.pca_mse is None else f", PCA of the same latent size (not quantised) {self.pca_mse:.6g}"
        limit = "" if self.limit is None else f"; evaluate.gate asks for at most {self.limit:.6g}"
        return f"before training: answering each value's mean has mse {self.mean_mse:.6g}{pca}{limit}"


def check_fits(params: Params, spec: SampleSpec) -> None:
    """Raise one ConfigError with all `misfits`."""
    if problems := list(misfits(params, spec)):
        raise ConfigError("; ".join(problems))


def misfits(params: Params, spec: SampleSpec) -> Iterator[str]:
    """All settings that cannot lead to a codec for such samples that passes the gate."""
    is_table = params.source.options.get("kind") == "table"
    if is_table and params.codec.family != "context":
        yield (
            f"codec.family: {params.codec.family}, but source.files.kind is table, whose values come back within a "
            "bound; set it to context, and encode.layout to stream"
        )
    if params.codec.family == "context":
        if not is_table and (reason := why_not(spec)):
            yield reason
        elif params.encode.layout == "stream" and (reason := too_many_rows(params.encode.row_group_rows, spec.size)):
            yield f"encode.row_group_rows: {reason}"
        if params.train.processes > 1:
            yield f"train.processes: {params.train.processes}, but codec.family: context trains in one; set it to 1"
        return
    if MODELS[params.model.name].for_images:
        try:
            image_shape(spec.shape, params.model.name)
        except ConfigError as error:
            yield str(error)
    if params.model.options.get("linear_path") and spec.size > LARGEST_PCA:
        yield (
            f"model.{params.model.name}.linear_path: true begins as PCA with all components, which rows of more than "
            f"{LARGEST_PCA} values do not get, but samples are {spec.describe()}; set it to false"
        )
    if params.train.arithmetic == "integer" and spec.dtype != "uint8":
        yield f"train.arithmetic: integer is for uint8 samples, found {spec.describe()}; set it to auto"


def size_warnings(params: Params, spec: SampleSpec) -> Iterator[str]:
    """Latents that take more than the samples do, or are as many numbers; those of context codecs always are."""
    if params.codec.family == "context":
        return
    bits = params.train.latent_size * log2(params.quantiser.levels)
    if bits >= 8 * spec.nbytes:
        yield (
            f"train.latent_size {params.train.latent_size} with {params.quantiser.levels} levels is {bits:.0f} bits "
            f"per row, not less than the {8 * spec.nbytes} of the samples ({spec.describe()}); set it lower"
        )
    elif params.train.latent_size >= spec.size:
        yield (
            f"train.latent_size {params.train.latent_size} is not below the {spec.size} values of a row "
            f"({spec.describe()}): set it lower"
        )


def _context_notes(params: Params) -> Iterator[str]:
    """What a codec with a bound for every value is not asked."""
    if params.evaluate.gate.beat_pca:
        yield "evaluate.gate.beat_pca is not asked of codec.family: context, whose latents are all values of a row"


def look_ahead(train: SampleSet, params: Params) -> Outlook:
    """Read the train split once, in constant memory."""
    sampled: list[np.ndarray] = []
    most = max(1, min(_ROWS, _VALUES // train.spec.size))
    blocks = (block.pixels for block in train.all_blocks(2048))
    value_range = range_of(keep_some(blocks, ceil(train.rows / most), sampled), train.rows * train.spec.size)
    offset, scale = scaled_by(train.spec.dtype, value_range)
    rows = np.concatenate(sampled).reshape(-1, train.spec.size).astype(np.float64) / scale
    rows -= rows.mean(axis=0)
    mean_mse = float(np.square(rows).mean())
    size, is_context = params.train.latent_size, params.codec.family == "context"
    enough = len(rows) >= _ROWS_PER_COMPONENT * size and not is_context
    pca_mse = _pca_mse(rows.astype(np.float32), size) if enough else None
    gate = params.evaluate.gate
    limits = [gate.max_mse, None if gate.min_psnr is None else 10 ** (-gate.min_psnr / 10)]
    limit = min((limit for limit in limits if limit is not None), default=None)
    warnings = [
        *value_range.warnings("the train split", offset, scale),
        *(_context_notes(params) if is_context else size_warnings(params, train.spec)),
        *_limit_warnings(limit, mean_mse, pca_mse),
        *([_NOTHING_TO_LEARN] if mean_mse <= ALL_ALIKE and not is_context else []),
    ]
    return Outlook(mean_mse, pca_mse, limit, warnings)


def _limit_warnings(limit: float | None, mean_mse: float, pca_mse: float | None) -> Iterator[str]:
    if limit is None or not mean_mse:
        return
    asked = f"evaluate.gate asks for an mse of at most {limit:.6g}, but"
    if limit >= mean_mse:
        yield (
            f"{asked} answering each value's mean has {mean_mse:.6g}: this limit holds nothing back; set one below that"
        )
    elif pca_mse is not None and limit < pca_mse / _OUT_OF_REACH:
        yield (
            f"{asked} PCA of the same latent size has {pca_mse:.6g}; an autoencoder is seldom below a fifth of that: "
            "raise train.latent_size, or the limit"
        )


def _pca_mse(rows: np.ndarray, size: int) -> float:
    """What the first `size` components leave of centred rows (n, values): the eigenvalues after these."""
    values = rows.shape[1]
    products = rows.T @ rows if values <= len(rows) else rows @ rows.T
    left = np.linalg.eigvalsh(products)[: max(0, len(products) - size)]
    return float(np.maximum(left, 0).sum() / rows.size)
