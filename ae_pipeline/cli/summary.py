"""What people and scripts are told: about a store, a codec, or the whole workspace."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from ae_pipeline.codec.header import CodecHeader
from ae_pipeline.data.shares import GroupsOfSplits, read_groups
from ae_pipeline.errors import StoreError, printable, without_secrets
from ae_pipeline.evaluation.mean_answer import warnings_of
from ae_pipeline.operation.tracking.connection import tracking_uri
from ae_pipeline.operation.tracking.workspace import check_numbers, read_values, read_workspace
from ae_pipeline.params import Params
from ae_pipeline.store.format.manifest import Manifest, kept_snapshots, read_manifest
from ae_pipeline.store.latent_store import LatentStore


def describe_store(store: LatentStore) -> dict[str, Any]:
    """Rows, bytes, codec, provenance and schema of a store. Reads no rows."""
    manifest, header = store.manifest, store.codec_header()
    return {
        "store": store.location,
        "format": manifest.format,
        "snapshot": manifest.snapshot,
        "snapshots": _snapshots(store),
        **_sizes(store),
        "bits_per_row": 8 * manifest.totals.bytes_parts / manifest.totals.rows,
        "bits_per_row_with_codec": 8 * store.nbytes / manifest.totals.rows,
        "parts": len(manifest.parts),
        **({"shards": manifest.shard_count} if manifest.shard_count > len(manifest.parts) else {}),
        **({"segments": len(manifest.segments)} if manifest.segments else {}),
        **({"missing": _missing(manifest)} if manifest.missing else {}),
        "columns": {column.name: column.type for column in manifest.columns},
        **({} if header.max_error is None else {"max_error": header.max_error}),
        **({} if header.restored_max_error is None else {"restored_max_error": header.restored_max_error}),
        "layout": manifest.latent.layout,
        "source": manifest.source.model_dump(),
        "written_by": manifest.written_by,
        "codec": describe_codec(header),
    }


def _sizes(store: LatentStore) -> dict[str, Any]:
    totals, nbytes = store.manifest.totals, store.nbytes
    return {"rows": totals.rows, "bytes_in": totals.bytes_in, "bytes_out": nbytes, "ratio": totals.bytes_in / nbytes}


def _missing(manifest: Manifest) -> dict[str, Any]:
    """Shards that a store was written without."""
    files = [entry.shard.file for entry in manifest.missing]
    return {"shards": len(files), "rows": manifest.missing_rows, "files": files}


def _snapshots(store: LatentStore) -> list[int]:
    """All that can be opened."""
    found = {*kept_snapshots(store.storage), store.manifest.snapshot}
    with suppress(StoreError):  # an earlier snapshot can be open while the newest is damaged
        found.add(read_manifest(store.storage).snapshot)
    return sorted(found)


def describe_codec(header: CodecHeader) -> dict[str, Any]:
    """What a codec is and where it came from, without the quantiser's numbers."""
    return {
        "fingerprint": header.fingerprint,
        "samples": header.spec.describe(),
        "model": header.model.name,
        "latent_size": header.model.latent_size,
        "levels": header.quantiser.levels,
        "options": header.model.options,
        **({"kind": header.kind.name} if header.kind else {}),
        "provenance": header.provenance,
    }


def summarise_workspace(params: Params, root: Path) -> dict[str, Any]:
    """The last `dvc repro` in numbers and places. Raises WorkspaceError if it has not run, or failed."""
    workspace = read_workspace(params, root)
    metrics = workspace.metrics
    round_trip = read_values(workspace.reports / "round_trip.json")
    stores = {}
    for name in params.encode.data_sets:
        store = LatentStore.open(root / params.paths.latents / name)
        check_numbers(workspace.reports / "round_trip.json", round_trip.get(name), ["mse"])
        measured = round_trip[name]
        stores[name] = {**_sizes(store), "mse": measured["mse"], "psnr": measured.get("psnr")}
    groups = read_groups(root / params.paths.prepared)
    return {
        "data_sets": stores,
        **({"groups": groups.model_dump(mode="json")} if groups else {}),
        "codec": workspace.header.fingerprint,
        "codec_bytes": metrics["codec_bytes"],
        "metrics": metrics,
        "warnings": warnings_of(metrics, workspace.header.scaling, "the test split"),
        "store": str(Path(params.paths.latents)),
        "pictures": str(Path(params.paths.reports) / "pictures"),
        "metrics_file": str(Path(params.paths.reports) / "metrics.json"),
        "tracking_uri": without_secrets(tracking_uri(params, root)),
        "mlflow_ui": _mlflow_ui(root),
    }


def _mlflow_ui(root: Path) -> str:
    """The command that shows MLflow's pages: the checkout's Makefile finds its environment; a workspace has none."""
    return "make mlflow-ui" if (root / "Makefile").exists() else "ae-pipeline mlflow-ui"


def format_workspace(found: dict[str, Any]) -> str:
    """The summary as a short table."""
    lines = [f"{'data set':<12}{'rows':>10}{'bytes in':>14}{'bytes out':>14}{'ratio':>8}{'MSE':>10}{'PSNR dB':>9}"]
    for name, row in found["data_sets"].items():
        psnr = "inf" if row["psnr"] is None else f"{row['psnr']:.2f}"
        lines.append(
            f"{name:<12}{row['rows']:>10,}{row['bytes_in']:>14,}{row['bytes_out']:>14,}{row['ratio']:>8.2f}"
            f"{row['mse']:>10.5f}{psnr:>9}"
        )
    metrics = found["metrics"]
    lines.append(
        f"bytes out hold the codec ({found['codec_bytes']:,} bytes) in every store; without it a test row takes "
        f"{metrics['bits_per_row']:.0f} bits (zstd of the raw rows: {metrics['zstd_bits_per_row']:.0f})"
    )
    if "groups" in found:
        lines.append(printable(GroupsOfSplits.model_validate(found["groups"]).describe()))
    if metrics.get("pca_mse") is not None:
        lines.append(
            f"test MSE {metrics['mse']:.5f} at {metrics['bits_per_row']:.0f} bits per row; PCA of the same latent size "
            f"{metrics['pca_mse']:.5f} at {metrics['pca_bits_per_row']:.0f}"
        )
    if metrics.get("r2") is not None:
        snr = "" if metrics["snr"] is None else f", snr {metrics['snr']:.2f} dB"
        lines.append(
            f"answering each value's mean has MSE {metrics['mean_mse']:.6g}, so r2 is {metrics['r2']:.4f}{snr}; "
            f"{metrics['values_worse_than_mean']:,} of {metrics['values_with_variance']:,} values that vary come back "
            "worse than their mean"
        )
    lines += [printable(f"warning: {warning}") for warning in found["warnings"]]
    places = (("stores", "store"), ("pictures", "pictures"), ("metrics", "metrics_file"), ("MLflow UI", "mlflow_ui"))
    return "\n".join([*lines, *(f"{label:<12}{found[key]}" for label, key in places)])


def format_values(values: dict[str, Any], indent: int = 0) -> str:
    """Nested values as aligned lines."""
    width = max((len(key) for key in values), default=0) + 2
    lines = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{' ' * indent}{key}", format_values(value, indent + 2)]
        else:
            lines.append(f"{' ' * indent}{key:<{width}}{_format(value)}")
    return "\n".join(lines)


def _format(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(_format(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
