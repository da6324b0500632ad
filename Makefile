# `make ablation` and `make test` do all the setup: they need Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PEERS := .venv-peers

# The tests run on the CPU even if JAX would find another device.
test test-slow test-exhaustive: export JAX_PLATFORMS = cpu
# One process runs all tests of a file: they share fixtures and compiled programs.
PYTEST := $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20
# Chooses the twentieth of the exhaustive tests that `make test-slow` runs.
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null || echo none)

.PHONY: help demo ablation test test-slow test-exhaustive lint format notebooks tables bench clean

help:
	@echo 'make ablation         frozen CNN against ViT on embedded data, the table in runs/quickstart'
	@echo 'make demo             a detector and a segmenter on generated images, the picture in runs/demo.png'
	@echo 'make test             the tests'
	@echo 'make test-slow        the slow tests and a twentieth of the exhaustive ones, chosen by the commit'
	@echo 'make test-exhaustive  all exhaustive tests: repeated kills, meshes, sizes and seeds'
	@echo 'make lint             ruff (lint, format) and ty (types)'
	@echo 'make format           reformat'
	@echo 'make notebooks        execute the notebooks on the rows in results/'
	@echo 'make bench            passes, heads, training steps, reading and detection against torch, ONNX Runtime, scikit-learn'
	@echo 'make tables           write the tables of README.md and docs/ again from the rows in results/'
	@echo 'make clean            remove .venv and caches; runs/ stays'

ablation: $(VENV)/installed
	$(RUN) -m experiments.ablate --config configs/ablations/quickstart.py --workdir runs/quickstart $(OPTIONS)

demo: $(VENV)/installed
	$(RUN) -m experiments.demo

test: $(VENV)/installed-dev
	$(PYTEST)

test-slow: $(VENV)/installed-dev
	$(PYTEST) -m 'slow or exhaustive' --part-of '$(COMMIT)'

test-exhaustive: $(VENV)/installed-dev
	$(PYTEST) -m exhaustive

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ty check --python $(VENV)

format: $(VENV)/installed-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

notebooks: $(VENV)/installed-dev
	$(RUN) notebooks/execute.py --into runs/notebooks

tables: $(VENV)/installed
	$(RUN) -m experiments.results tables README.md docs/*.md

# What needs no peers: python -m benchmarks.memory, python benchmarks/startup.py, python benchmarks/linear_probe.py.
bench: $(VENV)/installed-dev $(PEERS)/installed
	for each in extract heads train_step data detect; do \
		$(RUN) -m benchmarks.$$each --peers $(PEERS)/bin/python $(OPTIONS) || exit 1; \
	done

$(PEERS)/installed: benchmarks/peers/requirements.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt
	@touch $@

# Installs again only after a requirements file has changed.
$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'error: Python 3.11 or newer is needed, $(PYTHON) is older; run make PYTHON=python3.12'; exit 2; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -e .
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[onnx]' || \
		echo 'ONNX Runtime cannot be installed here: frozen passes on the CPU stay with XLA, which is slower'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS) .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
