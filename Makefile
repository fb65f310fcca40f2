# Everything runs from .venv, whichever environment is active. `make install` makes it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_ALL := $(VENV)/.installed-all
JAVA := .java/.built
JAVA_SOURCES := $(shell find java -type f -not -path '*/target/*' 2>/dev/null)
JAVA_PACKAGES := maven openjdk-17-jdk-headless
NOTEBOOKS = $(wildcard notebooks/*.ipynb)

# Tests wait more than they compute, and some watch a cluster of four processes do it.
TEST_PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(max(2, min(3, (os.cpu_count() or 2) - 1)))')

# What `make asv` measures, and the name its results are kept under (the host's name unless told).
COMMITS ?= HEAD^!
MACHINE ?=

# Trials of each cell of `make failures`, and the runs that `make failure-table` publishes.
REPEATS ?=
RUNS ?=

# asv looks for pythonX.Y on PATH first; pip inside asv's environments is to take the pinned versions.
ASV = PATH="$(CURDIR)/$(BIN):$$PATH" PIP_CONSTRAINT="$(CURDIR)/constraints.txt" $(BIN)/python -m asv

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: install
install: $(INSTALLED) ## make .venv with the pinned versions (PYTHON=python3.12 to choose the interpreter)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench,dev]'
	@touch $@

.PHONY: install-all
install-all: $(INSTALLED_ALL) java ## the same with every backend that the strategies can use

$(INSTALLED_ALL): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench,dev,all]'
	@touch $@

.PHONY: java
java: $(JAVA) ## fetch and build into .java what servers in Java need (root on Debian gets Maven and a JDK by it too)

$(JAVA): $(JAVA_SOURCES)
	@command -v mvn >/dev/null && command -v javac >/dev/null || { \
	test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	apt-get install -qq --no-install-recommends $(JAVA_PACKAGES) >/dev/null; } || { \
	echo "Maven or a JDK is missing, run: apt-get install $(JAVA_PACKAGES)" >&2; exit 1; }
	@set -e; for pom in $(wildcard java/*/pom.xml); do echo "mvn package: $$pom"; \
	mvn --batch-mode --quiet -Dmaven.repo.local=$(CURDIR)/.java/repository --file "$$pom" package; done
	@mkdir -p $(@D) && touch $@

.PHONY: bench
bench: install ## measure every cell briefly and write a report under results/runs
	$(BIN)/python -m benchmarks run --quick

.PHONY: bench-all
bench-all: install-all ## the same with every backend: PostgreSQL, ZooKeeper, Ray and Pekko too
	$(BIN)/python -m benchmarks run --quick

.PHONY: report
report: install ## open the newest run's report in a browser
	@run=$$(ls -d results/runs/*/ | sort | tail -n 1) && $(BIN)/python -m benchmarks report "$$run" && \
	$(BIN)/python -m webbrowser "file://$(CURDIR)/$${run}report.html"

.PHONY: reference
reference: install-all ## measure the complete matrix anew, and write README, docs and plots from it: two hours
	$(BIN)/python -m benchmarks.harness.reference

.PHONY: failures
failures: install ## break every strategy in every way that reaches it: many hours; REPEATS=1 for a look
	$(BIN)/python -m benchmarks failures $(if $(REPEATS),--repeats $(REPEATS))

.PHONY: failure-table
failure-table: install ## publish the failure table of RUNS='results/runs/A ...' under results/ and in README.md
	$(BIN)/python -m benchmarks.harness.failure_tables $(RUNS)
	$(BIN)/python -m benchmarks.harness.readme

.PHONY: test
test: install ## run the tests and the notebooks
	$(BIN)/python -m pytest --benchmark-disable --numprocesses $(TEST_PROCESSES) --dist worksteal -m 'not alone' tests \
	|| { echo 'What failed is run once more, beside nothing: deadlines pass on a machine that is too busy.'; \
	$(BIN)/python -m pytest --benchmark-disable --last-failed --last-failed-no-failures none -m 'not alone' tests; }
	$(BIN)/python -m pytest --benchmark-disable -m alone tests
	$(call run_notebooks)

.PHONY: lint
lint: install ## check style, format, types, notebooks and the pre-commit configuration
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy strategies benchmarks/harness
	$(if $(NOTEBOOKS),$(BIN)/python -m nbstripout --verify $(NOTEBOOKS))
	$(BIN)/python -m pre_commit validate-config

.PHONY: format
format: install ## rewrite the code and strip the notebooks as `lint` wants them
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .
	$(if $(NOTEBOOKS),$(BIN)/python -m nbstripout $(NOTEBOOKS))

.PHONY: pytest-benchmark
pytest-benchmark: install ## measure tests/performance into results/pytest-benchmark/latest.json
	@mkdir -p results/pytest-benchmark
	$(BIN)/python -m pytest tests/performance --benchmark-only --benchmark-json=results/pytest-benchmark/latest.json

.PHONY: asv
asv: install ## measure HEAD with asv and publish to .asv/html (COMMITS=v1..main, MACHINE=name)
	$(if $(MACHINE),$(call name_machine),$(ASV) machine --yes)
	$(ASV) run --record-samples $(if $(MACHINE),--machine '$(MACHINE)') '$(COMMITS)'; measured=$$?; \
	$(ASV) publish && exit $$measured
	@echo 'To see it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory .asv/html'

# asv's pages load their scripts from elsewhere, and stay blank without a network.
.PHONY: asv-site
asv-site: install ## publish the recorded asv results to .asv/html, to be read without a network (with npm)
	@command -v npm >/dev/null || { echo 'npm is missing: apt-get install npm' >&2; exit 1; }
	@mkdir -p .asv/site && cp asv-site/package.json asv-site/package-lock.json .asv/site
	npm ci --prefix .asv/site --ignore-scripts --no-audit --no-fund
	$(ASV) publish
	$(BIN)/python -m benchmarks.harness.asv_site .asv/html .asv/site/node_modules
	@echo 'To see it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory .asv/html'

# `asv machine --machine NAME` would drop what asv finds out about the machine.
define name_machine
$(BIN)/python -c 'import sys; from asv.machine import Machine, MachineCollection as known; \
	known.save(sys.argv[1], {**Machine.get_defaults(), "machine": sys.argv[1]})' '$(MACHINE)'
endef

.PHONY: notebooks
notebooks: install ## execute the notebooks, leaving the files as they are
	$(call run_notebooks)

define run_notebooks
$(if $(NOTEBOOKS),$(BIN)/python -m pytest --nbmake notebooks,@echo 'There are no notebooks.')
endef

.PHONY: readme
readme: install ## write the generated parts of README.md and docs again
	$(BIN)/python -m benchmarks.harness.readme

.PHONY: constraints
constraints: ## resolve the newest versions and pin them (PYTHON=python3.11: the oldest needs all backports)
	@set -e; fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(PYTHON) -m venv "$$fresh/venv"; \
	"$$fresh/venv/bin/python" -m pip install --quiet --editable '.[bench,dev,all]'; \
	echo '# Every version that `make install` and `make install-all` use. Made by `make constraints PYTHON=python3.11`; not to be edited.' >"$$fresh/pins"; \
	"$$fresh/venv/bin/python" -m pip freeze --exclude-editable >>"$$fresh/pins"; \
	cp "$$fresh/pins" constraints.txt

.PHONY: clean
clean: ## remove what can be made again, .venv included; results stay
	rm -rf $(VENV) .asv .java build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
