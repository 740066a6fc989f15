"""Files that run code when they are loaded carelessly: each creates the file `mark`, and nothing else.

Also what tests of them share: whoever unpickles a name meanwhile is noted, and commands must refuse them in words.
"""

import io
import pickle
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from handmade import change_header

from ae_pipeline.codec.header import WEIGHTS_NAME
from ae_pipeline.files import sha256_file

EXTENSION = {b"ARROW:extension:name": b"arrow.py_extension_type"}
_METADATA = b"ARROW:extension:metadata"


class Payload:
    """Unpickling it creates the file."""

    def __init__(self, mark: Path):
        self._mark = mark

    def __reduce__(self):
        return Path.touch, (self._mark,)


def pickled(mark, protocol=None):
    return pickle.dumps(Payload(mark), protocol)


def torch_file(mark):
    file = io.BytesIO()
    torch.save(Payload(mark), file)
    return file.getvalue()


def object_array(mark):
    file = io.BytesIO()
    np.save(file, np.array([Payload(mark)], object), allow_pickle=True)
    return file.getvalue()


def object_arrays(mark):
    file = io.BytesIO()
    np.savez(file, pixels=np.array([Payload(mark)], object))
    return file.getvalue()


def yaml_tag(mark):
    return f'train: !!python/object/apply:os.mkdir ["{mark}"]\n'.encode()


def arrow_extension(mark, rows=3, row_bytes=20):
    """A sound Parquet file otherwise: `id`, and `pixels` with the type of an old pyarrow, which was a pickle."""
    metadata = {**EXTENSION, _METADATA: pickled(mark)}
    fields = [
        pa.field("id", pa.int64(), metadata=metadata),
        pa.field("pixels", pa.binary(row_bytes), metadata=metadata),
    ]
    columns = [pa.array(range(rows)), pa.array([bytes(row_bytes)] * rows, pa.binary(row_bytes))]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields, {b"pandas": pickled(mark)})), file)
    return file.getvalue()


def _load_extension(data):
    pickle.loads(pq.read_schema(io.BytesIO(data)).field("pixels").metadata[_METADATA])


# What makes the file of a payload, and the careless way to load it.
PAYLOADS = {
    "pickle": (pickled, pickle.loads),
    "torch": (torch_file, lambda data: torch.load(io.BytesIO(data), weights_only=False)),
    "npy": (object_array, lambda data: np.load(io.BytesIO(data), allow_pickle=True)),
    "npz": (object_arrays, lambda data: np.load(io.BytesIO(data), allow_pickle=True)["pixels"]),
    "yaml": (yaml_tag, yaml.unsafe_load),
    "arrow": (arrow_extension, _load_extension),
}

_noting: list[list[str]] = []


def _note(event, arguments):
    if event == "pickle.find_class":
        for names in _noting:
            names.append(".".join(map(str, arguments)))


sys.addaudithook(_note)  # for good: Python has no way to remove one


@contextmanager
def unpickled_names():
    """Yield a list that gets every name that this process's unpicklers look up."""
    names = []
    _noting.append(names)
    try:
        yield names
    finally:
        _noting.remove(names)


def fit_weights(codec):
    """Let codec.json agree with the file of weights, as that of somebody would who plants one."""
    change_header(codec, weights_sha256=sha256_file(codec / WEIGHTS_NAME))


def refused(result):
    """Whether a command ended with an error of ours."""
    code, _, err = result
    return code in (1, 2) and "Traceback" not in err
