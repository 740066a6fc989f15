"""MLflow's model loaders replaced, in every process that is started: whoever calls one is noted and gets an error.

    guard = Guard(folder)
    subprocess.run(..., env={**os.environ, **guard.environment})
    guard.calls, guard.switches

`sitecustomize`, which Python imports when it starts, wraps the modules of MLflow as they are imported. Model code may
be executed in one place, where MLflow writes a model from code: that of this package, byte for byte.
"""

import os
from pathlib import Path

import ae_pipeline

SWITCH = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
"""What MLflow (3.17) has to switch off pickles in models; it has no switch for their code."""
_PACKAGE = Path(ae_pipeline.__file__).parent
_SITECUSTOMIZE = f"""
import os
import sys

if os.environ.get("AE_TEST_WARM"):
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    import warm

    del sys.path[0]
    warm.hand_over()
"""
_SITECUSTOMIZE += """
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder

LOADERS = ("load_model", "load_pyfunc", "_load_pyfunc", "_load_context_model_and_signature", "_load_model_or_server")


def note(line):
    with open(os.environ["AE_TEST_GUARD"], "a") as file:
        file.write(f"{line} in {' '.join(sys.orig_argv[1:])}\\n")


def note_switch():
    note(f"switch {os.environ.get('MLFLOW_ALLOW_PICKLE_DESERIALIZATION')}")


def refuse(name):
    def loader(*arguments, **options):
        note(f"call of {name}")
        raise RuntimeError(f"{name} is not to be called here")

    return loader


def only_ours(execute):
    def load(code_path, *arguments, **options):
        with open(code_path, "rb") as found, open(os.environ["AE_TEST_MODEL_CODE"], "rb") as ours:
            if found.read() != ours.read():
                return refuse(f"model code {code_path}")()
        return execute(code_path, *arguments, **options)

    return load


class Guarded(Loader):
    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        if module.__name__ == "mlflow.environment_variables":
            note_switch()
        for name in LOADERS:
            if callable(vars(module).get(name)):
                setattr(module, name, refuse(f"{module.__name__}.{name}"))
        if module.__name__ == "mlflow.models.utils":
            module._load_model_code_path = only_ours(module._load_model_code_path)

    def __getattr__(self, name):  # what else importlib and inspect ask a loader for
        return getattr(self._loader, name)


class Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if not name.startswith("mlflow."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = Guarded(spec.loader)
        return spec


sys.meta_path.insert(0, Finder())
"""


class Guard:
    """Makes the folder; `environment` is for the processes to be guarded."""

    def __init__(self, folder: Path):
        (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self._log = folder / "log"
        self._log.touch()
        self.environment = {
            "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "AE_TEST_GUARD": str(self._log),
            "AE_TEST_MODEL_CODE": str(_PACKAGE / "operation/tracking/pyfunc_model.py"),
        }

    @property
    def calls(self) -> list[str]:
        """What was called that must not be, and by which command."""
        return [line for line in self._log.read_text().splitlines() if not line.startswith("switch ")]

    @property
    def switches(self) -> list[str]:
        """For each process that imported MLflow: `switch VALUE in COMMAND`, with the value of MLflow's variable."""
        return [line for line in self._log.read_text().splitlines() if line.startswith("switch ")]
