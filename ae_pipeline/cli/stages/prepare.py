"""Turn the source's files into canonical Parquet shards, split into train, validation and test."""

from pathlib import Path

from ae_pipeline.data.shares import far_from_share, read_groups
from ae_pipeline.data.splits import write_splits
from ae_pipeline.data.value_range import scaled_by
from ae_pipeline.errors import warn
from ae_pipeline.files import finished_folder
from ae_pipeline.params import Params
from ae_pipeline.sources import build_source


def run(params: Params, root: Path) -> None:
    """paths.raw -> paths.prepared/{train,validation,test}"""
    splits = build_source(params.source).read(root / params.paths.raw)
    ranges = {}
    with finished_folder(root / params.paths.prepared) as folder:
        for name, samples in write_splits(splits, folder, params.prepare).items():
            print(f"{name}: {samples.rows:,} rows of {samples.spec.describe()} in {len(samples.files)} file(s)")
            ranges[name] = samples.measure_range()
            print(f"{name}: {ranges[name].describe()}")
    if groups := read_groups(root / params.paths.prepared):
        print(groups.describe())
        share = groups.share("validation", ("train", "validation"))
        warn(far_from_share("validation", share, params.prepare.validation_fraction, "prepare.validation_fraction"))
    # A codec will be scaled by the train split, and measured on the others in that scale.
    dtype = splits["train"].pixels.dtype.newbyteorder("=").name
    for name, found in ranges.items():
        warn(found.warnings(name, *scaled_by(dtype, ranges["train"])))
        if splits["train"].pixels.dtype.kind == "f":
            warn(found.far_outside(name, ranges["train"]))
