# Everything here needs make and Python 3.11, 3.12 or 3.13; the rest is set up inside this folder.

PYTHON = python3
UV_VERSION = 0.13.9
UV = .tools/uv-$(UV_VERSION)/bin/uv
BIN = .venv/bin
# What `pip install petseg` brings, with the demo's photo and without TensorFlow.
DEMO_BIN = .venv-demo/bin

# For `make demo`: a folder of one's own photos.  For test, bench and others: more arguments.
IMAGES =
ARGS =
# For `make test`: test files at the same time.
JOBS = 2
# For `make soak`: which of the runs; for `make fuzz`: seconds for each parser.
SOAK = mutants kills memory
SECONDS = 600

# An active environment, or a Python that uv would fetch, must not get in the way.
unexport VIRTUAL_ENV CONDA_PREFIX
export UV_PYTHON_DOWNLOADS = never

.DEFAULT_GOAL = help
.PHONY: soak-mutants soak-kills soak-memory help setup setup-demo python demo test test-long test-scale test-jax soak fuzz lint format bench lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' Makefile | while read -r name text; do \
		printf 'make %-10s %s\n' "$$name" "$$text"; done

demo: setup-demo ## turn pictures into masks with the model in the package; IMAGES=folder for your own
	@$(DEMO_BIN)/python docs/demo.py $(if $(IMAGES),"$(IMAGES)") $(ARGS)

test: lint ## lint, then the tests
	$(BIN)/pytest -n $(JOBS) --dist loadfile --max-worker-restart 0 $(ARGS)

test-long: setup ## the tests that take minutes
	$(BIN)/pytest -m long $(ARGS)

test-scale: setup ## the longer tests of clusters and object stores
	$(BIN)/pytest -m scale $(ARGS)

test-jax: python $(UV) ## the tests that need jax
	$(call sync,.venv,--group jax)
	$(BIN)/pytest -m jax $(ARGS)

soak: setup $(SOAK:%=soak-%) ## the runs of docs/reliability.md, for hours; SOAK=kills for one of them

soak-mutants soak-kills: soak-%: setup
	PYTHONPATH=tests $(BIN)/python -m soak.$* $(ARGS)

# A hundred thousand without a network, and an hour with the packaged one; every hundredth is bad.
soak-memory: setup
	$(BIN)/python benchmarks/memory.py --bad 0.01 --out soak-null.png $(ARGS)
	$(BIN)/python benchmarks/memory.py --bad 0.01 --out soak-real.png --real --seconds 3600 $(ARGS)

fuzz: setup ## fuzz petseg's own parsers, each for SECONDS
	PYTHONPATH=tests $(BIN)/python -m soak.fuzz --seconds $(SECONDS) $(ARGS)

lint: setup ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup ## let ruff rewrite the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup ## measure petseg-batch against the other ways
	$(BIN)/python benchmarks/bench.py $(ARGS)

setup: python $(UV) ## the environment of everything but the demo, in .venv
	$(call sync,.venv)

setup-demo: python $(UV)
	$(call sync,.venv-demo,--no-default-groups --group demo)

lock: python $(UV) ## renew uv.lock
	$(UV) lock --upgrade --default-index https://pypi.org/simple --python "$(PYTHON)"

clean: ## remove the environments and all that make has made
	rm -rf .tools .venv .venv-demo demo dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find petseg export tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call sync,FOLDER,OPTIONS): make the environment in FOLDER what uv.lock says; quick when it is.
sync = UV_PROJECT_ENVIRONMENT=$(1) $(UV) sync --locked --python "$(PYTHON)" $(2)

python:
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
		{ echo "petseg needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is" \
			"$$("$(PYTHON)" --version 2>/dev/null || echo missing): make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }

$(UV): | python
	"$(PYTHON)" -m venv --clear .tools/uv-$(UV_VERSION)
	.tools/uv-$(UV_VERSION)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
