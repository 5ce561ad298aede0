# make quickstart   installs and runs the main job on embedded data, offline, in minutes on two cores
# make test         installs and runs all tests
# make docs         installs and builds the documentation in docs/_build/html; warnings are errors
# make lint         installs, then runs the formatter's check, the linter and mypy
# make coverage     installs and measures the branch coverage of the tests, room by room
# make lines        counts the lines of code, room by room; needs Python only
# make map          updates the module lists in docs/architecture.md from the docstrings
# make bench        installs PyTorch in an environment of its own and compares with it: half an hour on two cores
# make exports      installs PyTorch likewise, and loads exports with every library that they are for
# make accelerators installs XLA's compilers for GPU and TPU likewise, and compiles programs: hours
# make kills        kills runs at every phase and resumes them: an hour on two cores
# make processes    runs of two processes that differ, freeze, or are killed or stopped: half an hour
# make faults       damages checkpoints, fills disks (as root) and resumes: a quarter of an hour on two cores
# make soak         long runs of a small network: memory, files, threads, compilations, speed; half an hour
# make test-oldest  installs the oldest versions that pyproject.toml allows likewise, and runs the fast tests
# make fuzz         installs, then feeds hostile files, texts and responses to everything that reads some
# make lock         updates requirements.lock and requirements-oldest.lock; needs uv
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
SOURCES = bit_jax configs experiments notebooks tests
TORCH   = .venv-bench
EXPORTS = .venv-exports
COMPILERS = .venv-accelerators
OLDEST  = .venv-oldest
TORCH_PYTHON ?=  # a Python that has PyTorch and timm, if any; for exports transformers and jax, too

.PHONY: help install quickstart test coverage lines map docs bench exports accelerators faults fuzz kills processes soak test-oldest lint lock clean
.DEFAULT_GOAL := quickstart

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.installed

# Installs the tested versions of the lock file, then the project itself, editable.
$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	@echo "Installing into $(VENV): about 140 packages, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

quickstart: install
	$(BIN)/python -m bit_jax.train --config=configs/quickstart.py

# Compiling takes most of the tests' time, so most tests compile with few optimisations, and with the
# older of XLA's two code generators, which is faster itself. Comparisons with the official code
# compile as runs do. Each process of pytest has a core, so that NumPy needs no threads.
QUICKLY  = --xla_backend_optimization_level=1 $(EMITTERS)
# Only jaxlib 0.10 has both generators; XLA ends the process where it doesn't know a flag.
EMITTERS = $(shell $(BIN)/python -c "import jaxlib; print('--xla_cpu_use_fusion_emitters=false' * jaxlib.__version__.startswith('0.10.'))")

test: install
	OPENBLAS_NUM_THREADS=1 XLA_FLAGS="$(QUICKLY)" \
	  $(BIN)/python -m pytest -n 2 --dist loadfile --ignore=tests/test_reference.py
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/test_reference.py

# The tests as above, in one run and with tracing, which takes about twice as long.
coverage: install
	OPENBLAS_NUM_THREADS=1 XLA_FLAGS="$(QUICKLY)" \
	  $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report= --ignore=tests/test_reference.py
	$(BIN)/python tests/coverage_table.py

lines:
	$(PYTHON) tests/code_lines.py

map: install
	PYTHONPATH=tests $(BIN)/python tests/docs/test_architecture.py

docs: install
	rm -rf docs/generated
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -b html docs docs/_build/html

bench: install $(if $(TORCH_PYTHON),,$(TORCH)/.installed)
	$(BIN)/python -m experiments.benchmarks $(if $(TORCH_PYTHON),--torch_python=$(TORCH_PYTHON))

# PyTorch, in an environment of its own. Without it, benchmarks compare with the plain Flax port only.
$(TORCH)/.installed: pyproject.toml
	@echo "Installing PyTorch into $(TORCH): over 5 GB with CUDA. To use an installed one, set TORCH_PYTHON."
	$(PYTHON) -m venv $(TORCH)
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"], sep="\n")' > $(TORCH)/requirements.txt
	$(TORCH)/bin/python -m pip install --quiet --requirement $(TORCH)/requirements.txt && touch $@ \
	  || echo "PyTorch can't be installed: continuing without it."

