"""The networks in the form in which they are trained; their integers are `codec/context/networks.py`'s."""

import torch
from torch import Tensor, nn

from ae_pipeline.codec.context.chances import LOGIT_UNIT
from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.networks import is_in_two_steps, layer_sizes, table_sizes
from ae_pipeline.codec.context.options import Options
from ae_pipeline.training.context.layers import RoundedLinear, RoundedTable, Rounding

# Values begin with little to say, beside what the mask and the place say.
_LITTLE = 0.3


class MaskNet(Rounding):
    """Chances of a block's 16 symbols."""

    def __init__(self, height: int, width: int, options: Options):
        super().__init__()
        self.parts = _parts("mask", height, width, options)
        self._width = width // 2

    def forward(self, context: Tensor, places: Tensor) -> Tensor:
        """Context (n, bytes) in hidden values, place int64 (n,) as row * width + column of blocks: logits (n, 16)."""
        parts = self.parts
        position = [parts["mask_row"](places // self._width), parts["mask_column"](places % self._width)]
        hidden = parts["mask_first"](torch.cat([context, *position], 1))
        logits: Tensor = parts["mask_logits"](parts["mask_second"](hidden))
        return logits


class ValueNet(Rounding):
    """Chances of a value that is not 0: of its sixteenth, if there are more than 16, and of what is in it."""

    def __init__(self, height: int, width: int, options: Options):
        super().__init__()
        self.parts = _parts("value", height, width, options)
        for name, part in _parts("whole", height, width, options).items():
            self.parts[name] = part
        self.two_steps = is_in_two_steps(Grid(options.max_error))
        self._width = width
        first = self.parts["value_first"]
        assert isinstance(first, RoundedLinear)
        with torch.no_grad():
            first.weight.mul_(_LITTLE)

    def forward(
        self, context: Tensor, places: Tensor, ink: Tensor, pictures: Tensor, coarse: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Context (n, bytes), place and picture int64 (n,), ink (pictures, blocks), the sixteenth int64 (n,).

        Logits (n, 16) of the sixteenth, if that is asked for, and of what is in it.
        """
        parts = self.parts
        whole = parts["whole_second"](parts["whole_first"](ink))
        row, column = places // self._width, places % self._width
        position = [parts["value_row"](row), parts["value_column"](column)]
        known = torch.cat([context, *position, whole.index_select(0, pictures)], 1)
        hidden = parts["value_second"](parts["value_first"](known))
        if not self.two_steps:
            return None, parts["value_fine"](parts["value_third"](hidden))
        both = torch.cat([hidden, parts["value_coarse_table"](coarse)], 1)
        return parts["value_coarse"](hidden), parts["value_fine"](parts["value_third"](both))


class RestoreNet(Rounding):
    """How far a value of the grid is to be moved."""

    def __init__(self, height: int, width: int, options: Options):
        super().__init__()
        self.parts = _parts("restore", height, width, options)
        first = self.parts["restore_first"]
        assert isinstance(first, RoundedLinear)
        with torch.no_grad():
            first.weight.mul_(_LITTLE)

    def forward(self, context: Tensor) -> Tensor:
        """Context (n, bytes) in hidden values to moves (n,) in units of values."""
        parts = self.parts
        found: Tensor = parts["restore_move"](parts["restore_second"](parts["restore_first"](context)))
        return found[:, 0] * LOGIT_UNIT


def integers_of(*networks: Rounding) -> dict[str, Tensor]:
    """The state of `Networks` that trained networks stand for."""
    state: dict[str, Tensor] = {}
    for network in networks:
        for name, part in network.get_submodule("parts").named_children():
            if isinstance(part, RoundedTable):
                state[name] = part.integers()
            elif isinstance(part, RoundedLinear):
                state |= {f"layers.{name}.{key}": value for key, value in part.integers().items()}
    return state


def _parts(prefix: str, height: int, width: int, options: Options) -> nn.ModuleDict:
    found = nn.ModuleDict()
    for name, (rows, size) in table_sizes(height, width, Grid(options.max_error)).items():
        if name.startswith(f"{prefix}."):
            found[name.replace(".", "_")] = RoundedTable(rows, size)
    for name, (inputs, outputs) in layer_sizes(height, width, options).items():
        if name.startswith(f"{prefix}."):
            gives_logits = name.split(".")[1] in ("logits", "coarse", "fine", "move")
            found[name.replace(".", "_")] = RoundedLinear(inputs, outputs, gives_logits=gives_logits)
    return found
