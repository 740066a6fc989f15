"""Progress in rows: a bar on a terminal, nothing elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


@contextmanager
def row_progress(what: str, rows: int | None) -> Iterator[Callable[[int], Any]]:
    """Yield a function to call with the number of rows that were finished; `rows` are all, None if not known."""
    with tqdm(total=rows, unit="row", unit_scale=True, desc=what, disable=None) as bar:
        yield bar.update
