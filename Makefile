# make demo   install, fit a real table, write report.html, run the tour
# make test   lint, types, tests, doctests, every code block of README and docs
# make cover  the same tests with branch coverage; fails below the floor, and below that of the spine
# make regression  six works beside the last tag's, in the same run: fails where one has become more than 20 % slower
# make docs   the documentation site, in site/

PYTHON  ?= python3
BIN     := .venv/bin
INSTALL := $(BIN)/pip install --quiet -c constraints.txt
TREE    := src tests benchmarks scripts examples
SPINE   := */thetahat/data/*,*/thetahat/families/*,*/thetahat/models/*,*/thetahat/likelihood/*,*/thetahat/solvers/*,*/thetahat/inference/*,*/thetahat/evaluation/*

# Bytecode is kept, whatever the environment says: each process that a test starts would compile the library anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test cover regression lint docs format clean

demo: .venv/installed
	$(BIN)/thetahat fit "incidents ~ type + built + period + offset(log(service))" src/thetahat/data/shipped/ships.csv --family poisson --report report.html
	$(BIN)/thetahat tour

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

cover: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov=thetahat --cov-branch --cov-report=
	$(BIN)/coverage combine --quiet --append || true
	$(BIN)/coverage report --include='$(SPINE)' --fail-under=94
	$(BIN)/coverage report --fail-under=94

regression: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/regression.py

lint: .venv/dev
	$(BIN)/ruff check $(TREE)
	$(BIN)/ruff format --check $(TREE)
	$(BIN)/mypy

docs: .venv/docs
	$(BIN)/zensical build --strict --clean

format: .venv/dev
	$(BIN)/ruff check --fix $(TREE)
	$(BIN)/ruff format $(TREE)

clean:
	rm -rf .venv site report.html

# A stamp file a set of packages: installed again only when what it needs has changed.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[sklearn,rl,flows]'
	touch $@

.venv/dev: .venv/installed
	$(INSTALL) -e '.[dev]'
	touch $@

.venv/docs: .venv/installed
	$(INSTALL) -e '.[docs]'
	touch $@
