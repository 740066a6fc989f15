"""Splits by groups: which groups of records together make a share of all, where no group is divided."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ae_pipeline.data.json_types import JsonModel, Size
from ae_pipeline.errors import DataError, first_line

GROUPS_NAME = "groups.json"
# A share is told to be far from the one asked for where it is off by more than this part of it.
_FAR = 0.5


class Counted(JsonModel):
    """What a split has."""

    groups: Size
    records: int


class GroupsOfSplits(JsonModel):
    """`groups.json` beside the prepared splits: what makes the groups, and what each split has."""

    by: str
    splits: dict[str, Counted]

    def share(self, split: str, of: Sequence[str]) -> float:
        """The part of the records of some splits that one of them has."""
        return self.splits[split].records / sum(self.splits[name].records for name in of)

    def describe(self) -> str:
        """One line for people."""
        found = (
            f"{name} {counted.groups:,} group{'s' * (counted.groups != 1)} ({self.share(name, [*self.splits]):.1%})"
            for name, counted in self.splits.items()
        )
        return f"split by `{self.by}`: {', '.join(found)} of the records"


def read_groups(prepared: Path) -> GroupsOfSplits | None:
    """What `prepare` wrote of groups; None where records were drawn by themselves. Raises DataError."""
    path = prepared / GROUPS_NAME
    if not path.exists():
        return None
    try:
        return GroupsOfSplits.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {first_line(error)}", place=path, advice="run `dvc repro prepare`") from None


def nearest_share(sizes: Sequence[int] | np.ndarray, share: float, left: int) -> np.ndarray:
    """(groups,) Whether each is taken, so that about `share` of all records are; `sizes` (groups,) are their records.

    Groups are asked in the order given. One is taken if the records that are taken come nearer to the share by it, so
    that in the end no other group brings them nearer. At least one group is taken, and `left` of them are not.
    """
    counts = np.asarray(sizes, np.int64)
    taken, found, wanted = np.zeros(len(counts), bool), 0, share * counts.sum()
    for number, size in enumerate(counts):
        if abs(found + size - wanted) < abs(found - wanted):
            taken[number] = True
            found += size
    while not taken.any() or (~taken).sum() < left:
        smallest = np.where(taken == taken.any(), counts, counts.max() + 1).argmin()
        taken[smallest] = not taken.any()
    return taken


def far_from_share(split: str, found: float, wanted: float, setting: str) -> list[str]:
    """A warning where a split has another share of the records than was asked for, because groups are not divided."""
    if abs(found - wanted) <= _FAR * wanted:
        return []
    return [
        f"the {split} split has {found:.1%} of the records, where {setting} asks for {wanted:.1%}: groups "
        "(source.files.group) are not divided, and none of a better size was left; set it to what you accept, or group "
        "by something finer"
    ]
