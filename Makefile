# Everything sets itself up: a machine with Python 3.11 or newer and make is enough.
PYTHON ?= python3
VENV := .venv
PARITY := .venv-parity
BENCH := .venv-bench
BIN := $(VENV)/bin
MODEL ?= openai/clip-vit-base-patch32
PHOTOS ?= photos
FUZZ ?= 1

SITE := .venv-docs
BROWSER := .venv-browser
WHEEL := .venv-wheel
CLUSTER := .venv-cluster

.PHONY: help demo test fuzz check browser cluster parity wheel bench docs clean

help:
	@echo "make demo    classify images with what is here, offline, and show the page"
	@echo "make test    run the tests"
	@echo "make fuzz    the seeded fuzz tests at length: 100,000 inputs for each reader"
	@echo "make check   ruff, mypy --strict, the walls between the layers"
	@echo "make browser the page of nshot serve in a real Chromium (chromium and chromium-driver must be there)"
	@echo "make cluster the recipes of docs/scale.md on this machine: Ray, Slurm where it is installed (installs Ray in its own environment)"
	@echo "make parity  compare with transformers (installs torch in its own environment)"
	@echo "make wheel   build the wheel, install it into an empty environment, and try it there"
	@echo "make docs    write the command line's page, build the site, check its links"
	@echo "make bench   measure speed and memory with the peers beside it (installs them in an environment of their own)"

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nshot needs Python 3.11 or newer; try make PYTHON=python3.12 " + "$(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --editable ".[dev]"
	@touch $@

$(PARITY)/.installed: pyproject.toml
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet torch==2.13.0 transformers peft tensorboard
	$(PARITY)/bin/python -m pip install --quiet --no-deps open_clip_torch timm
	$(PARITY)/bin/python -m pip install --quiet --no-deps --target $(PARITY)/apart torchvision
	$(PARITY)/bin/python -m pip install --quiet regex sentencepiece protobuf nncf
	$(PARITY)/bin/python -m pip install --quiet --editable ".[data]" pytest
	@touch $@

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not parity and not browser and not cluster"

fuzz: $(VENV)/.installed
	NSHOT_FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz

check: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_walls.py

$(BROWSER)/.installed: pyproject.toml
	$(PYTHON) -m venv $(BROWSER)
	$(BROWSER)/bin/python -m pip install --quiet --editable ".[serve]" "pytest>=8.3" "selenium>=4.20" "axe-core-python==0.1.0"
	@touch $@

browser: $(BROWSER)/.installed
	$(BROWSER)/bin/python -m pytest -m browser tests/browser

$(CLUSTER)/.installed: pyproject.toml
	$(PYTHON) -m venv $(CLUSTER)
	$(CLUSTER)/bin/python -m pip install --quiet --editable ".[cloud,ray]" "ray[default]>=2.40" "pytest>=8.3" "moto[server]>=5.0" kubernetes-validate
	@touch $@

cluster: $(CLUSTER)/.installed
	$(CLUSTER)/bin/python -m pytest -m cluster tests/cluster

parity: $(PARITY)/.installed
	$(PARITY)/bin/python -m pytest -m parity tests/parity

demo: $(VENV)/.installed
	$(BIN)/python tools/demo.py

# The peers of bench/: one that cannot be installed here leaves a row that says so. torchvision's wheel is of
# the plain build of torch; beside the processor's own it stands apart and serves open_clip alone.
$(BENCH)/.installed: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet torch==2.13.0 transformers
	$(BENCH)/bin/python -m pip install --quiet --editable ".[data,int8]"
	for peer in sentence-transformers onnx onnxruntime; do $(BENCH)/bin/python -m pip install --quiet $$peer || echo "no $$peer here"; done
	$(BENCH)/bin/python -m pip install --quiet ftfy regex || true
	$(BENCH)/bin/python -m pip install --quiet --no-deps open_clip_torch timm || echo "no open_clip here"
	$(BENCH)/bin/python -m pip install --quiet --no-deps --target $(BENCH)/apart torchvision || echo "no torchvision here"
	@touch $@

bench: $(BENCH)/.installed
	$(BENCH)/bin/python bench/speed.py --model "$(MODEL)" --photos "$(PHOTOS)"

clean:
	rm -rf $(VENV) $(PARITY) $(BENCH) $(BROWSER) $(CLUSTER) $(WHEEL) $(SITE) site demo bench/out dist build

wheel:
	rm -rf dist $(WHEEL)
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(WHEEL)/bin/python -m pip install --quiet dist/*.whl
	cd / && "$(CURDIR)/$(WHEEL)/bin/python" -P "$(CURDIR)/tools/smoke.py"

$(SITE)/.installed: pyproject.toml
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet --editable ".[docs]"
	@touch $@

docs: $(SITE)/.installed
	$(SITE)/bin/python docs/generate.py
	$(SITE)/bin/mkdocs build --quiet --strict
