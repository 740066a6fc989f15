"""Jobs that end the process they are in, or need more memory than it has; what other processes can import."""

import os
import signal
import time
from pathlib import Path

import numpy as np


def killed(folder: Path, times: int, item: int) -> tuple[int, int]:
    """Twice the item and the process that made it; item 2 ends its process by kill -9, so many times."""
    marks = len(list(folder.glob("killed-*")))
    if item == 2 and marks < times:
        (folder / f"killed-{marks}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item, os.getpid()


def greedy(item: int) -> int:
    """Item 2 needs 3 GiB."""
    return int(np.ones(3 << 30 if item == 2 else 1, np.uint8)[-1]) * item


def refused(item: int) -> int:
    """Item 2 has a mistake in it, and the others take a while."""
    if item == 2:
        raise ValueError("a mistake")
    time.sleep(0.1)
    return item
