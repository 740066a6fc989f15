"""Decode every store from itself alone, and compare each row with the original and with the store's own account."""

from pathlib import Path

from ae_pipeline.cli.options import row_progress
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.evaluation.measures.row_errors import round_trip
from ae_pipeline.files import finished_folder, write_json
from ae_pipeline.params import Params
from ae_pipeline.store.executors.engines import kept
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store


def run(params: Params, root: Path) -> None:
    """paths.latents/* -> paths.decoded/*, and, beside paths.prepared/*, round_trip.json in paths.reports"""
    report = {}
    with kept(params.execute), finished_folder(root / params.paths.decoded) as folder:
        for name in params.encode.data_sets:
            store = LatentStore.open(root / params.paths.latents / name)
            with row_progress(f"decode {name}", store.manifest.totals.rows) as progress:
                out, device = folder / name, params.encode.device
                decoded = decode_store(store, out, device=device, progress=progress, execute=params.execute)
            report[name] = round_trip(SampleSet.open(root / params.paths.prepared / name), decoded, store)
            print(f"{name}: {report[name]['rows']:,} rows decoded, mse {report[name]['mse']:.6f}")
    write_json(root / params.paths.reports / "round_trip.json", report)
