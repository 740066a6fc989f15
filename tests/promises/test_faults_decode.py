"""A decode that something stops, at any step, leaves the old state or the new one: tests/support/faults.py."""

from faults import StoppedByTheDiskToo


class TestDecode(StoppedByTheDiskToo):
    name = "decode"
