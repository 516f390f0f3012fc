# `make demo` runs the demonstration and `make test` the whole suite; both install what they need on a new machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
# 1 installs the versions of requirements/*.txt and refuses a file with another hash; 0 lets pip resolve (constraints.txt).
LOCKED ?= 1

.PHONY: demo test lint types check-tests attack nightly test-hosts docs page bench compiled gpu dist clean locks audit test-lowest test-matrix

demo: $(VENV)/.demo
	$(BIN)/donod-fast demo --out demo-out

test: lint types check-tests

lint: $(VENV)/.dev build/tree
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/tree && PYTHONPATH=. ../../$(BIN)/lint-imports ../../pyproject.toml

types: $(VENV)/.dev build/tree
	cd build/tree && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p donod_fast

# mypy, import-linter and mkdocstrings do not know that kernels/ and recipes/ are installed inside donod_fast, so they run
# on a tree with that layout.
.PHONY: build/tree
build/tree:
	@rm -rf build/tree && mkdir -p build/tree/donod_fast
	@cp -rs $(CURDIR)/donod_fast/. build/tree/donod_fast/
	@ln -s $(CURDIR)/kernels build/tree/donod_fast/kernels
	@ln -s $(CURDIR)/recipes build/tree/donod_fast/recipes

# The tests of a file run in one worker, because they share expensive fixtures.
check-tests: $(VENV)/.dev
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --durations=10

# Every attack, not the suite's share, and the counts by kind in bench/results/attacks.csv. Run it as root with bubblewrap
# installed: only then does it try both kinds of isolation as root and as an ordinary user.
attack: $(VENV)/.dev
	$(BIN)/pytest -m attack -n $(WORKERS) --dist loadfile --attacks full --attack-table bench/results/attacks.csv

# The tests marked nightly, then kills, fuzzed records and files, and flips: SHARE of the full set, and a table of the counts.
# FULL=1 runs all of it and writes bench/results/faults.csv; interrupted, the same command continues (build/faults.jsonl).
SHARE ?= 0.2
FULL ?= 0
nightly: $(VENV)/.dev
	DONOD_FAST_NIGHTLY=1 $(BIN)/pytest -m nightly -n $(WORKERS) --dist loadfile
	$(BIN)/python tests/support/fault_run.py $(if $(filter 1,$(FULL)),--share 1 --csv bench/results/faults.csv,--share $(SHARE))

# Each host that this package plugs into, in an environment of its own under build/hosts: its own program on the embedded
# corpus, compared with `donod-fast score`. HOSTS="datatrove axolotl" runs some of them. Needs the network.
test-hosts:
	$(PYTHON) tests/hosts/run_hosts.py --out bench/results/hosts.csv $(HOSTS)

# The site, in build/site. A broken link, a broken anchor or an unknown Python name fails the build.
docs: $(VENV)/.docs build/tree
	$(BIN)/python docs/tools/render.py --out build/docs
	$(BIN)/python -m zensical build --strict

# The JavaScript of the report, built from the packages of its lock file. Needs Node.js, npm and the network; the result is
# committed, so nothing else does.
page:
	rm -rf build/page && mkdir -p build/page && cp donod_fast/reports/page/package.json donod_fast/reports/page/package-lock.json build/page/
	cd build/page && npm ci --no-audit --no-fund
	node donod_fast/reports/page/build.mjs build/page

bench: $(VENV)/.dev
	cd bench && ../$(BIN)/python head.py
	cd bench && ../$(BIN)/python plot_head.py
	cd bench && ../$(BIN)/python end_to_end.py --model ../../shared/models/tiny-instruct --data ../../shared/data/gsm8k/test.jsonl
	cd bench && ../$(BIN)/python end_to_end.py --model ../../shared/models/tiny-instruct --data ../../shared/data/gsm8k/test.jsonl --head 32000

# Table of the machine code of every shipped tile shape, and the times that are predicted from it. It takes some ten
# minutes on two cores and needs no GPU.
compiled: $(VENV)/.dev
	$(BIN)/python -m donod_fast.kernels.triton_backend.compiled --csv bench/results/compiled.csv
	cd bench && ../$(BIN)/python roofline.py --csv results/roofline.csv

# Uses the machine's own python3, which has a CUDA build of torch. The first lease tells most within nine minutes; what it
# has done for the device and commit is not repeated. Then every other step, within nine minutes each;
# GPU_OPTIONS="--budget 540" stops after as many steps as fit, and the next run continues.
gpu:
	-$(PYTHON) bench/first_lease.py --if-missing
	$(PYTHON) bench/gpu.py $(GPU_OPTIONS)

# Source distribution and wheel, in dist/.
dist: $(VENV)/.release
	rm -rf dist build/lib
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

LOCK := requirements/install.py requirements/cuda.txt
SOURCES := setup.py pyproject.toml constraints.txt
# $(1): set of packages; $(2): what pip installs instead without the lock.
install = @$(if $(filter 1,$(LOCKED)),$(BIN)/python requirements/install.py $(1),$(BIN)/python -m pip install -q -c constraints.txt $(2))

$(VENV)/.demo: $(BIN)/python $(SOURCES) $(LOCK) requirements/demo.txt
	$(call install,demo,-e ".[plot]")
	@touch $@

$(VENV)/.dev: $(BIN)/python $(SOURCES) $(LOCK) requirements/dev.txt requirements/real-model.txt
	$(call install,dev,-e ".[dev]")
	@touch $@

$(VENV)/.docs: $(BIN)/python $(SOURCES) $(LOCK) requirements/docs.txt
	$(call install,docs,-e ".[docs]")
	@touch $@

$(VENV)/.release: $(BIN)/python $(LOCK) requirements/release.txt
	$(call install,release,"build>=1.2" "twine>=6.1")
	@touch $@

# Writes requirements/*.txt from pyproject.toml and constraints.txt. Needs the network.
locks: build/locks/bin/python
	build/locks/bin/python requirements/lock.py

build/locks/bin/python: requirements/locks.txt
	$(PYTHON) -m venv build/locks
	build/locks/bin/python requirements/install.py locks
	@touch $@

# Known vulnerabilities of everything that is locked. Needs the network.
audit: build/audit/bin/python
	build/audit/bin/python -m pip_audit --disable-pip --require-hashes $(foreach set,dev demo docs cuda release,-r requirements/$(set).txt)

build/audit/bin/python: requirements/audit.txt
	$(PYTHON) -m venv build/audit
	build/audit/bin/python requirements/install.py audit
	@touch $@

# The suite at the lower bounds of pyproject.toml, in an environment of its own.
test-lowest: build/lowest/.done
	build/lowest/bin/pytest -n $(WORKERS) --dist loadfile

build/lowest/.done: $(LOCK) requirements/lowest.txt
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/python requirements/install.py lowest
	@touch $@

# A part of the suite on other releases of transformers and torch, each in an environment of its own in build/matrix. The
# results are in bench/results/matrix.csv. MATRIX=NAME runs one of them. Needs the network, and 6 GB for a CUDA build of torch.
test-matrix:
	$(PYTHON) tests/matrix/run.py $(MATRIX)

clean:
	rm -rf $(VENV) build dist demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
