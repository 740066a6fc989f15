"""What a process does that a test kills while it writes to a URL: a module of its own, so that it starts fast."""

import os
from pathlib import Path

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import CompactParams
from ae_pipeline.store.care.compaction import compact_store
from ae_pipeline.store.writing.appending import append_samples
from ae_pipeline.store.writing.encoding import encode_samples

OPTIONS = {"name": "tiny", "git": {}}
PARAMS = EncodeParams(layout="list", row_group_rows=10_000, device="cpu")


def append(place: Path | str, sets: list[SampleSet], codec: Path, work: Path | None = None):
    return append_samples(place, sets, codec, PARAMS, work=work, **OPTIONS)


def compact(place: Path | str):
    return compact_store(place, CompactParams(), git={})


def write(environment: dict[str, str], place: str, paths: list[Path], codec: Path, kind: str) -> None:
    """Run an `encode` or an `append` of the data sets at `paths`, or a `compact`."""
    os.environ.update(environment)
    if kind == "compact":
        compact(place)
        return
    sets = [SampleSet.open(path) for path in paths]
    if kind == "append":
        append(place, sets, codec)
    else:
        encode_samples(sets[0], codec, place, PARAMS, **OPTIONS)
