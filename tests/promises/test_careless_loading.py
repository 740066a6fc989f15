"""No line of package and flows runs code that it finds in a file: imports and calls, as Python parses them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "ae_pipeline").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])
# PyYAML's usual loaders make Python objects; ruamel's "safe" one makes none.
MODULES = {
    "pickle",
    "_pickle",
    "pickletools",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "yaml",
    "runpy",
    "code",
}
NAMES = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
# Functions of any module: MLflow's, NumPy's, pandas', Keras', PyYAML's.
FUNCTIONS = {"load_model", "load_pyfunc", "spark_udf", "read_pickle", "unsafe_load", "full_load"}
# What these must be given, by the end of their name: keyword and value; None: any value.
REQUIRED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "YAML": ("typ", "safe"),
    "Image.open": ("formats", None),  # Pillow has Ghostscript run PostScript
}
FORBIDDEN = {"allow_pickle": True, "weights_only": False, "shell": True, "trust_remote_code": True}


def modules_of(node):
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module.split(".")[0], *(alias.name for alias in node.names if alias.name in FUNCTIONS)}
    return set()


def is_careless(call):
    name = ast.unparse(call.func)
    given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
    if name in NAMES or name.split(".")[-1] in FUNCTIONS:
        return True
    if any(given.get(keyword) is value for keyword, value in FORBIDDEN.items()):
        return True
    if name.split(".")[-1] == "import_module":  # one of ours, whatever a file says
        return not ast.unparse(call.args[0]).lstrip("f").strip("'\"").startswith("ae_pipeline.")
    for end, (keyword, value) in REQUIRED.items():
        if f".{name}".endswith(f".{end}"):
            return keyword not in given or value not in (None, given[keyword])
    return False


def careless_lines(text):
    for node in ast.walk(ast.parse(text)):
        if modules_of(node) & {*MODULES, *FUNCTIONS} or (isinstance(node, ast.Call) and is_careless(node)):
            yield f"{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_loads_what_could_run(path):
    assert list(careless_lines(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from cloudpickle import load",
        "import yaml",
        "from mlflow.pyfunc import load_model",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.savez(path, allow_pickle=True)",
        "YAML().load(text)",
        "YAML(typ='unsafe').load(text)",
        "mlflow.pyfunc.load_model(uri)",
        "eval(text)",
        "exec(text)",
        "import_module(name)",
        "import_module(f'{package}.ae_pipeline.x')",
        "subprocess.run(line, shell=True)",
        "Image.open(path)",
    ],
)
def test_careless_lines_are_found(line):
    assert len(list(careless_lines(line))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "YAML(typ='safe', pure=True).load(text)",
        "import_module(f'ae_pipeline.models.{name}')",
        "model.eval()",
    ],
)
def test_careful_lines_are_left_alone(line):
    assert list(careless_lines(line)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "flows").glob("*.py")), ids=lambda path: path.stem)
def test_no_flow_or_task_keeps_a_result_and_none_would_be_a_pickle(path):
    """Prefect's own serializer is cloudpickle."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for decorator in getattr(node, "decorator_list", []):
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in ("flow", "task"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in decorator.keywords}
                assert (given["persist_result"], given["result_serializer"]) == ("False", "'json'")
            else:
                assert ast.unparse(decorator) not in ("flow", "task")
