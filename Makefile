# SPDX-License-Identifier: Apache-2.0
# make demo: build, fetch a small model and let it answer.   make test: every test.   See CONTRIBUTING.md.
PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
JOBS ?= 2
# The reference stack of `make test-parity`. Elsewhere a CPU build of torch may need an index of its own:
# make test-parity TORCH="torch==2.13.0 --index-url ..."
TORCH ?= torch==2.13.0
QUESTION ?= What is the capital of France?

PIP = $(VENV)/bin/pip install --quiet --disable-pip-version-check
RUN = $(VENV)/bin/python

.PHONY: demo install test test-cpp test-python test-parity lint sanitize clean

demo: install
	$(VENV)/bin/manymind chat smollm2 --prompt "$(QUESTION)"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

install: $(VENV)/bin/python
	$(PIP) .

test: lint test-cpp test-python

$(VENV)/.tools: pyproject.toml | $(VENV)/bin/python
	$(PIP) cmake ninja "pybind11>=3.0" ".[test,lint]"
	touch $@

test-cpp: $(VENV)/.tools
	$(VENV)/bin/cmake -S . -B $(BUILD)/test -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja -DTM_BUILD_TESTS=ON
	$(VENV)/bin/cmake --build $(BUILD)/test -j $(JOBS)
	$(VENV)/bin/ctest --test-dir $(BUILD)/test --output-on-failure

test-python: $(VENV)/.tools install
	$(RUN) -m pytest

lint: $(VENV)/.tools
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy python/manymind
	git ls-files '*.h' '*.hpp' '*.cc' | xargs $(VENV)/bin/clang-format --dry-run --Werror
	$(RUN) tests/lint/check_structure.py

test-parity: $(VENV)/.tools install
	$(PIP) $(TORCH) && $(PIP) transformers
	$(RUN) -m pytest tests/parity

sanitize: $(VENV)/.tools
	$(MAKE) test-sanitizer SANITIZER=address,undefined
	$(MAKE) test-sanitizer SANITIZER=thread CTEST_FLAGS="-R engine"

test-sanitizer:
	$(VENV)/bin/cmake -S . -B $(BUILD)/$(SANITIZER) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja \
	  -DTM_BUILD_TESTS=ON -DTM_SANITIZE=$(SANITIZER) -DCMAKE_BUILD_TYPE=RelWithDebInfo
	$(VENV)/bin/cmake --build $(BUILD)/$(SANITIZER) -j $(JOBS)
	$(VENV)/bin/ctest --test-dir $(BUILD)/$(SANITIZER) --output-on-failure $(CTEST_FLAGS)

clean:
	rm -rf $(BUILD) dist
