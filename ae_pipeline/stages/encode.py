"""Write a latent store for every data set named in params.yaml."""

import shutil
from pathlib import Path

from ae_pipeline.encoding import encode_samples
from ae_pipeline.params import Params
from ae_pipeline.progress import row_progress
from ae_pipeline.provenance import git_state
from ae_pipeline.samples import SampleSet


def run(params: Params, root: Path) -> None:
    """paths.codec, paths.prepared/* -> paths.latents/*"""
    git, work = git_state(root), root / params.paths.work
    for name in params.encode.data_sets:
        samples = SampleSet.open(root / params.paths.prepared / name)
        with row_progress(f"encode {name}", samples.rows) as progress:
            store = encode_samples(
                samples,
                root / params.paths.codec,
                root / params.paths.latents / name,
                params.encode,
                name=f"{params.source.name}/{name}",
                git=git,
                work=work,
                progress=progress,
            )
        totals = store.manifest.totals
        print(f"{name}: {totals.rows:,} rows, {totals.bytes_in:,} bytes to {store.nbytes:,} with the codec")
    shutil.rmtree(work, ignore_errors=True)
