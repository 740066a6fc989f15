"""A compaction that something stops, at any step, leaves the old state or the new one: tests/support/faults.py."""

from faults import StoppedAnywhere


class TestCompact(StoppedAnywhere):
    name = "compact"
