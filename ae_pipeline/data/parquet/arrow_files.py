r"""Files for Arrow, whose paths must be UTF-8: others are opened by their bytes.

A folder from before UTF-8, or of a careless archive, may be called by the bytes `caf\xe9`. Python takes such names;
Arrow and safetensors do not.
"""

import os
from pathlib import Path
from typing import Literal

import pyarrow as pa

from ae_pipeline.files import is_utf8


def arrow_file(path: Path, mode: Literal["r", "w"] = "r") -> "Path | pa.NativeFile":
    """What Arrow can read from or write to: the path if it takes it, else the open file."""
    return path if is_utf8(path) else pa.OSFile(os.fsencode(path), mode)
