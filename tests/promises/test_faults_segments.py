"""Stores whose manifests list segments keep the same promises, whatever stops what changes them: see faults.py."""

from faults import SEGMENTS, START, StoppedAnywhere

from ae_pipeline.store.latent_store import LatentStore


class WithSegments(StoppedAnywhere):
    start = START + SEGMENTS

    def test_these_stores_have_segments(self, wanted):
        whole = LatentStore.open(wanted.template.parent / "whole/out/store").manifest
        assert (whole.format, len(whole.segments)) == (4, 1)


class TestEncode(WithSegments):
    name = "encode"


class TestAppend(WithSegments):
    name = "append"


class TestCompact(WithSegments):
    name = "compact"


class TestVacuum(WithSegments):
    name = "vacuum"


class TestRepair(WithSegments):
    name = "repair"
