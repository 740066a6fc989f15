"""README.md and docs/ as data: their lines, headings, links and fenced blocks; and what the commands in them need.

The words behind a block's language say how it is proven:

    ```console              each `$ command` runs, and each line below it is in its output, but for numbers
    ```sh, ```python        runs; what Python prints stands in lines `# ...` below the line that prints
    ```sh needs-training    is not run: see NEEDS. Commands and options must exist, Python must compile
"""

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/kinds/*.md")))
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path for path in _PAGES}
NEEDS = {
    "needs-training": "trains for minutes, or shows what a training prints",
    "needs-champion": "a model in MLflow that was promoted, or stores that a champion filled",
    "needs-servers": "servers, and their passwords",
    "needs-s3": "a bucket",
    "needs-cluster": "processes or a cluster that take seconds to start, or data that is damaged",
}
CUT = "..."
"""A line of output that stands for those left out."""
_OTHERS = {
    "cd", "cp", "export", "git", "mlflow", "mv", "pip", "prefect", "rm", "source", "sqlite3",
    "tar", "pg_dump", "pg_restore", "systemctl", "torchrun",
}  # fmt: skip
"""Programs whose options are not ours to check."""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, the words behind that, its lines."""

    document: str
    line: int
    language: str
    marks: tuple[str, ...]
    text: str

    @property
    def runs(self) -> bool:
        """Whether it can be run here."""
        return not self.marks

    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command and the lines that are shown of its output (none in `sh`)."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            if self.language == "sh":
                found.append((line, []))
            elif line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
        return [(command, shown) for command, shown in found if command.strip()]


def lines_outside_blocks(path: Path) -> list[tuple[int, str]]:
    """Number and text of each line that is in no fenced block; a block leaves one empty line."""
    lines, inside = [], False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
            lines.append((number, ""))
        elif not inside:
            lines.append((number, line))
    return lines


def blocks(document: str, *languages: str) -> list[Block]:
    """Its fenced blocks in these languages, or all."""
    text = DOCUMENTS[document].read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        language, *marks = match[1].split() or [""]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(document, line, language, tuple(marks), match[2]))
    return [block for block in found if not languages or block.language in languages]


def paragraphs(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line, and lines, of each paragraph and list entry; no tables, pictures and headings."""
    lines: list[str] = []
    start = 0
    for number, line in [*lines_outside_blocks(path), (0, "")]:
        ends = not line.strip() or line.startswith(("#", "|", "    ", "!["))
        if lines and (ends or re.match(r"\s*([-*]|\d+\.) ", line)):
            yield start, lines
            lines = []
        if not ends:
            start = start if lines else number
            lines.append(line)


def anchors(path: Path) -> set[str]:
    """What `#...` may name in a document: its headings, as GitHub spells them."""
    headings = [line.lstrip("#").strip() for _, line in lines_outside_blocks(path) if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> list[str]:
    """Relative links of a document that lead nowhere."""
    text = "\n".join(line for _, line in lines_outside_blocks(path))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, heading = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        if not place.exists() or (heading and heading not in anchors(place)):
            broken.append(target)
    return broken


def without_numbers(line: str) -> str:
    """The line with every number as `#`, lists of numbers as one, and any processor as CPU."""
    line = re.sub(r"\((AVX\w*|[A-Z][A-Z0-9_]+)\)", "(CPU)", line)
    line = re.sub(r"\d+(?:[.,]\d+)*(?:e-?\d+)?", "#", line)
    return re.sub(r"#(, #)+", "#", " ".join(line.split()))


def not_in(shown: list[str], output: str) -> list[str]:
    """The lines shown that are not in the output, in this order; but for numbers and what CUT stands for."""
    real = iter([without_numbers(line) for line in output.splitlines()])
    return [line for line in shown if line != CUT and without_numbers(line) not in real]


def check_command(line: str) -> None:
    """Raise unless every command in a line of a shell exists, and takes the options that it is given."""
    for part in re.split(r" && | \| ", line):
        words = shlex.split(part, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words:
            _check_words(words)


def _check_words(words: list[str]) -> None:
    program, *arguments = words
    if program == "ae-pipeline":
        parse(arguments)
    elif program == "dvc":
        from dvc.cli.parser import get_main_parser

        get_main_parser().parse_args(arguments)  # exits, and prints what is wrong
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets), words
    elif program == "python" and arguments[0] == "-m":
        _check_flow(arguments[1], arguments[2:])
    elif program == "python":
        assert (ROOT / arguments[0]).exists(), words
    else:
        assert program in _OTHERS, f"{program}: a program that no check knows; add one to tests/support/documents.py"


def options_of(words: list[str]) -> set[str]:
    """The options of `ae-pipeline WORDS`, which may go on with arguments. Raises KeyError for an unknown command."""
    from typer.main import get_command

    from ae_pipeline.cli.main import app

    command: Any = get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        command = command.commands[word]
    return {option for parameter in command.params for option in parameter.opts}


def parse(arguments: list[str]) -> None:
    """Have the command line's own parser read them; raises its errors."""
    from typer.main import get_command

    from ae_pipeline.cli.main import app

    command: Any = get_command(app)
    context = command.make_context("ae-pipeline", list(arguments))
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def _check_flow(module: str, arguments: list[str]) -> None:
    path = ROOT / f"{module.replace('.', '/')}.py"
    assert path.exists(), module
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    (flow,) = [function for function in functions if function.name == path.stem]
    known = {f"--{argument.arg.replace('_', '-')}" for argument in flow.args.args + flow.args.kwonlyargs}
    assert {word for word in arguments if word.startswith("--")} <= known, (module, arguments)


def run_line(line: str, folder: Path) -> str:
    """Run a line of a shell that is no command of ours; returns its output."""
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
