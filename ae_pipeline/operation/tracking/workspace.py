"""What the stages left in the workspace, read for `publish` and for the summary. Files only."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ae_pipeline.codec.header import CodecHeader, read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import WorkspaceError, first_line
from ae_pipeline.evaluation.drift.reference import REFERENCE_NAME, read_reference
from ae_pipeline.files import HISTORY, read_csv, read_small, sha256_file, sha256_json
from ae_pipeline.operation.tracking.dvc_lock import check_shape, check_whole, read_stages
from ae_pipeline.params import Params

_EXAMPLE_ROWS = 3
_ROUND_TRIP = "round_trip.json"


@dataclass(frozen=True)
class Workspace:
    """Results of the last `dvc repro`."""

    params: Params
    root: Path
    stages: dict[str, Any]
    """The stages of dvc.lock."""
    header: CodecHeader
    metrics: dict[str, Any]
    history: list[dict[str, float]]

    @property
    def prepared(self) -> Path:
        """Folder of the splits."""
        return self.root / self.params.paths.prepared

    @property
    def reports(self) -> Path:
        """Folder of metrics, tables and pictures."""
        return self.root / self.params.paths.reports

    @cached_property
    def training(self) -> str:
        """Identity of the training: SHA-256 (hex) of what DVC knows went into it and came out."""
        train = self.stages["train"]
        return sha256_json({key: train.get(key) for key in ("deps", "params", "outs")})

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that is published."""
        files = [[str(path.relative_to(self.root)), sha256_file(path)] for path, _ in self.files()]
        return sha256_json([self.training, self.metrics, files])

    @property
    def dvc_digests(self) -> dict[str, str]:
        """DVC's digest of the prepared data and of the codec."""
        paths = (self.params.paths.prepared, self.params.paths.codec)
        digests = {Path(path).name: _md5(self.stages, "train", path) for path in paths}
        return {name: digest for name, digest in digests.items() if digest}

    @cached_property
    def data_digests(self) -> dict[str, str]:
        """Digest of each split, as in provenance and manifests. Raises WorkspaceError if they are not `prepare`'s."""
        check_whole(self.stages, self.root, [self.params.paths.prepared])
        return {split: SampleSet.open(self.prepared / split).digest for split in ("train", "validation", "test")}

    def files(self) -> Iterator[tuple[Path, str | None]]:
        """What is attached to the run, with the folder it goes to; the codec comes with the model."""
        for folder in ("pictures", "tables"):
            yield from ((path, folder) for path in sorted((self.reports / folder).glob("*.*")))
        names = ("metrics.json", "history.csv", _ROUND_TRIP, REFERENCE_NAME)
        yield from ((self.reports / name, None) for name in names if (self.reports / name).exists())

    def describe(self) -> str:
        """The result in a sentence or two, for the run's page."""
        metrics = self.metrics
        sentences = [
            f"Test MSE {metrics['mse']:.5f} at {metrics['bits_per_row']:.0f} bits per row.",
            f"zstd of the raw rows takes {metrics['zstd_bits_per_row']:.0f}.",
        ]
        if metrics.get("pca_mse") is not None:
            sentences.append(f"PCA: MSE {metrics['pca_mse']:.5f} at {metrics['pca_bits_per_row']:.0f}.")
        return " ".join(sentences)

    def input_example(self) -> np.ndarray:
        """A few test rows, (n, *shape)."""
        test = SampleSet.open(self.prepared / "test")
        return next(test.blocks(test.shards[0], _EXAMPLE_ROWS)).pixels.copy()


def read_workspace(params: Params, root: Path) -> Workspace:
    """Read what the stages left.

    Raises WorkspaceError if they have not run, or not all of them for the same codec, or if what they made was changed
    since; DataError or CodecError for a report of theirs that cannot be read.
    """
    reports = root / params.paths.reports
    stages = read_stages(root)
    metrics = read_values(reports / "metrics.json")
    check_numbers(reports / "metrics.json", metrics, ("mse", "bits_per_row", "zstd_bits_per_row", "codec_bytes"))
    history = read_csv(reports / "history.csv", HISTORY)
    _check_of_one_piece(stages, params)
    # A stage that outlived its DVC, or anybody else, may have written over what the last run made.
    made = ("history.csv", "metrics.json", "tables", "pictures", REFERENCE_NAME, _ROUND_TRIP)
    check_whole(stages, root, [params.paths.codec, *(f"{params.paths.reports}/{name}" for name in made)])
    check_shape(stages, root, [params.paths.latents])
    header = read_header(root / params.paths.codec)
    # Others will read them once they are published: the summary, and `monitor` in production.
    if (reports / _ROUND_TRIP).exists():
        read_values(reports / _ROUND_TRIP)
    if (reports / REFERENCE_NAME).exists():
        read_reference(reports / REFERENCE_NAME, header.fingerprint)
    return Workspace(params, root, stages, header, metrics, history)


def check_prepared(params: Params, root: Path) -> None:
    """Raise WorkspaceError if the splits are not those that `prepare` made, byte for byte; if there is a dvc.lock."""
    if (root / "dvc.lock").exists():
        check_whole(read_stages(root), root, [params.paths.prepared])


def read_values(path: Path) -> dict[str, Any]:
    """A JSON object that a stage wrote. Raises WorkspaceError."""
    try:
        values = json.loads(read_small(path))
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing; run `dvc repro` first") from None
    except (ValueError, RecursionError) as error:
        raise WorkspaceError(f"{path} is not readable JSON: {first_line(error)}; run `dvc repro` again") from None
    if not isinstance(values, dict):
        raise WorkspaceError(f"{path} holds a {type(values).__name__}, expected an object; run `dvc repro` again")
    return values


def check_numbers(path: Path, values: Any, names: Iterable[str]) -> None:
    """Raise WorkspaceError unless these values of a file are there, and numbers."""
    for name in names:
        found = values.get(name) if isinstance(values, dict) else None
        if not isinstance(found, int | float):
            what = f"lacks {name}" if found is None else f"has {found!r} as {name}"
            raise WorkspaceError(f"{path} {what}, expected a number; run `dvc repro` again")


def _check_of_one_piece(stages: dict[str, Any], params: Params) -> None:
    """A stage that failed leaves the results of an earlier run behind: codec, metrics and stores of different runs."""
    codec, latents = params.paths.codec, params.paths.latents
    hand_overs = (("train", codec, "evaluate"), ("train", codec, "encode"), ("encode", latents, "decode"))
    for maker, path, reader in hand_overs:
        if reader not in stages or _md5(stages, reader, path) != _md5(stages, maker, path):
            raise WorkspaceError(
                f"stage `{reader}` has not succeeded since {path} was made (dvc.lock), so the results on disk come "
                "from different runs; run `dvc repro` and see why it stops"
            )
    now = params.model_dump(mode="json")
    for stage, entry in stages.items():
        used = entry.get("params", {}).get("params.yaml", {}) if stage != "publish" else {}
        for name, value in used.items():
            if _value(now, name) != value:
                raise WorkspaceError(
                    f"params.yaml has another {name} than stage `{stage}` ran with; run `dvc repro` first"
                )


def _md5(stages: dict[str, Any], stage: str, path: str) -> str | None:
    """DVC's digest of a path as a stage made or read it."""
    entry = stages.get(stage, {})
    used = (*entry.get("outs", []), *entry.get("deps", []))
    return next((item["md5"] for item in used if item["path"] == path), None)


def _value(tree: Any, name: str) -> Any:
    for key in name.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
