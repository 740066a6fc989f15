"""Turn the source's files into canonical Parquet shards, split into train, validation and test."""

from pathlib import Path

from ae_pipeline.files import finished_folder
from ae_pipeline.params import Params
from ae_pipeline.preparation import write_splits
from ae_pipeline.sources import build_source


def run(params: Params, root: Path) -> None:
    """paths.raw -> paths.prepared/{train,validation,test}"""
    splits = build_source(params.source).read(root / params.paths.raw)
    with finished_folder(root / params.paths.prepared) as folder:
        for name, samples in write_splits(splits, folder, params.prepare).items():
            print(f"{name}: {samples.rows:,} rows of {samples.spec.describe()} in {len(samples.files)} shards")
