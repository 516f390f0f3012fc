# Everything a fresh machine needs: `make demo` shows the main job, `make test` runs the whole suite.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types check-tests bench gpu clean

demo: $(VENV)/.demo
	$(BIN)/donod-fast demo --out demo-out

test: lint types check-tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not see that kernels/ is installed as donod_fast.kernels, so it is shown a tree where it is.
types: $(VENV)/.dev
	@rm -rf build/types && mkdir -p build/types/donod_fast
	@cp -rs $(CURDIR)/donod_fast/. build/types/donod_fast/
	@ln -s $(CURDIR)/kernels build/types/donod_fast/kernels
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p donod_fast

check-tests: $(VENV)/.dev
	$(BIN)/pytest

bench: $(VENV)/.dev
	cd bench && ../$(BIN)/python head.py
	cd bench && ../$(BIN)/python end_to_end.py --model ../../shared/models/tiny-instruct --data ../../shared/data/gsm8k/test.jsonl
	cd bench && ../$(BIN)/python end_to_end.py --model ../../shared/models/tiny-instruct --data ../../shared/data/gsm8k/test.jsonl --head 32000

# With the machine's own python3, which is the one that has a CUDA build of torch.
gpu:
	$(PYTHON) -c "import torch; assert torch.cuda.is_available(), 'no CUDA device'"
	rm -rf build/gpu && mkdir -p build/gpu && cp -r donod_fast build/gpu/ && cp -r kernels build/gpu/donod_fast/kernels
	PYTHONPATH=build/gpu $(PYTHON) -P -m pytest -m gpu tests
	cd bench && PYTHONPATH=../build/gpu $(PYTHON) head.py --vocab 32000 --dim 4096 --dtype bfloat16 --samples 64 --if-missing
	cd bench && PYTHONPATH=../build/gpu $(PYTHON) head.py --vocab 128256 --dim 4096 --dtype bfloat16 --samples 64 --if-missing

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python setup.py constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[plot]"
	@touch $@

$(VENV)/.dev: $(BIN)/python setup.py constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
