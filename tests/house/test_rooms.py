"""The rooms of the package: every file has one, every import goes down, and dvc.yaml names what a stage is made of."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ae_pipeline.cli.stages import STAGES
from ae_pipeline.cli.stages.code import SOURCE_FILES
from ae_pipeline.params.options import MODELS, SOURCES
from ae_pipeline.provenance import CODE_FILE, code_digests

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ae_pipeline"
# From the top of the house to the ground: a file imports its own room and those below. A new room gets its line here.
ROOMS = (
    "__main__",
    "cli",
    "workspace",
    "experiments",
    "operation",
    "evaluation",
    "store",
    "training",
    "codec",
    "models",
    "sources",
    "kinds",
    "data",
    "params",
    "provenance",
    "files",
    "errors",
)
# What cannot change a stage's result: how messages and progress are worded, how files get their names, what params.yaml
# is checked for (its values are DVC parameters), where verified files are fetched from, how a store is cared for, which
# rows of it are chosen (stages take whole stores), how a workspace is made. No stage depends on these.
NEUTRAL = (
    "__init__",
    "cli/",
    "errors",
    "experiments/",
    "files",
    "operation/",
    "params/",
    "provenance",
    "sources/mirrors",
    "store/care/",
    "store/reading/scan",
    "training/progress",
    "workspace/",
)
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))


def room_of(module):
    return module.split("/")[0]


def imports_of(module):
    """Modules of the package that a module imports, anywhere in it but for type checkers, as `models/dense`."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    for_types = {id(inner) for node in ast.walk(tree) if is_for_types(node) for inner in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        name = node.module or "" if isinstance(node, ast.ImportFrom) and id(node) not in for_types else ""
        if name.startswith("ae_pipeline"):
            base = name.removeprefix("ae_pipeline").replace(".", "/").lstrip("/")
            for alias in node.names:
                found.add(as_module(f"{base}/{alias.name}".lstrip("/")) or as_module(base))
    return found - {None, module}


def is_for_types(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def as_module(name):
    if (PACKAGE / f"{name}.py").exists():
        return name
    return f"{name}/__init__".lstrip("/") if (PACKAGE / name / "__init__.py").exists() else None


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__"])
def test_every_file_is_in_a_room_and_imports_go_down(module):
    room = room_of(module)
    assert room in ROOMS, f"{module}.py is in no room: move it into one of {', '.join(ROOMS)}, or add its room to ROOMS"
    for imported in imports_of(module) - {"__init__"}:
        assert ROOMS.index(room) <= ROOMS.index(room_of(imported)), (
            f"{module}.py imports {imported}.py, which is in a room above it; move what both need into a room below, "
            "or hand it over as an argument"
        )


def test_no_two_files_import_each_other():
    done, path = set(), []

    def follow(module):
        assert module not in path, (
            f"{' -> '.join([*path[path.index(module) :], module])} is a circle; move what both need into a file below"
        )
        if module not in done:
            path.append(module)
            for imported in sorted(imports_of(module)):
                follow(imported)
            done.add(path.pop())

    for module in MODULES:
        follow(module)


def test_a_room_can_be_looked_over():
    for folder in [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")]:
        marks = ("__", ".", "py.typed")  # no code
        entries = [path.name for path in folder.iterdir() if not path.name.startswith(marks)]
        most = 16 if folder == PACKAGE else 13  # thirteen rooms and three files on the ground
        assert len(entries) <= most, f"{folder} has {len(entries)} entries; make a folder of those that belong together"


def reachable(module):
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += [imported for imported in imports_of(name) if not is_neutral(imported)]
    return seen


def is_neutral(module):
    return module.startswith(NEUTRAL) or module.endswith(("/__init__", "_options"))


def needed_by(stage):
    """`__init__` of models, sources and kinds load by name: the chosen model and source are templated dependencies."""
    stage_file = f"cli/stages/{stage}"
    loaded = {name for module in reachable(stage_file) for name in imports_of(module)}
    needed = reachable(stage_file)
    for room in ("models", "sources", "kinds"):
        if f"{room}/__init__" in loaded:
            needed |= {name for path in (PACKAGE / room).glob("[a-z]*.py") for name in reachable(f"{room}/{path.stem}")}
    return {name for name in needed if name == stage_file or not is_neutral(name)}


def is_covered(module, listed):
    """By its own line, its folder's, or the one of the chosen model or source."""
    parents = [f"ae_pipeline/{parent}" for parent in Path(module).parents]
    chosen = {"models": "ae_pipeline/models/${model.name}", "sources": "ae_pipeline/sources/${source.name}"}
    return f"ae_pipeline/{module}" in listed or chosen.get(room_of(module)) in listed or bool(set(parents) & listed)


def listed_by(stage):
    """What a stage names of the package in code.json."""
    return named_by(stage) - {SOURCE_FILES}


def named_by(stage):
    entry = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    assert not [dep for dep in entry.get("deps", []) if dep.startswith("ae_pipeline")], "a workspace has no such folder"
    return {name for item in entry["params"] if isinstance(item, dict) for name in item[CODE_FILE]}


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "publish"])
def test_what_can_change_a_stages_result_is_named_in_dvc_yaml_and_nothing_else(stage):
    listed, needed = listed_by(stage), needed_by(stage)
    missing = sorted(module for module in needed if not is_covered(module, listed))
    assert not missing, (
        f"stage {stage} runs {', '.join(missing)}: add them, or their folders, to its code.json in dvc.yaml"
    )
    idle = {dep for dep in listed if "${" not in dep and not any(is_covered(module, {dep}) for module in needed)}
    assert not idle, f"stage {stage} does not run {', '.join(sorted(idle))}: remove them in dvc.yaml (code.json)"


@pytest.mark.parametrize("stage", STAGES)
def test_what_dvc_yaml_names_of_code_json_is_there(stage):
    """DVC takes a name that is not there for a change at every run."""
    chosen = [("${model.name}", model) for model in MODELS] + [("${source.name}", source) for source in SOURCES]
    named = {name.replace(*pair) for name in listed_by(stage) for pair in chosen if pair[0] in name or "$" not in name}
    assert named <= code_digests().keys()


def test_a_change_of_the_sources_files_runs_download_and_nothing_else_by_itself():
    assert [stage for stage in STAGES if SOURCE_FILES in named_by(stage)] == ["download"]


def test_dvc_yaml_names_few_things():
    assert sum(len(listed_by(stage)) for stage in STAGES) <= 60
