"""What became of the files of an inbox when they were looked at."""

from dataclasses import dataclass, field

from ae_pipeline.data.samples import SampleSet


@dataclass
class Taken:
    """What is new: `sets` are ready to be appended. Files go by their path in the inbox.

    Each of the others says why: `quarantined` cannot be used; `failed` could not be read or put into quarantine, and is
    tried again by the next run; `why_waiting` is not ready; `left_alone` is not to be taken, by its name or kind.
    """

    sets: list[SampleSet] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    why_waiting: dict[str, str] = field(default_factory=dict)
    left_alone: dict[str, str] = field(default_factory=dict)
    known: int = 0
    colour_to_grey: int = 0
    transparency_dropped: int = 0
