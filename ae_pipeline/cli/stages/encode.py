"""Write a latent store for every data set named in params.yaml.

DVC removes what a stage that was stopped had written of its outputs. So the stores are made in the work folder and get
their place together, by one rename: those that are finished are not lost while the next one is made.
"""

from contextlib import suppress
from pathlib import Path

from ae_pipeline.cli.options import row_progress
from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import warn
from ae_pipeline.files import clear_folder, make_folder, refuse_existing, rename_folder, require_one_file_system
from ae_pipeline.params import BENCHMARKS, SWEEPS, TRAINING, Params
from ae_pipeline.provenance import git_state
from ae_pipeline.store.executors.engines import kept
from ae_pipeline.store.writing.encoding import encode_samples, finished_or_removed


def run(params: Params, root: Path) -> None:
    """paths.codec, paths.prepared/* -> paths.latents/*"""
    work, latents = root / params.paths.work, root / params.paths.latents
    stores = work / "stores"
    refuse_existing(latents)
    make_folder(latents.parent)
    make_folder(stores)
    require_one_file_system(stores, latents.parent)
    clear_folder(stores, keep=params.encode.data_sets)
    with kept(params.execute):
        _encode_all(params, root, stores)
    rename_folder(stores, latents)
    clear_folder(work, keep=[SWEEPS, BENCHMARKS, TRAINING])
    with suppress(OSError):  # not empty
        work.rmdir()


def _encode_all(params: Params, root: Path, stores: Path) -> None:
    git, codec, work = git_state(root), root / params.paths.codec, root / params.paths.work
    for name in params.encode.data_sets:
        samples = SampleSet.open(root / params.paths.prepared / name)
        store = finished_or_removed(stores / name, samples, codec, params.encode)
        watch = samples.watch_range(read_header(codec).scaling)
        with row_progress(f"encode {name}", samples.rows) as progress:
            called = f"{params.source.name}/{name}"
            if store:
                progress(samples.rows)
            else:
                store = encode_samples(
                    samples,
                    codec,
                    stores / name,
                    params.encode,
                    name=called,
                    git=git,
                    work=work,
                    progress=progress,
                    execute=params.execute,
                )
        totals = store.manifest.totals
        print(f"{name}: {totals.rows:,} rows, {totals.bytes_in:,} bytes to {store.nbytes:,} with the codec")
        warn(watch.warnings(name))