# `make exports PHOTOS=FOLDER` compares on photos of your own, too.
exports: install $(if $(TORCH_PYTHON),,$(EXPORTS)/.installed)
	$(BIN)/python -m experiments.exports $(if $(PHOTOS),--photos=$(PHOTOS)) \
	  --torch_python=$(or $(TORCH_PYTHON),$(EXPORTS)/bin/python)

$(EXPORTS)/.installed: pyproject.toml
	@echo "Installing PyTorch into $(EXPORTS): over 5 GB with CUDA. To use an installed one, set TORCH_PYTHON."
	$(PYTHON) -m venv $(EXPORTS)
	$(EXPORTS)/bin/python -m pip install --quiet --editable '.[exports]'
	touch $@

# `make accelerators SMALL=1` compiles a small network only, in minutes; `ONLY="h100 R50x1"` the
# programs whose names have these words. Stop it at any time; it goes on where it was.
accelerators: $(COMPILERS)/.installed
	$(COMPILERS)/bin/python -m experiments.accelerators $(if $(SMALL),--small) --only="$(ONLY)"

# The table is of the JAX that the lock file names.
$(COMPILERS)/.installed: pyproject.toml requirements.lock
	@echo "Installing XLA's compilers for GPU and TPU into $(COMPILERS): about 6 GB."
	$(PYTHON) -m venv $(COMPILERS)
	sed -n 's/^\(jax==[^\\]*\).*/\1/p' requirements.lock > $(COMPILERS)/constraints.txt
	$(COMPILERS)/bin/python -m pip install --quiet --editable '.[accelerators]' \
	  --constraint $(COMPILERS)/constraints.txt
	touch $@

kills: install
	XLA_FLAGS="$(QUICKLY)" $(BIN)/python -m experiments.reliability.kills --kills=50 --seed=0
	$(BIN)/python -m experiments.reliability

processes: install
	XLA_FLAGS="$(QUICKLY)" $(BIN)/python -m experiments.reliability.processes

soak: install
	$(BIN)/python -m experiments.reliability.soak --record

# `make test-oldest TESTS=tests/data` runs some of them.
test-oldest: $(OLDEST)/.installed
	OPENBLAS_NUM_THREADS=1 XLA_FLAGS="$(QUICKLY)" \
	  $(OLDEST)/bin/python -m experiments.reliability.versions oldest $(TESTS)

# The oldest versions of direct dependencies, and the newest of what those need. On Python 3.11.
$(OLDEST)/.installed: pyproject.toml requirements-oldest.lock
	@echo "Installing the oldest versions into $(OLDEST): a few minutes."
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --requirement requirements-oldest.lock
	$(OLDEST)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# `make fuzz ONLY=npz INPUTS=1000 SEED=1`: of one kind, fewer, others.
fuzz: install
	$(BIN)/python -m experiments.reliability.fuzz --inputs=$(or $(INPUTS),100000) --seed=$(or $(SEED),0) \
	  $(if $(ONLY),--only=$(ONLY))
	$(BIN)/python -m experiments.reliability

faults: install
	XLA_FLAGS="$(QUICKLY)" $(BIN)/python -m experiments.reliability.faults --flips=40 --seed=0
	$(BIN)/python -m experiments.reliability

lint: install
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

# Needs uv; resolves for every platform and Python that pyproject.toml allows.
lock:
	uv pip compile pyproject.toml --extra dev --universal --generate-hashes --quiet \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file requirements.lock
	uv pip compile pyproject.toml --extra dev --resolution lowest-direct --python-version 3.11 --quiet \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file requirements-oldest.lock

clean:
	rm -rf $(VENV) $(TORCH) $(EXPORTS) $(COMPILERS) $(OLDEST) build docs/_build docs/generated *.egg-info
