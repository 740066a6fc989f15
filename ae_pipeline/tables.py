"""CSV tables: the history of a training, and what the pictures show."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ae_pipeline.errors import WorkspaceError, first_line
from ae_pipeline.files import finished_file, read_small

HISTORY = ("epoch", "train_loss", "validation_loss", "learning_rate")
"""Columns of a training's history."""


def write_csv(path: Path, lines: list[dict[str, Any]]) -> None:
    """One line per dict; the first one names the columns."""
    with finished_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, float]]:
    """What write_csv wrote: these columns, and perhaps others, and every value a number. Raises WorkspaceError."""
    try:
        text = io.StringIO(read_small(path).decode("utf-8"), newline="")
        lines = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(text)]
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing; run `dvc repro` first") from None
    except (ValueError, TypeError, csv.Error) as error:  # TypeError: more or fewer values than columns
        raise WorkspaceError(f"{path} is not a table of numbers: {first_line(error)}; run `dvc repro` again") from None
    if not lines:
        raise WorkspaceError(f"{path} holds no lines, expected at least one; run `dvc repro` again")
    missing = [name for name in columns if name not in lines[0]]
    if missing:
        raise WorkspaceError(f"{path} has no column {', '.join(missing)}; run `dvc repro` again")
    return lines
