# make demo: train, judge and report on real handwritten digits.    make test: the whole suite.    make check: what CI runs.
PYTHON ?= python3
BIN := .venv/bin
# packages may also lie in a local folder that pip has been told of; uv is told the same
FIND_LINKS = UV_FIND_LINKS="$$($(BIN)/pip config get global.find-links 2>/dev/null)"
INSTALL = $(FIND_LINKS) $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt

.PHONY: demo test check clean

demo: .venv/.installed
	rm -rf runs/demo
	$(BIN)/narrows fit digits --recipe vae --latent 8 --seed 0 --folder runs/demo

test: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

check: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf .venv runs dist

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# torch comes first and through the constraints: left to a resolver, the newest build with its CUDA packages would come
.venv/.installed: pyproject.toml constraints.txt | .venv/bin/uv
	$(INSTALL) torch
	$(INSTALL) -e .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(INSTALL) -e '.[dev]'
	touch $@
