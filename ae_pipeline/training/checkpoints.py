"""A training in a file, while it goes on: a run that was killed is taken up where the file was written.

    checkpoints = Checkpoints(folder, made_of, params.checkpoint)
    checkpoints.settled("precision", choose)   # what was chosen once stays chosen
    checkpoints.follow("float", run)           # restores `run` if it was found; saves it from now on
    checkpoints.step()                         # after each step: saves if it is time
    checkpoints.remove()                       # the training is done

The file is of safetensors, without pickle: tensors, and JSON in its metadata. It has a digest over everything in it,
and says what decides the training (`made_of`): one of another training, or a damaged one, is never taken up.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ae_pipeline.errors import first_line, named, warn
from ae_pipeline.files import clear_folder, finished_file, make_folder, sha256_json
from ae_pipeline.params.operation import CheckpointParams
from ae_pipeline.training import ranks

NAME = "checkpoint.safetensors"
_FORMAT = 1
_ENTRY, _DIGEST = "ae_pipeline.checkpoint", "sha256"
_TENSOR, _PAIRS = "<tensor>", "<pairs>"


class Part(Protocol):
    """A part of a training that can be taken down and put back: dictionaries and lists of tensors and JSON."""

    @property
    def where(self) -> str:
        """How far it is, in words."""

    def state(self) -> dict[str, Any]:
        """All that decides how it goes on."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class Checkpoints:
    """The checkpoint of one training; without a folder there is none, and nothing is kept.

    `made_of` is JSON, what decides the result by name: a training goes on with equal values alone.
    """

    def __init__(
        self,
        folder: Path | None = None,
        made_of: dict[str, Any] | None = None,
        every: CheckpointParams | None = None,
        machine: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`machine` is what results may depend on in the last bits: another one takes up the training, and says so.

        Of several ranks, which open it together, the first one alone removes and writes.
        """
        self._folder, self._made_of, self._machine = folder, made_of or {}, machine or {}
        self._every, self._clock = every or CheckpointParams(), clock
        self._parts: dict[str, Part] = {}
        self._settled: dict[str, Any] = {}
        self._saved_at, self._epochs = clock(), 0
        self.taken_up = ""
        """From where on a training that was found goes on, in words."""
        self.warnings: list[str] = []
        """What a person should know of checkpoints that were there, a line each."""
        self._found: dict[str, Any] = {}
        if folder and ranks.is_first():
            self._found = self._find(folder)
        ranks.wait_for_all()
        if folder and not ranks.is_first() and (folder / NAME).exists():
            self._found = read_tree(folder / NAME)
        ranks.wait_for_all()  # before the first one writes another

    @property
    def goes_on(self) -> bool:
        """Whether a training was found that is taken up."""
        return bool(self._found)

    def settled(self, name: str, choose: Callable[[], Any]) -> Any:
        """What `choose` gives, JSON, or what it gave when this training began."""
        if name not in self._settled:
            self._settled[name] = self._found["settled"][name] if self._found else ranks.as_the_first(choose)
        return self._settled[name]

    def follow(self, name: str, part: Part) -> bool:
        """Save `part` with the others from now on. It is restored if it was found; returns whether it was."""
        self._parts[name] = part
        state = self._found.get("parts", {}).pop(name, None)
        if state is not None:
            part.restore(state)
        return state is not None

    @property
    def is_due(self) -> bool:
        """Whether so much time went by that the next step saves."""
        minutes = self._every.minutes
        return self._folder is not None and minutes is not None and self._clock() - self._saved_at >= 60 * minutes

    def step(self, *, epoch_ended: bool = False) -> None:
        """Save all parts if the settings say that it is time. Where the disk does not let us, training goes on."""
        if self._folder is None or not ranks.is_first():
            return
        self._epochs += epoch_ended
        epochs = self._every.epochs
        if self.is_due or (epoch_ended and epochs is not None and self._epochs >= epochs):
            try:
                self._save(self._folder / NAME)
            except OSError as error:
                warn([f"the training goes on, but could not be saved: {error.strerror} ({error.filename})"])
            self._saved_at, self._epochs = self._clock(), 0

    def remove(self) -> None:
        """The training is done, and what it made has its name."""
        if self._folder is not None and ranks.is_first():
            shutil.rmtree(self._folder, ignore_errors=True)
            with suppress(OSError):  # not empty
                self._folder.parent.rmdir()

    def _save(self, path: Path) -> None:
        write_tree(
            path,
            {
                "format": _FORMAT,
                "made_of": self._made_of,
                "machine": self._machine,
                "saved": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
                "where": list(self._parts.values())[-1].where,
                "settled": self._settled,
                "parts": {name: part.state() for name, part in self._parts.items()},
            },
        )

    def _find(self, folder: Path) -> dict[str, Any]:
        """The checkpoint of this very training; any other one is removed, and `warnings` say so."""
        make_folder(folder)
        clear_folder(folder, keep=[NAME])
        path = folder / NAME
        if not path.exists():
            return {}
        try:
            found = read_tree(path)
            if found.get("format") != _FORMAT:
                raise ValueError(f"its format is {found.get('format')!r}, expected {_FORMAT}")
        except ValueError as error:
            self.warnings.append(f"{path} is damaged and is removed: {error}; the training begins anew")
        else:
            other = sorted(
                name
                for name in {*found["made_of"], *self._made_of}
                if found["made_of"].get(name) != self._made_of.get(name)
            )
            if not other:
                self._take_up(path, found)
                return found
            self.warnings.append(
                f"{path} is of another training ({found['where']}; other: {named(other, 4)}) and is removed; "
                "the training begins anew"
            )
        clear_folder(folder)
        return {}

    def _take_up(self, path: Path, found: dict[str, Any]) -> None:
        self.taken_up = f"training goes on from {found['where']}, saved at {found['saved']} in {path}"
        if found["machine"] != self._machine:
            was, now = (
                ", ".join(f"{name} {value}" for name, value in machine.items())
                for machine in (found["machine"], self._machine)
            )
            self.warnings.append(
                f"the training was begun on another kind of machine ({was}; now {now}): the codec will differ a little "
                "from that of an unbroken run"
            )


def write_tree(path: Path, tree: dict[str, Any]) -> None:
    """Write dictionaries and lists of tensors and JSON, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_taken_apart(tree, tensors))
    data = save(tensors, {_ENTRY: text, _DIGEST: _digest(text, tensors)})
    with finished_file(path) as temporary:
        temporary.write_bytes(data)


