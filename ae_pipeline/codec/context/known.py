"""The coders of codecs that this process has loaded: a part of a store needs one even where no codec lies beside it."""

from typing import Any
from weakref import WeakValueDictionary

_known: WeakValueDictionary[str, Any] = WeakValueDictionary()


def note_streams(fingerprint: str, coder: Any) -> None:
    """Have the coder of a codec found for as long as somebody has that codec."""
    _known[fingerprint] = coder


def known_streams(fingerprint: str) -> Any | None:
    """The coder of the codec with this fingerprint, or None. Does not load torch."""
    return _known.get(fingerprint)
