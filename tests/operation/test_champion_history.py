"""The champion's history as entries: what a rollback goes to, what a person took back, tags and the table."""

import pytest

from ae_pipeline.errors import TrackingError
from ae_pipeline.operation.champion.history import (
    ABANDONED,
    DONE,
    MOVED_BY_HAND,
    PROMOTED,
    ROLLED_BACK,
    Entry,
    champion_before,
    current,
    deliberate_departure,
    format_history,
    read_entries,
)


def moves(*steps):
    """Entries from (version, action) or (version, action, verdict, state)."""
    entries, before = [], None
    for number, (version, action, *rest) in enumerate(steps, 1):
        verdict, state = (*rest, None, None)[:2]
        entry = Entry(number, version, before, action, f"2026-01-{number:02d}T10:00:00+00:00", "me", "because", None,
                      verdict, state or DONE)  # fmt: skip
        entries.append(entry)
        before = version if entry.state == DONE else before
    return entries


@pytest.mark.parametrize(
    ("steps", "before"),
    [
        ([], None),
        ([("1", PROMOTED)], None),
        ([("1", PROMOTED), ("2", PROMOTED)], "1"),
        ([("1", PROMOTED), ("2", PROMOTED), ("3", PROMOTED), ("2", ROLLED_BACK)], "1"),
        ([("1", PROMOTED), ("2", PROMOTED), ("3", PROMOTED), ("2", ROLLED_BACK), ("1", ROLLED_BACK)], None),
        ([("1", PROMOTED), ("2", PROMOTED), ("1", ROLLED_BACK), ("3", PROMOTED)], "1"),
        # A version that came again: its rollbacks still go back step by step, and end.
        ([("1", PROMOTED), ("2", PROMOTED), ("1", MOVED_BY_HAND)], "2"),
        ([("1", PROMOTED), ("2", PROMOTED), ("1", MOVED_BY_HAND), ("2", ROLLED_BACK)], "1"),
        ([("1", PROMOTED), ("2", PROMOTED), ("1", PROMOTED), ("2", ROLLED_BACK), ("1", ROLLED_BACK)], None),
        ([("1", PROMOTED), ("2", PROMOTED), (None, MOVED_BY_HAND)], "2"),
        ([("1", PROMOTED), (None, MOVED_BY_HAND), ("2", PROMOTED)], "1"),
        ([("1", PROMOTED), (None, MOVED_BY_HAND), ("1", PROMOTED)], None),
        ([("1", PROMOTED), ("2", PROMOTED, None, ABANDONED)], None),
    ],
)
def test_a_rollback_goes_to_the_champion_before(steps, before):
    assert champion_before(moves(*steps)) == before


def test_what_a_person_took_back_does_not_come_again_by_itself():
    automatic = "promotion/verdict-1-2.json"
    assert deliberate_departure(moves(("1", PROMOTED)), "2") is None
    assert deliberate_departure(moves(("1", PROMOTED), ("2", PROMOTED, automatic)), "1") is None
    for action in (ROLLED_BACK, MOVED_BY_HAND, PROMOTED):
        history = moves(("1", PROMOTED), ("2", PROMOTED, automatic), ("1", action))
        assert deliberate_departure(history, "2").number == 3
    # Promoted by a person again, and then beaten in a comparison.
    again = [("1", PROMOTED), ("2", PROMOTED), ("1", ROLLED_BACK), ("2", PROMOTED), ("3", PROMOTED, automatic)]
    assert deliberate_departure(moves(*again), "2") is None
    assert deliberate_departure(moves(("1", PROMOTED), (None, MOVED_BY_HAND)), "7").version is None


def test_entries_survive_their_tags_and_damage_is_named():
    entries = moves(("1", PROMOTED), ("2", PROMOTED, None, ABANDONED), ("3", PROMOTED))
    tags = {entry.key: entry.value for entry in reversed(entries)} | {"other": "tag"}
    assert read_entries(tags) == entries
    assert list(tags)[-2] == "ae_pipeline.champion.000001"
    assert current(entries) == "3"
    for damaged in ("", "{}", "[]", '{"version": "1"}', "null"):
        with pytest.raises(TrackingError, match=r"tag ae_pipeline.champion.000001 .*correct or delete it"):
            read_entries({"ae_pipeline.champion.000001": damaged})


def test_the_table_shows_until_when_and_marks_the_current_one():
    lines = format_history(moves(("1", PROMOTED), ("2", PROMOTED, None, ABANDONED), ("12", PROMOTED))).splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["1", "2026-01-01"], ["*", "12"]]
    assert "2026-01-03 10:00" in lines[1]
    assert " now " in lines[2]
    assert lines[3].startswith("1 move(s) abandoned")
    assert len({line.index("because") for line in lines[1:3]} | {lines[0].index("why")}) == 1
    assert "no version has been champion yet" in format_history([])
