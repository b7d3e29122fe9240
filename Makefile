# Every command of this repository. Each needs make and python3 (3.11 or newer) and nothing else:
# the first call installs what it needs into .venv, later ones only if its requirements changed.

PYTHON ?= python3
BIN    := .venv/bin
BASE   := .venv/.installed-base
DEV    := .venv/.installed-dev

# The oldest Triton that measuring takes (`triton>=` in pyproject.toml): kernels are compiled with it
# too. It lies beside the one of constraints-dev.txt and shadows it in a process of its own.
OLDEST_TRITON := 3.6.0
OLDEST_FOLDER := .venv/triton-$(basename $(OLDEST_TRITON))
OLDEST        := $(OLDEST_FOLDER)/.installed

# Kernel tests run in processes of their own: a process is either Triton's interpreter or its
# compiler, never both. A folder without tests is passed over.
interpreted := $(wildcard tests/kernels/interpret/test_*.py)
compiled    := $(wildcard tests/kernels/compile/test_*.py)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run studies test bench lint format types clean

help:  ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile

run: $(BASE)  ## simulate DeepSeek-V3's pre-training step; figures and trace go to out/
	$(BIN)/moesim run deepseek-v3-pretrain --out out/deepseek-v3-pretrain

studies: $(BASE)  ## run every shipped study; README's figures of them go to docs/studies
	@for study in $(notdir $(basename $(wildcard simulator/presets/studies/*.toml))); do \
		rm -rf out/studies/$$study; \
		$(BIN)/moesim study $$study --out out/studies/$$study || exit; \
		for figure in out/studies/$$study/figures/*.png; do \
			cp $$figure docs/studies/$$study-$$(basename $$figure); \
		done; \
	done

test: $(DEV) $(OLDEST)  ## run every test that needs no GPU
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile \
		--ignore=tests/kernels/interpret --ignore=tests/kernels/compile
	$(if $(interpreted),TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/kernels/interpret)
	$(if $(compiled),MOESIM_OLDEST_TRITON=$(OLDEST_FOLDER) $(BIN)/python -m pytest \
		tests/kernels/compile)

bench: $(DEV)  ## time the simulator; JSON=FILE keeps the tables
	$(if $(JSON),MOESIM_BENCH_JSON=$(JSON)) $(BIN)/python -m pytest -m bench --capture=no tests/bench

lint: $(DEV)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV)  ## put the sources into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV)  ## check types
	$(BIN)/mypy

clean:  ## remove caches and build products; .venv and out/ stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("moesim needs Python 3.11 or newer: make PYTHON=/path/to/python3")'
	$(PYTHON) -m venv .venv
	@touch $@

$(BASE): pyproject.toml | .venv/.created
	@echo "installing moesim into .venv; once, a minute or two"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(DEV): pyproject.toml constraints-dev.txt | .venv/.created
	@echo "installing moesim and its development tools into .venv; once, some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-dev.txt --editable '.[dev]'
	@touch $(BASE) $@

# Removed before it is filled: pip passes over what a broken-off call left in a --target.
$(OLDEST): Makefile | .venv/.created
	@echo "installing triton $(OLDEST_TRITON) beside it; once, a minute"
	@rm -rf $(OLDEST_FOLDER)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target $(OLDEST_FOLDER) triton==$(OLDEST_TRITON)
	@touch $@
