"""What a flow run leaves in Prefect for people: tables, pictures, links. Only small things; data stays on disk."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from ae_pipeline.errors import without_secrets
from flows.dvc_tasks import StageRun

# Where MLflow's pages are, for links; `ae-pipeline serve` sets it.
MLFLOW_PAGES = "AE_MLFLOW_URL"
# A picture goes into Prefect's database; anything larger belongs to MLflow.
_LARGEST_PICTURE = 2 << 20


def stages_table(runs: Sequence[StageRun], key: str = "rebuild-stages") -> None:
    """Stages with outcome and duration."""
    rows = [{"stage": run.stage, "outcome": run.outcome, "seconds": round(run.seconds, 1)} for run in runs]
    create_table_artifact(rows, key=key, description="Stages in dvc.yaml's order")


def metrics_table(before: dict[str, Any], now: dict[str, Any], key: str = "rebuild-metrics") -> None:
    """Metrics of this run against those of the last one."""
    rows = []
    for name, value in now.items():
        last = before.get(name)
        change = value - last if _is_number(value) and _is_number(last) else None
        rows.append({"metric": name, "now": value, "last run": last, "change": change})
    rows_table(rows, key, "reports/metrics.json, now and before this run")


def values_table(values: dict[str, Any], key: str, description: str) -> None:
    """Names and values."""
    rows_table([{"name": name, "value": value} for name, value in values.items()], key, description)


def rows_table(rows: list[dict[str, Any]], key: str, description: str) -> None:
    """A table whose columns are the keys of its rows."""
    create_table_artifact([{name: _short(value) for name, value in row.items()} for row in rows], key, description)


def markdown(text: str, key: str, description: str) -> None:
    """A text for people."""
    create_markdown_artifact(text, key=key, description=description)


def picture(path: Path, key: str, description: str) -> None:
    """A PNG file, embedded: it is still there when the file is not."""
    if path.exists() and path.stat().st_size <= _LARGEST_PICTURE:
        content = base64.b64encode(path.read_bytes()).decode()
        create_image_artifact(f"data:image/png;base64,{content}", key=key, description=description)


def run_link(uri: str, experiment_id: str, run_id: str) -> str:
    """Markdown: a link to an MLflow run where its pages are known, else what to open."""
    pages = _pages(uri)
    if pages is None:
        return f"MLflow run `{run_id}` in `{without_secrets(uri)}` (`make mlflow-ui` shows it)"
    return f"[MLflow run {run_id[:8]}]({pages}/#/experiments/{experiment_id}/runs/{run_id})"


def model_link(uri: str, name: str, version: str) -> str:
    """Markdown: a link to a registered model version."""
    pages = _pages(uri)
    text = f"{name} version {version}"
    return f"[{text}]({pages}/#/models/{name}/versions/{version})" if pages else text


def _pages(uri: str) -> str | None:
    """The address of MLflow's pages, as it may be shown."""
    pages = os.environ.get(MLFLOW_PAGES) or (uri if uri.startswith("http") else None)
    return without_secrets(pages).rstrip("/") if pages else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return "-" if value is None else value
