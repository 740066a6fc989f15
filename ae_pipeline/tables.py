"""CSV tables: the history of a training, and what the pictures show."""

import csv
from pathlib import Path
from typing import Any

from ae_pipeline.files import finished_file


def write_csv(path: Path, lines: list[dict[str, Any]]) -> None:
    """One line per dict; the first one names the columns."""
    with finished_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def read_csv(path: Path) -> list[dict[str, float]]:
    """What write_csv wrote, where every value is a number."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in line.items()} for line in csv.DictReader(file)]
