"""The networks of a context codec in integers, and what stands beside them.

Linear layers compute as all integer codecs of this package do (`codec/integer.py`), on bytes, and give bytes: hidden
values of 1/64, and logits of 1/16 octave (`chances`). Tables of bytes stand for row and column.
"""

import numpy as np
import torch
from torch import Tensor, nn

from ae_pipeline.codec.context.chances import SYMBOLS
from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.options import Options
from ae_pipeline.codec.context.words import BLOCK_PLACES, MASK_PLACES, RESTORE_PLACES, VALUE_PLACES, WORD
from ae_pipeline.codec.integer import IntegerLayer

POSITION_BYTES = 8
"""Bytes that stand for a row, and as many for a column."""
WHOLE_BYTES = 16
"""What is known of the whole mask of a picture."""
COARSE_BYTES = 16
# oneDNN makes a kernel for each number of rows, which takes as long as some rows: few numbers are used.
ROWS = 256


def layer_sizes(height: int, width: int, options: Options) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of every linear layer, by its name; sides are even."""
    grid = Grid(options.max_error)
    first, second, third = options.value
    here = 2 * POSITION_BYTES
    known = 8 * (len(VALUE_PLACES) + len(MASK_PLACES)) + here + WHOLE_BYTES
    found = {
        "mask.first": (8 * 2 * len(BLOCK_PLACES) + here, options.mask[0]),
        "mask.second": options.mask,
        "mask.logits": (options.mask[1], SYMBOLS),
    }
    if options.restore:
        found |= {
            "restore.first": (WORD * len(RESTORE_PLACES), options.restore[0]),
            "restore.second": options.restore,
            "restore.move": (options.restore[1], 1),
        }
    if len(grid.values) == 2:  # the mask says it all
        return found
    two_steps = is_in_two_steps(grid)
    return found | {
        "whole.first": (height * width // 4, options.whole),
        "whole.second": (options.whole, WHOLE_BYTES),
        "value.first": (known, first),
        "value.second": (first, second),
        **({"value.coarse": (second, SYMBOLS)} if two_steps else {}),
        "value.third": (second + (COARSE_BYTES if two_steps else 0), third),
        "value.fine": (third, SYMBOLS),
    }


def table_sizes(height: int, width: int, grid: Grid) -> dict[str, tuple[int, int]]:
    """Rows and bytes of every table, by its name."""
    found = {"mask.row": (height // 2, POSITION_BYTES), "mask.column": (width // 2, POSITION_BYTES)}
    if len(grid.values) == 2:
        return found
    found |= {"value.row": (height, POSITION_BYTES), "value.column": (width, POSITION_BYTES)}
    return found | ({"value.coarse_table": (SYMBOLS, COARSE_BYTES)} if is_in_two_steps(grid) else {})


def is_in_two_steps(grid: Grid) -> bool:
    """Whether a value that is not 0 is one of more than 16: then it is coded as 16 * coarse + fine."""
    return len(grid.values) - 1 > SYMBOLS


class Networks(nn.Module):
    """All integers of a context codec; `load_state_dict` them, then `prepare`."""

    def __init__(self, height: int, width: int, options: Options):
        super().__init__()
        self.layers = nn.ModuleDict()
        with torch.device("meta"):
            for name, (inputs, outputs) in layer_sizes(height, width, options).items():
                self.layers[_key(name)] = IntegerLayer(nn.Linear(inputs, outputs), gives_latents=False)
        for name, size in table_sizes(height, width, Grid(options.max_error)).items():
            self.register_buffer(_key(name), torch.empty(size, dtype=torch.uint8, device="meta"))
        # For blocks with nothing near: the chance of no ink at each place, without and with ink further away, in
        # shares of 2 ** 15; and how the rest is shared out among the other symbols.
        blocks = height * width // 4
        self.register_buffer("empty", torch.empty((blocks, 2), dtype=torch.int16, device="meta"))
        self.register_buffer("rest", torch.empty((2, SYMBOLS - 1), dtype=torch.uint8, device="meta"))

    def prepare(self) -> "Networks":
        """Make what products need. Raises OverflowError as `IntegerLayer.prepare`."""
        for layer in self.layers.values():
            assert isinstance(layer, IntegerLayer)
            layer.prepare()
        return self

    def table(self, name: str) -> np.ndarray:
        """uint8 of a table."""
        found: Tensor = getattr(self, _key(name))
        return found.numpy()

    def run(self, names: tuple[str, ...], inputs: np.ndarray) -> np.ndarray:
        """uint8 (n, in) through layers, one after the other; n should be a multiple of ROWS."""
        values = torch.from_numpy(inputs)
        for name in names:
            values = self.layers[_key(name)](values)
        return values.to(torch.uint8).numpy()


def positions(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """uint64 (places, 2): the bytes of row and column at every place, from the tables of both."""
    both = [np.repeat(rows, len(columns), 0), np.tile(columns, (len(rows), 1))]
    return np.ascontiguousarray(np.concatenate(both, 1)).view(np.uint64)


def padded(rows: int) -> int:
    """The next number of rows that is used."""
    return -(-rows // ROWS) * ROWS


def _key(name: str) -> str:
    return name.replace(".", "_")  # module names have no dots
