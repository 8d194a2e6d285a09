# make demo · make test · make docs · make peers: each sets up what it needs in .venv, with pip and the package index alone.
# Frameworks, clients and servers that Raskrank is tested beside have an environment of their own, .venv-applications.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
APPLICATIONS := .venv-applications
# Where PyPI's torch brings gigabytes of CUDA: make test PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
PIP = $(@D)/bin/python -m pip --disable-pip-version-check
# Containers often set it. Every process of the tests would compile anew what it imports: a second and a half beside PyTorch.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-applications test-release test-all test-versions soak docs peers bench bench-suite constraints lint clean

# Every file is checked against its digest, and Python compiles what it imports. torch by itself: of its builds pip shall take the
# one for CPUs alone, where an index or a folder of wheels has it.
define packages
	$(PYTHON) -m venv $(@D)
	$(PIP) install --quiet --no-compile --require-hashes --no-deps --requirement $<
	$(PIP) download --quiet --no-deps --dest $(@D)/wheels $$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' constraints-torch.txt)
	$(PIP) install --quiet --no-compile --require-hashes --no-deps --no-index --find-links $(@D)/wheels --requirement constraints-torch.txt
	rm -r $(@D)/wheels
	touch $@
endef

# This project, which builds its kernels, and what torch needs beside that on another system.
define project
	$(PIP) install --quiet --no-build-isolation --editable $(PROJECT)
	touch $@
endef

$(VENV)/.packages: constraints.txt constraints-torch.txt
	$(packages)

$(APPLICATIONS)/.packages: constraints-applications.txt constraints-torch.txt
	$(packages)

$(VENV)/.ready: PROJECT = '.[export,compare,bi-encoder,dev,bench,docs]'
$(VENV)/.ready: $(VENV)/.packages pyproject.toml
	$(project)

# The second part is the group of dependencies, which the pip of Python 3.11 does not know yet.
GROUP := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["applications"])
$(APPLICATIONS)/.ready: PROJECT = '.[export-transformers5,langchain,llama-index,haystack,bulk,ray,server]' $$($(PYTHON) -c '$(GROUP)')
$(APPLICATIONS)/.ready: $(APPLICATIONS)/.packages pyproject.toml
	$(project)

constraints: $(VENV)/.ready $(APPLICATIONS)/.ready  ## write the files of constraints anew, from what both environments have
	$(BIN)/python tests/constraints.py constraints.txt
	$(APPLICATIONS)/bin/python tests/constraints.py constraints-applications.txt

demo: $(VENV)/.ready  ## checkpoint -> int8 bundle -> parity -> ranking -> speed, offline
	$(BIN)/python benchmarks/demo.py

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# In as many processes as there are CPUs, up to four of 1 to 2 GB each. The tests of one file share what they build, and follow
# one another: some count threads or measure memory. Files come in the order that tests/conftest.py gives them.
BESIDE := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: lint  ## ruff, mypy --strict and all tests but the slow ones and those of a release
	$(BIN)/python -m pytest $(BESIDE) -m 'not slow and not release'

# Tests of `make test` that must hold beside transformers 5 as well. .venv is there to compare with what is exported beside 4.
BOTH := tests/test_tokenizer.py
test-applications: $(APPLICATIONS)/.ready $(VENV)/.ready  ## beside what applications use, transformers 5 for the exporter among it
	$(APPLICATIONS)/bin/mypy --implicit-reexport --cache-dir .mypy_cache/applications engine/raskrank/integrations engine/raskrank/server  # with their types
	RASKRANK_APPLICATIONS=require $(APPLICATIONS)/bin/python -m pytest $(BESIDE) -m 'not slow' tests/applications $(BOTH)

test-release: $(VENV)/.ready  ## the wheel in empty environments, and the demo
	$(BIN)/python -m pytest $$(grep -l mark.release tests/test_*.py)

test-all: test test-applications test-release  ## also the tests that build checkpoints of hundreds of megabytes
	$(BIN)/python -m pytest -m 'slow and not release'

test-versions: $(VENV)/.ready  ## the engine on the oldest and newest onnxruntime and tokenizers that it supports
	$(BIN)/python tests/versions.py

# 10^5 texts, 10^4 bundles, kill -9 at 200 moments of an export, ...: each prints its figures, and all run, whatever fails.
ATTACKS := \
	'texts.py --count 100000' \
	'invariance.py --count 150000' \
	'trimmed.py --count 400000' \
	'corrupted_bundles.py --count 10000' \
	'interrupts.py --seconds 300' \
	'interrupts.py --steps opcode' \
	'command_line.py --count 500' \
	'export_kill.py --count 200' \
	'score_kill.py --count 200' \
	'calls.py --count 20000 --loads 900'
soak: $(VENV)/.ready  ## the attacks of tests/attacks at length; under an hour on 2 cores
	failed=0; for attack in $(ATTACKS); do \
	    echo "$$attack"; $(BIN)/python tests/attacks/$$attack || failed=1; \
	done; exit $$failed

docs: $(VENV)/.ready  ## the documentation, into build/docs; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

MODEL ?= nano
peers: $(VENV)/.ready  ## Raskrank beside its peers: speed, start, memory, page and chart; `make peers MODEL=minilm`
	-$(BIN)/python -m benchmarks.harness.environments
	$(BIN)/python -m benchmarks.peers --model $(MODEL) $(BENCH)

bench: peers  ## the same

bench-suite: $(VENV)/.ready  ## pytest-benchmark, to compare commits: BENCH=--benchmark-save=NAME, BENCH=--benchmark-compare
	$(BIN)/python -m pytest benchmarks -q --benchmark-only $(BENCH)

clean:
	rm -rf $(VENV) $(APPLICATIONS) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
