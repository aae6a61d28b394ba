# The commands of the README. PYTHON chooses the interpreter of the new virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all torture gpu-check lint format clean

demo: $(VENV)/.installed
	cd egs/digits/ASR && PYTHON=python PATH="$(abspath $(BIN)):$$PATH" ./run.sh $(DEMO_ARGS)

# A process for each CPU; the tests of one file share theirs.
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

test-all: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist loadfile

# Attacks on programs: kills, full disks, damaged files, wrong options. Half an hour on two cores.
torture: $(VENV)/.installed-test
	$(BIN)/python -m pytest -v test/torture

# Results and speed on this machine's GPU, by its own torch: docs/gpu.md.
gpu-check:
	$(PYTHON) test/gpu/check.py $(GPU_CHECK_ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check asr_core egs test setup.py
	$(BIN)/ruff format --check --diff asr_core egs test setup.py
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix asr_core egs test setup.py
	$(BIN)/ruff format asr_core egs test setup.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and by itself: asked for by another package, pip may take its largest build.
$(VENV)/.installed: setup.py requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e ".[demo]"
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
