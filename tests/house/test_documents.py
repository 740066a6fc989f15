"""README.md and docs/: short paragraphs, links that lead somewhere, commands that exist, nothing left unexplained."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from documents import DOCUMENTS, NEEDS, ROOT, anchors, blocks, broken_links, check_command, options_of, paragraphs
from ruamel.yaml import YAML

PACKAGE = ROOT / "ae_pipeline"
FLOWS = ROOT / "flows"
# Files that send a reader to a document.
SENDERS = [
    *PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.yaml"), *FLOWS.rglob("*.py"), *(ROOT / "tests").rglob("*.py"),
    *(ROOT / "bench").glob("*.py"), *(ROOT / "docs").glob("*.py"),
    *(ROOT / name for name in ("params.yaml", "prefect.yaml", "dvc.yaml", "Makefile", "pyproject.toml")),
    ROOT / "CHANGELOG.md",
]  # fmt: skip
documents = pytest.mark.parametrize("document", DOCUMENTS)


@documents
def test_no_paragraph_is_over_five_lines_and_no_line_too_long(document):
    found = list(paragraphs(DOCUMENTS[document]))
    assert [f"line {line}: {len(lines)} lines" for line, lines in found if len(lines) > 5] == []
    assert [line + number for line, lines in found for number, text in enumerate(lines) if len(text) > 160] == []


def test_the_readme_is_short_and_shows_a_result_at_once():
    lines = DOCUMENTS["README.md"].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert "![" in "\n".join(lines[:10])
    results = [
        number for number, line in enumerate(lines, 1) if "ae-pipeline**" in line or line.startswith("$ make run")
    ]
    assert len(results) == 2
    assert max(results) <= 30


@documents
def test_every_link_leads_somewhere(document):
    assert broken_links(DOCUMENTS[document]) == []


def test_every_document_can_be_reached_from_the_readme():
    linked = set(re.findall(r"\]\((docs/[a-z/-]+\.md)", DOCUMENTS["README.md"].read_text(encoding="utf-8")))
    assert linked == set(DOCUMENTS) - {"README.md"}


def test_code_and_messages_send_nobody_to_a_document_or_heading_that_is_not_there():
    lost = []
    for path in SENDERS:
        text = path.read_text(encoding="utf-8")
        for file, anchor, _, title in re.findall(
            r"((?:docs/[\w/-]+|README)\.md)(?:#([\w-]+)|, (\"?)([A-Z][a-z]+(?: [a-z]+)*))?", text
        ):
            slug = anchor or title.lower().replace(" ", "-")
            if file not in DOCUMENTS or (slug and slug not in anchors(DOCUMENTS[file])):
                lost.append(f"{path.relative_to(ROOT)}: {file} {anchor or title}")
    assert lost == []


def test_every_picture_is_shown_and_is_there():
    shown = {
        (path.parent / name).resolve()
        for path in DOCUMENTS.values()
        for name in re.findall(r"!\[[^]]*\]\((?!\.\./bench)([^)]+)\)", path.read_text(encoding="utf-8"))
    }
    assert shown == {*(ROOT / "docs/images").glob("*.png"), *(ROOT / "docs/pictures").glob("*.png")}


@documents
def test_every_command_and_option_exists(document):
    for block in blocks(document, "console", "sh"):
        for command, _ in block.commands():
            try:
                check_command(command)
            except (Exception, SystemExit) as error:
                pytest.fail(f"{document}:{block.line}: {command}: {error}")


@documents
def test_commands_within_sentences_exist(document):
    """Only the command and its options: arguments may be VERSION or `...`."""
    text = re.sub(r"^```.*?^```$", "", DOCUMENTS[document].read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for command in re.findall(r"`ae-pipeline ([^`]+)`", text):
        words = command.split()
        assert {word for word in words if word.startswith("--")} <= options_of(words), command
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= set(targets)


def test_the_targets_that_people_need_are_named():
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS.values())
    assert {"run", "test", "bench", "reference", "serve", "mlflow-ui"} <= set(
        re.findall(r"\bmake (?:check )?([a-z-]+)", text)
    )


@documents
def test_blocks_say_how_they_are_proven(document):
    for block in blocks(document):
        where = f"{document}:{block.line}"
        assert block.language in {"", "console", "sh", "python", "yaml", "ini"}, where
        assert set(block.marks) <= set(NEEDS), where
        if block.language == "python":
            ast.parse(block.text)
        command = re.search(r"^(\$ )?(ae-pipeline|python|dvc|make) ", block.text, re.MULTILINE)
        assert block.language or not command, f"{where}: is it sh, console or python?"


def test_the_alert_in_the_production_page_is_one_that_prefect_takes():
    from prefect.events.schemas.automations import AutomationCore

    (block,) = [block for block in blocks("docs/production.md", "yaml") if "trigger:" in block.text]
    alert = AutomationCore.model_validate(YAML(typ="safe", pure=True).load(block.text))
    assert {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"} < alert.trigger.expect
    assert [action.type for action in alert.actions] == ["send-notification"]


def test_the_units_in_the_production_page_are_those_that_systemd_takes(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    units = []
    for block in blocks("docs/production.md", "ini"):
        if found := re.match(r"# /etc/systemd/system/(\S+)\n", block.text):
            units.append(tmp_path / found[1])
            # The programs of the environment are not where a production machine has them.
            units[-1].write_text(re.sub(r"/srv/ae-pipeline/\.venv/bin/\S+", "/bin/true", block.text))
    assert len(units) == 3
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# What must be explained.


def test_every_metric_is_explained():
    page = DOCUMENTS["docs/metrics.md"].read_text(encoding="utf-8")
    source = (PACKAGE / "evaluation/evaluate.py").read_text() + (PACKAGE / "training/build.py").read_text()
    keys = set(
        re.findall(
            r'"((?:[a-z]+_)*(?:mse|psnr|ssim|mae|bce|rows|bytes|bytes_in|bytes_out|ratio|bits_per_row(?:_with_codec)?))"',
            source,
        )
    )
    assert keys
    assert [key for key in keys | {"best_epoch", "best_validation_loss"} if f"`{key}`" not in page] == []


@pytest.mark.parametrize(("folder", "document"), [(PACKAGE, "README.md"), (FLOWS, "docs/architecture.md")])
def test_the_tree_in_the_documents_is_the_tree(folder, document):
    (block,) = [block.text for block in blocks(document) if block.text.startswith(f"{folder.name}/\n")]
    listed = {
        name for line in block.splitlines()[1:] for name in re.findall(r"(?<= )([a-z_]+)(?:\.py|/)(?= )", line[:45])
    }
    real = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")}
    real |= {path.name for path in folder.iterdir() if (path / "__init__.py").exists()}
    assert listed == real


def test_the_schedules_in_the_operations_page_are_those_of_the_deployments():
    """Only which flows there are; times are for people."""
    page = DOCUMENTS["docs/operations.md"].read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \|", page.split("## On a schedule")[1].split("\n## ")[0], re.MULTILINE)
    deployments = YAML(typ="safe", pure=True).load(Path(ROOT, "prefect.yaml").read_text())["deployments"]
    assert set(rows) == {item["entrypoint"].split(":")[1] for item in deployments}


def test_every_test_that_the_promises_name_exists():
    named = re.findall(
        r"`(tests/[\w/]+\.py)::(test_\w+)`", DOCUMENTS["docs/reliability.md"].read_text(encoding="utf-8")
    )
    assert len(named) > 50
    assert [name for file, name in named if f"def {name}(" not in (ROOT / file).read_text()] == []
