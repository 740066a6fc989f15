"""No docstring or comment of ours begins in mid-sentence: who reads one has not read the one before.

"Of the next step." has no subject; "Learning rate of the next step." has. What is found here is what can be found by
its first words.
"""

import ast
import io
import re
import tokenize

import pytest
from documents import ROOT

FILES = [*ROOT.glob("ae_pipeline/**/*.py"), *ROOT.glob("flows/*.py"), *ROOT.glob("tests/support/*.py")]
# A sentence of ours does not begin with these.
NEVER = r"(Of|And|But|Or|Nor|Than|Those|The same|None|Also|Such|Else)\b|As (?!if\b)"
# With these only if a main clause follows, behind a comma or with one of these verbs.
OPENING = r"(With|Without|For|From|To|By|At|In|On|Because|Since|Until|Unless|Before|After|Though)\b"
MAIN = r",| (is|are|has|have|can|may|must|would|weigh)\b"
# A word of a sentence, not a type, a file or a name: those are followed by a digit, a dot, a slash or a bracket.
LOWER = r"[a-z]+(,? [a-z]|,)"


def docstrings(tree):
    """Line and text of docstrings, and of strings below an attribute that say what it is."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, text
            for before, after in zip(node.body, node.body[1:], strict=False):
                is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                if isinstance(before, (ast.Assign, ast.AnnAssign)) and is_text:
                    yield after.lineno, str(after.value.value)


def comments(text):
    """Line and first line of each block of comments that has lines of its own."""
    lines, last = text.splitlines(), 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT and lines[line - 1].lstrip().startswith("#"):
            if line != last + 1:
                yield line, token.string.lstrip("# ")
            last = line


def begins_in_mid_sentence(text, *, comment=False):
    first = re.split(r"(?<=\.) |\n\n", " ".join(text.split()))[0]
    opening = re.match(OPENING, first) and not re.search(MAIN, first)
    return bool(re.match(NEVER, first) or opening or (not comment and re.match(LOWER, first)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_docstring_or_comment_begins_in_mid_sentence(path):
    text = path.read_text(encoding="utf-8")
    found = [item for item in docstrings(ast.parse(text)) if begins_in_mid_sentence(item[1])]
    found += [item for item in comments(text) if begins_in_mid_sentence(item[1], comment=True)]
    assert [f"{path.relative_to(ROOT)}:{line}: {words[:60]}" for line, words in found] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Of the next step.", True),
        ("As `dense`, of each channel.", True),
        ("For the provenance of a codec.", True),
        ("without the codec", True),
        ("Learning rate of the next step.", False),
        ("Without VNNI, oneDNN adds pairs of products in 16 bits.", False),
        ("uint8 pixels to q.", False),
        ("torch.compile; can take minutes to start.", False),
        ("As if nothing had happened.", False),
    ],
)
def test_what_is_called_mid_sentence(text, found):
    assert begins_in_mid_sentence(text) == found
