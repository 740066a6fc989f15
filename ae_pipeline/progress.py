"""Progress bars on a terminal, plain lines elsewhere (logs of DVC, Prefect, CI)."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm

if TYPE_CHECKING:
    from ae_pipeline.training import Epoch


@contextmanager
def epoch_progress(epochs: int, file: TextIO | None = None) -> Iterator[Callable[["Epoch"], None]]:
    """Yield what `fit` calls after every epoch; lines go to `file` (default: standard output)."""
    terminal = sys.stderr.isatty()
    with tqdm(total=epochs, unit="epoch", desc="train", disable=not terminal) as bar:

        def show(epoch: "Epoch") -> None:
            losses = f"train_loss {epoch.train_loss:.5f}  validation_loss {epoch.validation_loss:.5f}"
            bar.set_postfix_str(losses)
            bar.update()
            if not terminal:
                print(f"epoch {epoch.epoch}/{epochs}  {losses}", file=file, flush=True)

        yield show


class SweepProgress:
    """One bar for a sweep, which says what its trial is at; a line for every trial that ends."""

    def __init__(self, bar: "tqdm[Any]"):
        self._bar = bar

    def at(self, what: str) -> None:
        """What the trial is at."""
        self._bar.set_postfix_str(what)

    def ended(self, line: str) -> None:
        """One more trial came to an end."""
        self.note(line)
        self._bar.update()

    def note(self, line: str) -> None:
        """A line above the bar, on standard error: what is printed may be JSON."""
        tqdm.write(line, file=sys.stderr)


@contextmanager
def sweep_progress(trials: int, done: int) -> Iterator[SweepProgress]:
    """Yield what a sweep tells of its trials; `done` were there before."""
    with tqdm(total=trials, initial=done, unit="trial", desc="sweep", disable=None) as bar:
        yield SweepProgress(bar)


@contextmanager
def row_progress(what: str, rows: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of rows that were finished; `rows` are all, None if not known."""
    with tqdm(total=rows, unit="row", unit_scale=True, desc=what, disable=None) as bar:

        def show(finished: int) -> None:
            bar.update(finished)

        yield show
