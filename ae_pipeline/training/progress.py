"""A training's progress: a bar on a terminal, a line for every epoch elsewhere (logs of DVC, Prefect, CI)."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

from ae_pipeline.training.loop import Epoch


@contextmanager
def epoch_progress(epochs: int, file: TextIO | None = None) -> Iterator[Callable[[Epoch], None]]:
    """Yield what `fit` calls after every epoch; lines go to `file` (default: standard output)."""
    terminal = sys.stderr.isatty()
    with tqdm(total=epochs, unit="epoch", desc="train", disable=not terminal) as bar:

        def show(epoch: Epoch) -> None:
            losses = f"train_loss {epoch.train_loss:.5f}  validation_loss {epoch.validation_loss:.5f}"
            bar.set_postfix_str(losses)
            bar.update(epoch.epoch - bar.n)  # a training that was taken up begins later
            if not terminal:
                print(f"epoch {epoch.epoch}/{epochs}  {losses}", file=file, flush=True)

        yield show
