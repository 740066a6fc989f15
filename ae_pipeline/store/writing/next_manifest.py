"""The manifest of a store's next snapshot, as far as every change of a store makes it alike. Needs no torch."""

from collections.abc import Sequence
from typing import Any

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.provenance import library_versions
from ae_pipeline.store.format.entries import Totals
from ae_pipeline.store.format.manifest import Manifest, format_of
from ae_pipeline.store.format.part_entries import PartEntry
from ae_pipeline.store.format.segments import SegmentedParts


def next_manifest(old: Manifest, parts: Sequence[PartEntry], git: dict[str, Any]) -> Manifest:
    """The manifest of the snapshot after another one, with other parts; source and probe are still the old ones."""
    spec = SampleSpec(tuple(old.samples.shape), old.samples.dtype)
    return old.model_copy(
        update={
            "format": format_of(parts),
            "snapshot": old.snapshot + 1,
            "parent": old.snapshot,
            "parts": parts,
            "totals": totals_of(parts, spec),
            "written_by": written_by(git),
        }
    )


def totals_of(parts: Sequence[PartEntry], spec: SampleSpec) -> Totals:
    """Sums over parts with samples of this shape and type."""
    if isinstance(parts, SegmentedParts):
        return Totals(rows=parts.rows, bytes_in=parts.rows * spec.nbytes, bytes_parts=parts.bytes_parts)
    rows = sum(part.rows for part in parts)
    return Totals(rows=rows, bytes_in=rows * spec.nbytes, bytes_parts=sum(part.bytes for part in parts))


def written_by(git: dict[str, Any]) -> dict[str, Any]:
    """Versions of the program and its libraries, and the state of its source code (`provenance.git_state`)."""
    return {"versions": library_versions(), "git": git}
