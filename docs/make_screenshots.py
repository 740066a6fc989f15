"""Make the pictures of docs/operations.md again, from the tools' real pages in headless Chromium.

    python docs/make_screenshots.py [--out docs/images] [--chromium chromium]

A copy of this checkout trains two small codecs through the deployments of prefect.yaml, promotes them, encodes batches
and finds one that has drifted. It takes some minutes. MNIST is used if AE_DATA_MIRROR is set, else synthetic images.
Everything that is started is ended, also after a failure; the copy and both servers' data are then deleted.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
import numpy as np
from PIL import Image
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from clone import Clone  # noqa: E402
from prefect_server import PrefectServer, free_port, until  # noqa: E402

from ae_pipeline.data.samples import SampleSet, ShardWriter  # noqa: E402

QUIET = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GOMP_SPINCOUNT": "1000",
    "PREFECT_CLI_PROMPT": "false",
}
OPERATION = {
    "inbox": {"settle_seconds": 0.0},
    # The second training is larger on purpose.
    "promotion": {"max_bits_increase": 1.0, "min_speed": 0.01},
}
MNIST = {
    "source": {"name": "mnist"},
    "prepare": {"rows_per_shard": 10000},
    "model": {"dense": {"hidden_sizes": [128]}},
    "train": {"latent_size": 16, "epochs": 8, "batch_size": 256},
}
SECOND = {"model": {"dense": {"hidden_sizes": [256]}}, "train": {"latent_size": 24, "epochs": 12}}
SECOND_SYNTHETIC = {"model": {"dense": {"hidden_sizes": [96]}}, "train": {"latent_size": 8, "epochs": 20}}
BATCH_ROWS = 500
# Larger pictures get a palette.
LARGEST_BYTES = 300_000
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip


@dataclass
class Camera:
    """Takes a page as it is after so many milliseconds of its own time."""

    chromium: str
    out: Path

    def prefect(self, name: str, url: str, *, height: int = 900) -> None:
        """A page of Prefect."""
        self._take(name, url, 30_000, (1600, height), 1600)

    def mlflow(self, name: str, url: str, *, height: int = 1000) -> None:
        """Charts take their time. The panel on the right, for a chat with a language model, is cut off."""
        self._take(
            name, f"{url}{'&' if '?' in url else '?'}workflowType=machine_learning", 90_000, (2000, height), 1580
        )

    def _take(self, name: str, url: str, budget: int, window: tuple[int, int], keep_width: int) -> None:
        target = self.out / f"{name}.png"
        target.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as profile:
            command = [self.chromium, *FLAGS, f"--user-data-dir={profile}", f"--virtual-time-budget={budget}"]
            command += [f"--window-size={window[0]},{window[1]}", f"--screenshot={target}", url]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if not target.exists():
            raise SystemExit(f"no picture of {url}: {done.stderr.strip()[-500:]}")
        shrink(target, keep_width)
        print(f"{target}  {target.stat().st_size // 1024} kB  {url}", flush=True)


def shrink(path: Path, width: int) -> None:
    """Keep the left part; write it again, small."""
    with Image.open(path) as opened:
        image = opened.convert("RGB").crop((0, 0, width, opened.height))
    image.save(path, optimize=True)
    if path.stat().st_size > LARGEST_BYTES:
        image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)


class Workplace:
    """The copy of the checkout, and the servers over it."""

    def __init__(self, folder: Path, process: subprocess.Popen[str], view: PrefectServer, clone: Clone, pages: str):
        self.folder, self.clone, self.mlflow_pages = folder, clone, pages
        self._process, self._view = process, view
        self.prefect_pages = view.api.removesuffix("/api")
        uri = f"sqlite:///{folder}/mlruns/mlflow.db"
        self._environment = {**QUIET, **view.environment}
        self.client = mlflow.MlflowClient(uri, uri)

    def run(self, deployment: str) -> Any:
        """Start a deployment as a person would, and wait for the end of its run."""
        before = {run.id for run in self._view.runs()}
        self.clone.run(sys.executable, "-m", "prefect", "deployment", "run", deployment, **self._environment)

        def ended() -> list[Any]:
            if self._process.poll() is not None:
                raise SystemExit("`ae-pipeline serve` ended by itself")
            return [run for run in self._view.runs() if run.id not in before and run.state.is_final()]

        until(ended, 900)
        (run,) = ended()
        print(f"{deployment}: {run.state.name}: {(run.state.message or '')[:150]}", flush=True)
        return run

    def artifact(self, run: Any, key: str) -> str:
        """Address of the page of an artifact."""
        return f"{self.prefect_pages}/artifacts/artifact/{self._view.artifacts(run)[key].id}"

    def switch_schedules_on(self) -> None:
        """For the picture of the deployments, when everything else is done."""
        with self._view.client() as api:
            for deployment in api.read_deployments():
                for schedule in deployment.schedules:
                    api.update_deployment_schedule(deployment.id, schedule.id, active=True)

    @property
    def test_split(self) -> SampleSet:
        """Held-out rows."""
        return SampleSet.open(self.folder / "data/prepared/test")

    def deliver(self, name: str, pixels: np.ndarray, first_id: int) -> None:
        """Put a Parquet file with these rows into the inbox."""
        test = self.test_split
        attributes = test.load().attributes.slice(0, len(pixels))
        ids = np.arange(first_id, first_id + len(pixels))
        inbox = self.folder / "data/inbox"
        inbox.mkdir(parents=True, exist_ok=True)
        with ShardWriter(inbox / name, test.attributes_schema, test.spec) as writer:
            writer.write(
                attributes.set_column(0, attributes.schema.field(0), [ids]),  # type: ignore[list-item]
                np.ascontiguousarray(pixels),
            )


@contextmanager
def serving(folder: Path) -> Iterator[Workplace]:
    """`ae-pipeline serve` in a copy of the checkout, on free ports, with schedules that do not fire."""
    copy = folder / "ae-pipeline"
    copy.mkdir()
    clone = Clone(copy)
    clone.change(OPERATION)
    if os.environ.get("AE_DATA_MIRROR"):
        clone.change(MNIST)
    yaml = YAML()
    tree = yaml.load(copy / "prefect.yaml")
    for deployment in tree["deployments"]:
        for schedule in deployment["schedules"]:
            schedule["active"] = False
    yaml.dump(tree, copy / "prefect.yaml")
    ports = [free_port(), free_port()]
    view = PrefectServer(folder / "prefect")
    view.api = f"http://127.0.0.1:{ports[0]}/api"
    view.environment["PREFECT_API_URL"] = view.api
    # Set, they would lead to servers that others use.
    kept = {name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")}
    process = subprocess.Popen(
        [
            *[sys.executable, "-m", "ae_pipeline", "serve"],
            "--prefect-port",
            str(ports[0]),
            "--mlflow-port",
            str(ports[1]),
        ],
        cwd=copy,
        env={**kept, **QUIET, "PREFECT_HOME": str(folder / "prefect")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("Ctrl-C"):
            if not line:
                raise SystemExit("`ae-pipeline serve` did not start")
        yield Workplace(copy, process, view, clone, f"http://127.0.0.1:{ports[1]}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=180)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder for the pictures")
    parser.add_argument("--chromium", default="chromium", help="Chromium or Chrome")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    camera = Camera(arguments.chromium, arguments.out.resolve())
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="screenshots-") as folder, serving(Path(folder)) as place:
        take_all(camera, place)
    print(f"{time.monotonic() - started:.0f} s")


def take_all(camera: Camera, place: Workplace) -> None:
    """Run everything, and take each page when it shows something."""
    prefect, pages = place.prefect_pages, place.mlflow_pages
    mnist = bool(os.environ.get("AE_DATA_MIRROR"))
    model = "mnist-ae" if mnist else "synthetic-ae"
    place.run("rebuild/nightly")
    place.run("evaluate_and_promote/weekly")
    place.clone.change(SECOND if mnist else SECOND_SYNTHETIC)
    rebuilt = place.run("rebuild/nightly")
    camera.prefect("prefect-rebuild", f"{prefect}/runs/flow-run/{rebuilt.id}")
    camera.prefect("prefect-metrics", place.artifact(rebuilt, "rebuild-metrics"))
    camera.prefect("prefect-reconstructions", place.artifact(rebuilt, "rebuild-reconstructions"))
    camera.mlflow("mlflow-model", f"{pages}/#/models/{model}")
    experiment = place.client.get_experiment_by_name("ae-pipeline").experiment_id
    newer, older = place.client.search_runs([experiment])[:2]
    runs = f"runs={as_query([older.info.run_id, newer.info.run_id])}&experiments={as_query([experiment])}"
    camera.mlflow("mlflow-compare", f"{pages}/#/compare-runs?{runs}", height=1300)
    losses = f"metric={as_query('validation_loss')}&plot_metric_keys={as_query(['train_loss', 'validation_loss'])}"
    options = "plot_layout={}&x_axis=step&y_axis_scale=linear&line_smoothness=1&show_point=true&deselected_curves=[]"
    camera.mlflow(
        "mlflow-curves", f"{pages}/#/metric?{runs}&{losses}&{options}&last_linear_y_axis_range=[]", height=800
    )

    promoted = place.run("evaluate_and_promote/weekly")
    camera.prefect("prefect-verdict", place.artifact(promoted, "promotion-verdict"), height=960)

    pixels = np.random.default_rng(0).permutation(place.test_split.load().pixels)
    rows = min(BATCH_ROWS, len(pixels) // 4)
    for number in range(4):
        batch = pixels[number * rows :][:rows]
        place.deliver(f"batch-{number + 1}.parquet", batch if number < 3 else 255 - batch, 100_000 * (number + 1))
        if number == 0:
            (place.folder / "data/inbox/not-a-batch.parquet").write_bytes(b"<html>404 not found</html>")
        encoded = place.run("encode_new/every-15-minutes")
        if number == 0:
            camera.prefect("prefect-quarantine", place.artifact(encoded, "encode-new-quarantine"), height=760)
    monitored = place.run("monitor/hourly")
    camera.prefect("prefect-drift", place.artifact(monitored, "drift-picture"), height=430)
    series = place.client.get_experiment_by_name("ae-pipeline-monitor").experiment_id
    (run,) = place.client.search_runs([series])
    camera.mlflow("mlflow-monitor", f"{pages}/#/experiments/{series}/runs/{run.info.run_id}/model-metrics")

    place.switch_schedules_on()
    time.sleep(5)
    camera.prefect("prefect-deployments", f"{prefect}/deployments", height=540)
    camera.prefect("prefect-runs", f"{prefect}/runs", height=1150)


def as_query(value: Any) -> str:
    """JSON in an address."""
    return quote(json.dumps(value))


if __name__ == "__main__":
    main()
