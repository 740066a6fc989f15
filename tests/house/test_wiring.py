"""dvc.yaml, the stages, params.yaml and prefect.yaml say the same thing, and imports point one way."""

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest
from clone import ROOT, read_yaml
from prefect.client.schemas.schedules import CronSchedule

from ae_pipeline.cli.stages import CODE, STAGES
from ae_pipeline.experiments.presets import preset_params
from ae_pipeline.operation.serving import POOL
from ae_pipeline.params import load_params

PACKAGE = ROOT / "ae_pipeline"
FLOWS = ROOT / "flows"


DEPLOYMENTS = read_yaml(ROOT / "prefect.yaml")["deployments"]


def test_dvc_yaml_has_the_stages_of_the_package_in_order():
    entries = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert tuple(entries) == (CODE, *STAGES)
    for name, entry in entries.items():
        assert entry["cmd"] == f"python -m ae_pipeline stage {name}"
        assert (PACKAGE / "cli/stages" / f"{name}.py").exists()


def test_params_yaml_names_every_knob_and_holds_the_defaults_of_params_py_and_a_preset():
    values = read_yaml(ROOT / "params.yaml")
    defaults = preset_params("compact_balanced").model_dump(mode="json")
    defaults["train"]["epochs"] = 90  # five minutes
    # What is good enough depends on the data: the numbers in params.yaml are for MNIST.
    gate = values["evaluate"].pop("gate")
    assert set(gate) == set(defaults["evaluate"].pop("gate"))
    assert values == defaults
    assert load_params(ROOT / "params.yaml").evaluate.gate.max_mse == gate["max_mse"]


def test_every_param_in_dvc_yaml_exists():
    values = read_yaml(ROOT / "params.yaml")
    entries = read_yaml(ROOT / "dvc.yaml")["stages"]
    for entry in entries.values():
        for name in (item for item in entry.get("params", []) if isinstance(item, str)):
            value = values
            for part in name.replace("${model.name}", "dense").replace("${source.name}", "mnist").split("."):
                assert part in value, name
                value = value[part]


@pytest.mark.parametrize(
    "module", [path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py")]
)
def test_there_is_one_door_for_each_outsider(module):
    text = (PACKAGE / f"{module}.py").read_text()
    doors = {
        "mlflow": {f"operation/tracking/{name}" for name in ("publish", "pyfunc_model", "connection")},
        "optuna": {"experiments/sweep/study"},
        "requests": {"sources/mirrors"},
        "torchvision": {"sources/mirrors"},
    }
    for outsider, allowed in doors.items():
        if re.search(rf"^\s*(import|from) {outsider}\b", text, re.MULTILINE):
            assert module in allowed
    assert not re.search(r"^\s*(import|from) (prefect|dvc|pickle)\b", text, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(path.name for path in FLOWS.glob("*.py")))
def test_one_file_of_the_flows_starts_dvc_and_none_knows_mlflow(name):
    tree = ast.parse((FLOWS / name).read_text())
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {
        node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
    assert not imported & {"mlflow", "torch", "pickle"}
    if name != "dvc_tasks.py":
        assert "dvc" not in imported
        assert "subprocess" not in imported
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert "dvc" not in words


def test_only_the_flows_import_prefect():
    """The package's own files have a test above; benches and scripts run without it, too."""
    for path in ROOT.glob("bench/*.py"):
        assert not re.search(r"^\s*(import|from) prefect\b", path.read_text(), re.MULTILINE), path


def test_nothing_in_the_package_imports_the_flows():
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"^\s*(import|from) flows\b", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_every_deployment_is_of_a_flow_with_parameters_that_it_has(deployment):
    from prefect import Flow

    file, function = deployment["entrypoint"].split(":")
    assert (ROOT / file).exists()
    flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), function)
    assert isinstance(flow, Flow)
    assert flow.name == function
    flow.validate_parameters(deployment["parameters"])
    assert deployment["work_pool"]["name"] == POOL
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    for schedule in deployment["schedules"]:
        CronSchedule(**schedule)


def test_every_flow_has_a_deployment_and_the_monitor_starts_one_that_there_is():
    from flows.monitor import REBUILD
    from flows.recovery import FLOWS as RECOVERED

    flows = {path.stem for path in FLOWS.glob("*.py") if "\n@flow(" in path.read_text()}
    named = {Path(item["entrypoint"].split(":")[0]).stem: item["name"] for item in DEPLOYMENTS}
    assert flows == set(named)
    assert flows == set(RECOVERED)
    assert f"rebuild/{named['rebuild']}" == REBUILD


def test_plain_make_lists_every_target():
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split())
    assert set(re.findall(r"^  make (\S+)", listed, re.MULTILINE)) == targets
