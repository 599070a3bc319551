# Two commands: `make quickstart` trains a chat model on this machine, `make test` proves the code.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= 2.13.0
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help quickstart prose rounds test test-slow test-peers lint format clean

help:
	@echo "make quickstart   set up, then walk roadmaps/quickstart.toml (about ten minutes on two cores)"
	@echo "make prose        the same on real text: walk roadmaps/prose.toml, after setting GRADUS_DATA (40 minutes)"
	@echo "make rounds       fine-tuning in rounds, from the base of prose.toml: walk roadmaps/rounds.toml"
	@echo "make test         set up, then lint, types, import contracts and the tests"
	@echo "make test-slow    the tests that take longer than make test allows"
	@echo "make test-peers   the tests that need other systems (Ray, S3, TRL, PEFT, lm-eval, openai, llama.cpp), in an environment of their own"
	@echo "make lint         ruff, mypy and the import contracts alone"

# torch comes first and by itself: another package would pull its CUDA build.
.venv/installed: pyproject.toml constraints.txt
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
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --editable '.[dev,ray,s3,lmeval,llamacpp]' 'moto[server,s3]' 'trl==1.16.0' peft openai tavily-python
	@touch $@

test-peers: .venv-peers/installed
	.venv-peers/bin/pytest tests/data/test_on_ray.py tests/release/test_s3.py tests/posttrain/test_trl.py tests/model/test_lora.py tests/eval/test_harness.py tests/serve/test_openai_client.py tests/engine/test_llamacpp.py tests/release/test_llamacpp.py tests/release/test_gguf_cache.py tests/tools/test_search_services.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-peers .mypy_cache .pytest_cache .ruff_cache
