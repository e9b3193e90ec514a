# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

PEERS := .venv/.peers

# Processes that share the tests. Each may use two threads.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist

.PHONY: help demo test check uncompiled scalar lint format peers clean

help:
	@echo "make demo        install into .venv, compare on real photographs, write report.html"
	@echo "make test        install into .venv, run all tests"
	@echo "make check       run every kernel that uses vectors with all its accesses checked (minutes)"
	@echo "make uncompiled  test the kernels without compilation, on a sample of the cases"
	@echo "make scalar      test the kernels without vectors, on a sample of the cases"
	@echo "make lint        ruff and mypy"
	@echo "make format      let ruff format the code"
	@echo "make peers       install what the benchmarks compare with"
	@echo "make clean       remove .venv and caches"

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("hybridseg needs Python >= 3.11") if sys.version_info < (3, 11) else 0'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[all,dev]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/hybridseg demo --out report.html

test: $(INSTALLED)
	$(PYTEST) loadfile

check: $(INSTALLED)
	HYBRIDSEG_CHECK=1 $(PYTEST) worksteal tests/kernels/test_checked.py tests/kernels/test_compile.py tests/kernels/test_sweep.py

ROOMS := superpixels dense sparse cuts laplacian contours
OF_KERNELS := $(ROOMS:%=tests/kernels/%) tests/inference/cuts/test_flows.py

uncompiled: $(INSTALLED)
	NUMBA_DISABLE_JIT=1 $(PYTEST) worksteal $(OF_KERNELS)

scalar: $(INSTALLED)
	HYBRIDSEG_SIMD=0 $(PYTEST) worksteal $(OF_KERNELS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# gco-wrapper asks for too much, and fast-slic builds with an old setuptools only
$(PEERS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check PyMaxflow pydensecrf2 bkgco \
		thinhpf opencv-contrib-python-headless pyamg morphsnakes monai pytorchcv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gco-wrapper
	$(BIN)/python -m pip install --quiet --disable-pip-version-check cython wheel "setuptools<70"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation fast-slic
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade setuptools
	@touch $@

peers: $(PEERS)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
