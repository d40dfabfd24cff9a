# make demo | test | check | format | build | docs | qgis | clean      everything installs into .venv; nothing else is touched
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test check format build docs qgis clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/adcdnet demo --out runs/demo

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not real and not qgis and not slow"

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# source archive and wheel, in dist
build: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build

# the pages of docs, in build/site
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	$(BIN)/mkdocs build --strict

# the plugin for QGIS, as build/adcdnet_provider-VERSION.zip
qgis:
	$(PYTHON) scripts/build_qgis_plugin.py

clean:
	rm -rf .venv runs build dist
