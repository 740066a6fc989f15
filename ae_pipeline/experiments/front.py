"""What sweep and benchmark have in common: results in groups, and the front of few bits and small errors."""

from collections.abc import Callable, Hashable, Iterable
from operator import attrgetter
from typing import TypeVar

_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)


def grouped(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """The items of each key; keys and items in the order in which they come."""
    groups: dict[_Key, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def front(
    items: Iterable[_Item], bits: Callable[[_Item], float], error: Callable[[_Item], float] = attrgetter("mse")
) -> list[_Item]:
    """The items that no other one beats in both bits and error, by rising bits and falling error."""
    best: list[_Item] = []
    for item in sorted(items, key=lambda item: (bits(item), error(item))):
        if not best or error(item) < error(best[-1]):
            best.append(item)
    return best
