# SPDX-License-Identifier: Apache-2.0
# make demo: build, fetch a small model and let it answer; let another one say what a picture shows.
# make test: lint and every test that needs neither torch nor a browser.   See CONTRIBUTING.md.
PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
JOBS ?= 2
QUESTION ?= Why is the sky blue?
# Warnings are errors in CI only: a compiler that we have not met may know others.
WERROR ?= $(if $(CI),ON,OFF)
# The reference stack of `make test-parity`: a CPU build of torch will do.
TORCH ?= torch==2.13.0
# The release of torch-npu that goes with it, for `make test-fakecann-torch-npu`.
TORCH_NPU ?= torch-npu==2.13.0

BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
CMAKE := $(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(BIN)/ninja
CUDA_WHEELS = $(shell $(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/nvidia
# The package and the C++ tests share one build folder, so nothing is compiled twice.
INSTALL := CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(PIP) --no-build-isolation -C build-dir=$(BUILD)/release \
  -C cmake.define.TM_WERROR=$(WERROR)

# A worker for each job, which takes over half of what another one has left; tests/conftest.py gives each a core.
PYTEST_IN_PARALLEL := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# GPU generations that `make cuda` compiles for; the wheel holds them all.
CUDA_ARCHITECTURES ?= 90a-real
CUDA_WHEEL_ARCHITECTURES ?= 80-real;89-real;90a-real;100-real

.PHONY: demo install install-tests test lint test-cpp test-python test-browser test-parity test-fakecann-torch-npu golden sanitize sanitize-memory sanitize-threads cuda cuda-wheel test-cuda clean

demo: install
	$(BIN)/manymind chat smollm2 --prompt "$(QUESTION)"
	$(BIN)/manymind chat tiny-vlm --image examples/pictures/shapes.png --prompt "Describe the picture."

install: $(VENV)/.build-tools
	$(INSTALL) .

test: lint test-cpp test-python

# mypy reads the types of the dependencies, so the package is installed first.
lint: install-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy python/manymind
	git ls-files '*.h' '*.hpp' '*.cc' '*.c' '*.cu' '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror
	$(BIN)/python tests/lint/check_structure.py

install-tests: $(VENV)/.test-tools
	$(INSTALL) -C cmake.define.TM_BUILD_TESTS=ON .

test-cpp: install-tests
	$(BIN)/ctest --test-dir $(BUILD)/release --output-on-failure -j $(JOBS)

test-python: install-tests
	$(PYTEST_IN_PARALLEL) tests/python tests/vision tests/server tests/fakecann/tests

# The server's pages in headless Chromium, Debian's, which is installed where it is missing.
test-browser: install-tests
	command -v chromium chromedriver >/dev/null || \
	  (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-dejavu-core)
	$(BIN)/python -m pytest tests/browser

test-parity: install-tests $(VENV)/.reference-stack
	$(PYTEST_IN_PARALLEL) tests/parity

# The golden data of the tests anew; what differs by rounding alone stays.
golden: install $(VENV)/.test-tools $(VENV)/.reference-stack
	$(BIN)/python tools/make_golden.py

# torch-npu, unmodified from the package index, as a client of the emulator of CANN.
test-fakecann-torch-npu: install-tests $(VENV)/.reference-stack $(BUILD)/torch-npu/site/.ready
	PYTHONPATH=$(abspath $(BUILD))/torch-npu/site $(BIN)/python tests/fakecann/torch_npu/stand_ins.py $(BUILD)/torch-npu \
	  $(BIN)/python -m pytest tests/fakecann/torch_npu

# Address and undefined-behaviour sanitizers see every C++ test; the thread sanitizer those of the engine, which need no
# back end but the null plug-in. Little optimisation and several files at a time: compiling costs more than running here.
# The Ascend plug-in runs on an emulator, which is not built with sanitizers.
SANITIZED := -DTM_BUILD_TESTS=ON -DTM_BACKEND_ASCEND=OFF -DCMAKE_UNITY_BUILD=ON -DTM_WERROR=$(WERROR) -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-Og -g1 -DNDEBUG"
sanitize: sanitize-memory sanitize-threads

sanitize-memory: $(VENV)/.build-tools
	$(CMAKE) -S . -B $(BUILD)/asan -DTM_SANITIZE=address,undefined $(SANITIZED)
	$(BIN)/cmake --build $(BUILD)/asan -j $(JOBS)
	$(BIN)/ctest --test-dir $(BUILD)/asan --output-on-failure -j $(JOBS)

sanitize-threads: $(VENV)/.build-tools
	$(CMAKE) -S . -B $(BUILD)/tsan -DTM_SANITIZE=thread $(SANITIZED)
	$(BIN)/cmake --build $(BUILD)/tsan -j $(JOBS) --target test_engine
	$(BIN)/ctest --test-dir $(BUILD)/tsan --output-on-failure -R '^test_engine$$'

# The CUDA plug-in, compiled without a GPU and without an installed toolkit.
cuda: $(VENV)/.cuda-tools
	$(CMAKE) -S . -B $(BUILD)/cuda -DTM_BACKEND_CUDA=ON -DTM_BACKEND_CPU=OFF -DTM_CUDA_WHEELS=$(CUDA_WHEELS) \
	  -DCMAKE_CUDA_ARCHITECTURES="$(CUDA_ARCHITECTURES)"
	$(BIN)/cmake --build $(BUILD)/cuda -j $(JOBS) --target tm_backend_cuda

# What needs GPUs: conformance and the engine on one, ranks on two (`make test-cuda CUDA_TESTS="-L two_gpus"`), and what
# compute-sanitizer says of a part of the conformance suite. Builds for the GPU generation that CUDA_ARCHITECTURES names.
CUDA_TESTS ?= -LE two_gpus
test-cuda: $(VENV)/.cuda-test-tools
	$(CMAKE) -S . -B $(BUILD)/cuda-tests -DTM_BUILD_TESTS=ON -DTM_BACKEND_CUDA=ON -DTM_BACKEND_ASCEND=OFF \
	  -DTM_CUDA_WHEELS=$(CUDA_WHEELS) -DCMAKE_CUDA_ARCHITECTURES="$(CUDA_ARCHITECTURES)" \
	  -DTM_COMPUTE_SANITIZER=$(CUDA_WHEELS)/cu13/compute-sanitizer/compute-sanitizer
	$(BIN)/cmake --build $(BUILD)/cuda-tests -j $(JOBS)
	$(BIN)/ctest --test-dir $(BUILD)/cuda-tests --output-on-failure -j $(JOBS) -R cuda $(CUDA_TESTS)

cuda-wheel: $(VENV)/.cuda-tools
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/pip wheel --no-build-isolation --no-deps -w dist backends/cuda \
	  -C build-dir=$(abspath $(BUILD))/cuda-wheel -C cmake.define.TM_CUDA_WHEELS=$(CUDA_WHEELS) \
	  -C cmake.define.CMAKE_CUDA_ARCHITECTURES="$(CUDA_WHEEL_ARCHITECTURES)"

clean:
	rm -rf $(BUILD) dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.build-tools: pyproject.toml | $(BIN)/python
	$(PIP) --upgrade "pip>=24"
	$(PIP) "scikit-build-core>=0.11" "pybind11>=3.0" cmake ninja
	touch $@

$(VENV)/.test-tools: requirements-dev.txt | $(VENV)/.build-tools
	$(PIP) -r requirements-dev.txt
	touch $@

$(VENV)/.cuda-tools: backends/cuda/requirements-build.txt | $(VENV)/.build-tools
	$(PIP) -r backends/cuda/requirements-build.txt
	touch $@

$(VENV)/.cuda-test-tools: backends/cuda/requirements-test.txt | $(VENV)/.cuda-tools
	$(PIP) -r backends/cuda/requirements-test.txt
	touch $@

$(BUILD)/torch-npu/site/.ready: | $(BIN)/python
	$(PIP) --no-deps --target $(BUILD)/torch-npu/site "$(TORCH_NPU)" pyyaml
	touch $@

$(VENV)/.reference-stack: requirements-reference.txt | $(BIN)/python
	$(PIP) "$(TORCH)" -r requirements-reference.txt
	touch $@
