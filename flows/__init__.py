"""Prefect flows: when things run, retries, visibility. They run DVC stages and the package's functions; no science.

One file per flow: rebuild.py, encode_new.py, evaluate_and_promote.py, monitor.py. prefect.yaml deploys them;
docs/operations.md says how to run them.
"""

import os

# A flow that is run by hand starts a server of Prefect's for as long as it runs; nobody is to be called home.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# No flow loads a model by MLflow; should one ever, no pickle in it runs.
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
