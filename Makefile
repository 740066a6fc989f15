# Plain `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PREFECT_PORT ?= 4200
MLFLOW_PORT ?= 5000
# No phone-home from the tools.
export DO_NOT_TRACK = true
export DVC_NO_ANALYTICS = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export MLFLOW_DISABLE_TELEMETRY = true
# Stages run `python`: the environment's.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help env run bench reference serve mlflow-ui check quick test lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##\(.*\)/\1 \2/p' $(MAKEFILE_LIST) | awk '{printf "  make %-12s", $$1; $$1 = ""; print}'

env: $(VENV)/ready  ## create the environment .venv from the lock

# The stamp is written last: an interrupted installation is not taken for a whole one.
$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) found, Python >= 3.11 expected; run: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: env  ## build everything that changed (dvc repro) and show what came out
	@ae-pipeline check
	dvc repro
	@ae-pipeline summary

bench: env  ## our codecs beside PCA, image codecs and compressors: reports/bench.md
	dvc repro bench/dvc.yaml

reference: env  ## the brief's 784-128-784 network as an experiment beside the workspace
	dvc exp run --temp --name reference \
	  -S model.name=dense -S train.rate_weight=0 -S quantiser.levels=16 -S encode.layout=list \
	  -S 'model.dense.hidden_sizes=[]' -S model.dense.latent_activation=relu -S model.dense.latent_norm=none \
	  -S train.latent_size=128 -S train.optimizer=adadelta -S train.learning_rate=1.0 -S train.schedule=constant -S train.ema=0 \
	  -S train.loss=bce -S train.initialisation=glorot -S train.batch_size=256 -S train.epochs=50 \
	  -S train.patience=0 -S train.weight_decay=0 \
	  -S evaluate.gate.max_mse=0.02 -S evaluate.gate.beat_pca=false -S tracking.registered_model=mnist-reference
	dvc exp show --only-changed --md \
	  --drop '(ae_pipeline|data/|reports/).*|(evaluate|tracking|model).*|.*(bytes|rows|ratio|mae|bce|ssim|with_codec|best|raw|unq).*'

serve: env  ## run the flows on their schedules, with Prefect's and MLflow's pages on loopback, until Ctrl-C
	ae-pipeline serve --prefect-port $(PREFECT_PORT) --mlflow-port $(MLFLOW_PORT)

mlflow-ui: env  ## open MLflow's pages on loopback, over the store that the runs are in
	ae-pipeline mlflow-ui --port $(MLFLOW_PORT)

check: env  ## formatting, lint, types
	ruff format --check .
	ruff check .
	mypy

quick: env  ## the tests that take no server and at most a second each
	pytest -m 'not slow and not server' --numprocesses logical --maxprocesses 4 --dist loadfile

# One process more than cores: tests that wait for servers leave theirs idle. Files come in the order of conftest.py.
test: env  ## all tests, a file at a time in each process; the slowest 30 are listed
	pytest --numprocesses $$(python -c 'import os; print(min(os.cpu_count() + 1, 5))') --dist loadfile --no-loadscope-reorder

lock:  ## resolve requirements.lock anew (needs uv)
	uv pip compile --universal --python-version 3.11 --no-header --extra dev pyproject.toml --output-file requirements.lock

clean:  ## remove what the stages made; keeps .venv, DVC's cache and MLflow's store
	rm -rf code.json data/raw data/prepared data/codec data/latents data/decoded data/.work reports dvc_plots
