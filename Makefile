# make demo: train, judge and report on real handwritten digits.    make test: the whole suite.    make check: what CI runs.
PYTHON ?= python3
BIN := .venv/bin
# uv is quick; where it cannot install, pip does. What pip was told of certificates and local packages, uv is told too
export UV_SYSTEM_CERTS := 1
export UV_FIND_LINKS := $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)
install = $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt $(1) \
	|| $(BIN)/python -m pip install --quiet -c constraints.txt $(1)

.PHONY: demo test check clean

demo: .venv/.installed
	rm -rf runs/demo
	$(BIN)/narrows fit digits --recipe vae --latent 8 --seed 0 --folder runs/demo

test: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup

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
	$(call install,torch)
	$(call install,-e .)
	touch $@

.venv/.installed-dev: .venv/.installed
	$(call install,-e '.[dev]')
	touch $@
