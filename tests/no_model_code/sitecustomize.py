"""On the path of every command that the tests run in a clone: MLflow's loaders of models do not work there.

Whatever they would load can be code. Ours take the codec's files from a model version, so nothing may miss them.
"""

import importlib.abc
import importlib.util
import sys

LOADERS = {"mlflow.pyfunc": ("load_model", "load_pyfunc"), "mlflow.pytorch": ("load_model",)}


def refuse(*arguments, **options):
    raise RuntimeError("an MLflow model loader was called")


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules as they are, and replaces the loaders in them when they have been imported."""

    def find_spec(self, name, path, target=None):  # noqa: ARG002
        if name not in LOADERS:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            for loader in LOADERS[name]:
                if hasattr(module, loader):
                    setattr(module, loader, refuse)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
