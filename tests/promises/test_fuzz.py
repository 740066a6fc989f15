"""Some hundreds of stores that somebody has tampered with; bench/fuzz.py does tens of thousands."""

from collections import Counter

import pytest
from fuzzing import KINDS, make_stores, run_inputs

pytestmark = pytest.mark.slow

INPUTS = 300


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    make_stores(folder)
    return list(run_inputs(folder / "stores", folder / "scratch", seed=0, first=0, count=INPUTS))


def test_a_tampered_store_is_read_or_refused_and_does_no_harm(results):
    """No crash of the interpreter, no hang, no memory beyond the bound, no other file opened, no error of others."""
    assert len(results) == INPUTS
    assert [result for result in results if result["outcome"] not in ("read", "refused")] == []


def test_all_kinds_of_tampering_were_tried_and_most_of_it_was_found(results):
    tried = Counter(result["kind"] for result in results)
    assert set(tried) == set(KINDS)
    assert min(tried.values()) >= INPUTS // len(KINDS) // 2
    refused = Counter(result["kind"] for result in results if result["outcome"] == "refused")
    assert set(refused) == set(KINDS)