def read_tree(path: Path) -> dict[str, Any]:
    """Read what `write_tree` wrote. Raises ValueError if a bit of it is another one."""
    try:
        with safe_open(path, "pt") as file:
            entries = file.metadata() or {}
            if not {_ENTRY, _DIGEST} <= entries.keys():
                raise ValueError("it is no checkpoint of a training")
            text, wanted = entries[_ENTRY], entries[_DIGEST]
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"it cannot be read ({first_line(error)})") from None
    if _digest(text, tensors) != wanted:
        raise ValueError("its digest is not that of its contents")
    tree: dict[str, Any] = _put_together(json.loads(text), tensors)
    return tree


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    contents = {name: _tensor_digest(tensor) for name, tensor in tensors.items()}
    return sha256_json([text, contents])


def _tensor_digest(tensor: Tensor) -> list[Any]:
    digest = hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return [str(tensor.dtype), list(tensor.shape), digest.hexdigest()]


def _taken_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON with names in the place of tensors, which are put into `tensors`, on the CPU."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: name}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _taken_apart(inner, tensors) for key, inner in value.items()}
        return {_PAIRS: [[key, _taken_apart(inner, tensors)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return [_taken_apart(inner, tensors) for inner in value]
    return value


def _put_together(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `_taken_apart` took apart; tuples have become lists."""
    if isinstance(value, list):
        return [_put_together(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _PAIRS in value:
        return {key: _put_together(inner, tensors) for key, inner in value[_PAIRS]}
    return {key: _put_together(inner, tensors) for key, inner in value.items()}
