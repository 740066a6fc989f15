"""The section of params.yaml that `ae-pipeline bench` reads. No stage of dvc.yaml depends on it."""

from typing import Annotated, Literal

from pydantic import Field

from ae_pipeline.params.base import Count, Section


class BenchParams(Section):
    """What is measured side by side; docs/choosing.md says how."""

    presets: Annotated[list[str], Field(min_length=1)] = [
        "small",
        "balanced",
        "fine",
        "compact",
        "compact_balanced",
        "compact_fine",
    ]
    """Names of files in ae_pipeline/experiments/presets, without `.yaml`: the codecs that are trained."""
    max_rows: Count = 10_000
    """Rows to measure on, the first of the test split."""
    single_files: Annotated[int, Field(ge=2)] = 500
    """Rows, evenly spaced, that image codecs also encode one file each; their sizes do not depend on each other."""
    image_effort: Literal["fast", "best"] = "best"
    """best: every image codec tries as hard as is reasonable (minutes); fast: a look, unfair to AVIF and JPEG XL."""
    pca_sizes: Annotated[list[Count], Field(min_length=1)] = [
        2,
        4,
        8,
        16,
        24,
        32,
        48,
        64,
        80,
        96,
        112,
        128,
        160,
        192,
        256,
    ]
    pca_levels: Annotated[list[Annotated[int, Field(ge=2, le=256)]], Field(min_length=1)] = [4, 8, 16, 32, 64, 256]
    """Each is tried with every size; so is one step for all components, which is best for PCA."""
