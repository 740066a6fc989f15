"""MNIST for the tests, found as the product finds it, and kept for the next run of the tests."""

import fcntl
import os
from pathlib import Path

import pytest

from ae_pipeline.files import sha256_file
from ae_pipeline.sources.mirrors import MIRROR_VARIABLE
from ae_pipeline.sources.mnist import PINS, Mnist


def real_mnist(checkout: Path, kept: Path) -> Path:
    """The folder `kept` with MNIST's four files, uncompressed and verified.

    What is not there yet comes from AE_DATA_MIRROR or, without it, from what `make run` fetched into the checkout. If
    neither has it, it is fetched from where the product fetches it. Raises DownloadError if nobody has it.
    """
    kept.mkdir(parents=True, exist_ok=True)
    with open(kept / "lock", "w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes that test, one fetches and the others wait
        if not _are_whole(kept):
            patch.setenv(MIRROR_VARIABLE, os.environ.get(MIRROR_VARIABLE) or str(checkout / "data" / "raw"))
            Mnist().fetch(kept)
    return kept


def _are_whole(folder: Path) -> bool:
    return all((folder / name).is_file() and sha256_file(folder / name) == pin.sha256 for name, pin in PINS.items())
