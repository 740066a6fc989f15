"""What `verify` found in a store (damage, what it costs, whether it is the data, what to do), and what `repair` did."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ae_pipeline.store.format.entries import MANIFEST_NAME, SNAPSHOTS_FOLDER
from ae_pipeline.store.format.manifest import CODEC_FOLDER


@dataclass(frozen=True)
class Damage:
    """One file that is missing or not what was written. `rows` cannot be read because of it, unless it is repaired."""

    file: str
    reason: str
    rows: int | None = None
    """Rows that are lost; None: not known, for the manifest that lists them is lost."""
    id_min: int | str | None = None
    id_max: int | str | None = None

    def describe(self) -> str:
        """One line: the file, what is wrong, what is lost."""
        if self.rows is None:
            lost = "the rows that only it lists"
        elif self.id_min is not None:
            order = " in the order of texts" if isinstance(self.id_min, str) else ""
            lost = f"{self.rows:,} rows (ids {self.id_min} to {self.id_max}{order})"
        else:
            lost = f"{self.rows:,} rows" if self.rows else "no rows"
        return f"{self.file}: {self.reason}; costs {lost}"


@dataclass
class Compared:
    """A store against the data it was made from."""

    identical: int = 0
    """Parts that come out byte for byte."""
    same_rows: list[str] = field(default_factory=list)
    """Parts with the same rows in other bytes: another version of pyarrow wrote them."""
    rounded: dict[str, int] = field(default_factory=dict)
    """Parts in which some latents are the next integer, as on another processor, and how many."""
    different: dict[str, str] = field(default_factory=dict)
    """Parts whose rows are not those of the data, and how they differ."""
    not_compared: list[str] = field(default_factory=list)
    """Whole parts whose data was not given, or not all of it."""
    partly: dict[str, int] = field(default_factory=dict)
    """Parts among these that were joined from others, and of how many of their shards the rows were compared."""
    renewed: dict[str, str] = field(default_factory=dict)
    """Parts among these for which a file of the right name was given, with rows that no part holds; and its path."""
    rows_not_in_store: int = 0
    """Rows of the given data that the store does not hold."""
    left_out: list[str] = field(default_factory=list)
    """What lies beside the files of the given data, and is no part of it, in words."""


@dataclass(frozen=True)
class Verified:
    """What `verify_store` found, and `verify_deep` with the data."""

    store: str
    format: int | None
    snapshot: int | None
    """The snapshot that was checked; None: no manifest could be read, so nothing else could be checked."""
    earlier_snapshots: list[int]
    parts: int
    rows: int
    damaged: list[Damage] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Shards that could not be encoded when the store was written, and why; it was written without them on purpose."""
    missing_rows: int = 0
    """Rows of these."""
    decoding: str = "not checked"
    """Whether this machine decodes the probe rows to the recorded bytes: begins with `reproduced` or `differs`."""
    deep: Compared | None = None
    """What a comparison with the data found; None: not compared, or the store's codec cannot even be loaded."""

    @property
    def damaged_files(self) -> set[str]:
        """Names of all files that are damaged or missing."""
        return {damage.file for damage in self.damaged}

    @property
    def whole(self) -> bool:
        """Nothing is damaged, and no part is made from other data than was given; rows may be missing (`missing`)."""
        return not self.damaged and not (self.deep and self.deep.different)

    @property
    def holds_source(self) -> bool | None:
        """Whether the store is whole and holds all rows of the data; None if it was not compared."""
        return self.whole and not self.deep.rows_not_in_store if self.deep else None

    @property
    def rows_lost(self) -> int | None:
        """Rows that cannot be read; None if that is not known. A damaged codec costs all of them."""
        lost = [damage.rows for damage in self.damaged]
        return None if None in lost else min(self.rows, sum(rows for rows in lost if rows))

    @property
    def result(self) -> str:
        """The verdict, in a line."""
        deep = self.deep or Compared()
        if self.damaged:
            lost = "unknown" if self.rows_lost is None else f"{self.rows_lost:,} of {self.rows:,}"
            return f"DAMAGED: {len(self.damaged)} files; rows that cannot be read: {lost}"
        if deep.different:
            return f"NOT THE DATA: {len(deep.different)} parts are undamaged, but made from other data"
        if deep.rows_not_in_store:
            return "NOT ALL OF THE DATA: the store is whole, but rows of the data are not in it"
        if self.missing:
            return (
                f"PARTIAL: undamaged, but {len(self.missing):,} shard(s) with {self.missing_rows:,} rows could not be "
                "encoded when it was written"
            )
        missed = len(deep.not_compared)
        return "whole" + f", but {missed:,} of {self.parts:,} parts were not compared with the data" * bool(missed)

    @property
    def next_step(self) -> str | None:
        """What to do about it; None if there is nothing to do."""
        deep = self.deep or Compared()
        if self.damaged:
            return self._repair()
        if deep.different:
            return "keep the data, and encode it into a new store"
        if deep.rows_not_in_store and deep.renewed:
            return (
                "find out which files were changed or damaged since they were encoded, and restore them: appended, "
                f"their rows would be there twice; ae-pipeline append {self.store} is for new data only"
            )
        if deep.rows_not_in_store:
            return f"keep the data; ae-pipeline append {self.store} adds what is missing"
        if self.missing:
            return (
                "keep the data; mend it, then run the same `ae-pipeline encode` again, or "
                f"ae-pipeline append {self.store} with it: either adds what is missing"
            )
        return None

    def _repair(self) -> str:
        files = self.damaged_files
        costly = {damage.file for damage in self.damaged if damage.rows != 0}
        if all(name.startswith((f"{SNAPSHOTS_FOLDER}/", "part-")) and name not in costly for name in files):
            return f"no row is lost; ae-pipeline vacuum {self.store} does without the earlier snapshots"
        command = f"ae-pipeline repair {self.store}"
        if any(name.startswith(CODEC_FOLDER) for name in files):
            command += " --codec <a copy of the codec>"
        if MANIFEST_NAME in files:
            return f"{command} with --source for each data set of the store, in the order in which they were added"
        if any(name.startswith("part-") for name in files):
            command += " --source <the data that was encoded>"
            command += "; until then, decode with --skip-damaged reads the rest" * (self.rows_lost != self.rows)
        return command

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        verdict = {"whole": self.whole, "rows_lost": self.rows_lost, "holds_source": self.holds_source}
        return {**asdict(self), **verdict}


@dataclass
class Repaired:
    """What a repair did. Files that are in no list were whole."""

    store: str
    files: list[str] = field(default_factory=list)
    """Given back byte for byte."""
    made_anew: list[str] = field(default_factory=list)
    """A manifest, and parts with it, that hold the rows of the data; not known to be the bytes that were lost."""
    replaced: dict[str, str] = field(default_factory=dict)
    """Parts that have new bytes under a new name, by their former name; there is a new snapshot then."""
    failed: dict[str, str] = field(default_factory=dict)
    """Files that are still damaged, and why."""
    snapshot: int | None = None
    """The newest one."""

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**asdict(self), "whole": not self.failed}
