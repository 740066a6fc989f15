"""What a power cut may leave: only what was synced is certain, and of the rest any part may be there.

Told of each step before it happens (`tracing.watch`), `Disk` keeps for every file the contents at its last fsync, and
for every folder the names at its last fsync. Two states are then built for each moment: nothing that was not synced is
there (`certain`), and all names are there but files that were not synced have half their bytes (`torn`). A file system
may do anything between the two.
"""

import stat
from dataclasses import dataclass, field
from pathlib import Path

from tracing import Step

# Path in the folder: contents of a file, None for a folder.
Tree = dict[str, bytes | None]


@dataclass
class _Node:
    is_folder: bool
    contents: bytes | None = None
    names: dict[str, "_Node"] = field(default_factory=dict)


class Disk:
    """All that is in the folder at the start is certain."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._nodes: dict[int, _Node] = {}
        for path in [folder, *folder.rglob("*")]:
            self._sync(path)

    def before(self, step: Step) -> None:
        """Take note of a step that will succeed."""
        if step.call == "fsync":
            self._sync(step.places[0])
        if step.call in ("unlink", "rmdir", "rename") and step.places[-1].exists():
            self._nodes.pop(step.places[-1].stat().st_ino, None)  # the number may be given to another file

    def certain(self) -> Tree:
        """Nothing that was not synced is there."""
        tree: Tree = {}

        def add(folder: _Node, where: str) -> None:
            for name, node in folder.names.items():
                tree[where + name] = None if node.is_folder else node.contents or b""
                add(node, f"{where}{name}/")

        add(self._node(self._folder), "")
        return tree

    def torn(self) -> Tree:
        """All names are there, and of files that were not synced the first half."""
        tree: Tree = {}
        for path in self._folder.rglob("*"):
            node = self._node(path)
            contents = node.contents
            if not node.is_folder and contents is None:
                found = path.read_bytes()
                contents = found[: len(found) // 2]
            tree[str(path.relative_to(self._folder))] = contents
        return tree

    def _sync(self, path: Path) -> None:
        node = self._node(path)
        if node.is_folder:
            node.names = {item.name: self._node(item) for item in path.iterdir()}
        else:
            node.contents = path.read_bytes()

    def _node(self, path: Path) -> _Node:
        found = path.stat()
        return self._nodes.setdefault(found.st_ino, _Node(stat.S_ISDIR(found.st_mode)))


def build(tree: Tree, folder: Path) -> None:
    """Write a state into a new folder."""
    folder.mkdir()
    for name, contents in tree.items():
        path = folder / name
        if contents is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents)
