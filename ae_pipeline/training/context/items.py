"""What the networks learn from: every block and every value of some pictures, with all that will be known of it."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ae_pipeline.codec.context.chances import SYMBOLS
from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.rans import ONE
from ae_pipeline.codec.context.words import (
    BLOCK_PLACES,
    INK,
    MASK_PLACES,
    NEAR,
    VALUE_PLACES,
    Sheet,
    block_planes,
    block_sheet,
    block_symbols,
    ink_of_blocks,
    laid_out,
    value_sheet,
    words,
)
from ae_pipeline.training.context.layers import UNIT

_LEAST_EMPTY = 512
_MOST_REST = 255


class Blocks(NamedTuple):
    """Blocks with ink near them."""

    context: Tensor
    """float32 (n, bytes), in hidden values."""
    places: Tensor
    symbols: Tensor


class Items(NamedTuple):
    """Values that are not 0."""

    context: Tensor
    places: Tensor
    ink: Tensor
    """float32 (pictures, blocks)."""
    pictures: Tensor
    symbols: Tensor
    """int64 (n,): the index less 1."""


def blocks_of(indices: np.ndarray) -> Blocks:
    """Look at uint8 indices (pictures, height, width), whose sides are even."""
    mask = indices > 0
    sheet = block_sheet(*indices.shape[1:])
    planes, count = block_planes(mask, sheet), len(indices)
    rows, columns, pictures = np.nonzero(_ink_at(planes, sheet, BLOCK_PLACES[:NEAR]))
    elements = sheet.place(rows, columns, count) + pictures
    context = np.empty((len(elements), 2 * len(BLOCK_PLACES)), np.uint64)
    for number, (down, across) in enumerate(BLOCK_PLACES):
        for odd, plane in enumerate(planes):
            context[:, 2 * number + odd] = plane.reshape(-1).take(elements + sheet.away(down, across, count))
    symbols = block_symbols(mask)[pictures, rows, columns]
    return Blocks(_hidden(context), torch.from_numpy(rows * sheet.width + columns), torch.from_numpy(symbols).long())


def items_of(indices: np.ndarray, grid: Grid) -> Items:
    """Look at uint8 indices (pictures, height, width), whose sides are even."""
    count, sheet = len(indices), value_sheet(*indices.shape[1:])
    mask = indices > 0
    values = words(laid_out(grid.values[indices], sheet)).reshape(-1)
    masks = words(laid_out(mask.astype(np.uint8) * np.uint8(INK), sheet)).reshape(-1)
    rows, columns, pictures = np.nonzero(indices.transpose(1, 2, 0))
    elements = sheet.place(rows, columns, count) + pictures
    gathered = [(values, place) for place in VALUE_PLACES] + [(masks, place) for place in MASK_PLACES]
    context = np.empty((len(elements), len(gathered)), np.uint64)
    for number, (plane, (down, across)) in enumerate(gathered):
        context[:, number] = plane.take(elements + sheet.away(down, across, count))
    symbols = indices[pictures, rows, columns].astype(np.int64) - 1
    places = torch.from_numpy(rows * sheet.width + columns)
    ink = torch.from_numpy(ink_of_blocks(mask)).float() / UNIT
    return Items(_hidden(context), places, ink, torch.from_numpy(pictures), torch.from_numpy(symbols))


class EmptyBlocks:
    """Counts blocks with nothing near them, whose chances are fixed: a table of their places."""

    def __init__(self, height: int, width: int):
        self._counts = np.zeros((height // 2 * (width // 2), 2, SYMBOLS))

    def count(self, indices: np.ndarray) -> None:
        """Take in uint8 (pictures, height, width), whose sides are even."""
        mask = indices > 0
        sheet = block_sheet(*indices.shape[1:])
        planes = block_planes(mask, sheet)
        near, far = (_ink_at(planes, sheet, places) for places in (BLOCK_PLACES[:NEAR], BLOCK_PLACES[NEAR:]))
        rows, columns, pictures = np.nonzero(~near)
        symbols = block_symbols(mask)[pictures, rows, columns]
        place = (rows * sheet.width + columns, far[rows, columns, pictures].astype(np.intp), symbols)
        np.add.at(self._counts, place, 1)

    def tables(self) -> dict[str, Tensor]:
        """`empty` and `rest` of `Networks`."""
        whole = self._counts.sum(2)
        share = (self._counts[..., 0] + 1) / (whole + 1.02)
        empty = np.clip(np.round(share * ONE), _LEAST_EMPTY, ONE - SYMBOLS + 1).astype(np.int16)
        rest = self._counts[..., 1:].sum(0) + 0.1
        rest = np.round(rest / rest.max(1, keepdims=True) * _MOST_REST).astype(np.uint8)
        return {"empty": torch.from_numpy(empty), "rest": torch.from_numpy(rest)}


def _ink_at(planes: tuple[np.ndarray, ...], sheet: Sheet, places: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Whether blocks have ink in the words at these places: bool (rows, columns, pictures)."""
    found = np.zeros((sheet.height, sheet.width, planes[0].shape[2]), np.uint64)
    for down, across in places:
        for plane in planes:
            top, left = sheet.above + down, sheet.left + across
            found |= plane[top : top + sheet.height, left : left + sheet.width]
    seen: np.ndarray = found != 0
    return seen


def _hidden(context: np.ndarray) -> Tensor:
    """Words to their bytes as hidden values: float32 (n, 8 * words)."""
    return torch.from_numpy(np.ascontiguousarray(context).view(np.uint8)).float() / UNIT
