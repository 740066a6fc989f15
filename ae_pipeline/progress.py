"""Progress bars on a terminal, plain lines elsewhere (logs of DVC, Prefect, CI)."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from ae_pipeline.training import Epoch


@contextmanager
def epoch_progress(epochs: int) -> Iterator[Callable[["Epoch"], None]]:
    """Yield what `fit` calls after every epoch."""
    terminal = sys.stderr.isatty()
    with tqdm(total=epochs, unit="epoch", desc="train", disable=not terminal) as bar:

        def show(epoch: "Epoch") -> None:
            losses = f"train_loss {epoch.train_loss:.5f}  validation_loss {epoch.validation_loss:.5f}"
            bar.set_postfix_str(losses)
            bar.update()
            if not terminal:
                print(f"epoch {epoch.epoch}/{epochs}  {losses}", flush=True)

        yield show


@contextmanager
def row_progress(what: str, rows: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of rows that were finished; `rows` are all, None if not known."""
    with tqdm(total=rows, unit="row", unit_scale=True, desc=what, disable=None) as bar:

        def show(finished: int) -> None:
            bar.update(finished)

        yield show
