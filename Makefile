# make run: set everything up and materialise the starter lineage. make test: the tests. make ui: the Dagster UI.
PYTHON  ?= $(shell command -v python3.11 || command -v python3)
VENV    := .venv
BIN     := $(VENV)/bin
PROFILE ?= starter
export DAGSTER_HOME := $(CURDIR)/.curriculum/dagster
export PYTHONPATH   := $(CURDIR)
# pip compiles nothing here (--no-compile), so a module is compiled at its first import; where that is not kept, torch and dagster are
# compiled again in every process that imports them, which doubles the seconds it takes
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test unit e2e ui notes gate drills deepspeed ray setup lint readme screenshots validate sbom audit clean
.DEFAULT_GOAL := run

setup: $(VENV)/.ready

# --no-deps: the lock is complete, and what it leaves out it leaves out on purpose (see its first lines).
$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "error: Python 3.11 is needed, $(PYTHON) is not; install it or run make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --no-compile --progress-bar on -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

run: setup
	$(BIN)/python -m curriculum.cli run --profile $(PROFILE)

gate: setup
	$(BIN)/python -m curriculum.cli gate --profile $(PROFILE)

# faults on purpose in temporary installations, each with its verdict; NAMES="step clock" runs those alone
drills: setup
	$(BIN)/python -m curriculum.cli drills $(NAMES)

# deepspeed, which launcher_study also runs under, in a folder of its own: libraries that find it installed import it, for seconds each
deepspeed: setup
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --upgrade --target .tools/deepspeed \
	  deepspeed==0.19.8 einops==0.8.2 hjson==3.1.0 msgpack==1.2.4 ninja==1.13.2 py-cpuinfo==9.0.0

# ray, on whose cluster the profile `cluster` encodes and indexes (the cluster extra), likewise apart
ray: setup
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .tools/ray ray==2.60.0 msgpack==1.2.4

ui: setup
	$(BIN)/python -m curriculum.cli ui --profile $(PROFILE)

# the study notes as a site, on port 8000
notes: setup
	$(BIN)/python -m curriculum.cli notes --profile $(PROFILE)

lint: setup
	$(BIN)/ruff check .

# one worker a core of the smallest machine; tests/conftest.py says which tests stay on one worker
test: setup lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# the library alone, without the files that materialise assets or start processes
unit: setup
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not e2e and not integration"

# the real services: a browser in front of `make ui`, and the deployment's own commands. Needs chromium, chromium-driver and postgresql
e2e: setup
	$(BIN)/python -m pytest -n 0 -m e2e

# docs/*.png, from the home of a finished `make run`. Needs chromium and chromium-driver
screenshots: setup
	$(BIN)/python docs/screenshots.py

# the project's own definitions, by the orchestrator's own validators
validate: setup
	@$(BIN)/python -c "import pathlib, curriculum.cli; curriculum.cli.instance_config(pathlib.Path('$(DAGSTER_HOME)'))"
	$(BIN)/dagster definitions validate

# tools that look at the environment from outside it: what they need is not what the project needs
.tools/.ready:
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet cyclonedx-bom==7.5.0 pip-audit==2.10.1
	@touch $@

# the bill of materials (CycloneDX), from what is installed; needs no network once its tool is there
sbom: setup .tools/.ready
	@mkdir -p .curriculum
	.tools/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --validate -o .curriculum/sbom.json
	@echo "bill of materials: .curriculum/sbom.json"

# known vulnerabilities of the pinned versions; asks the advisory database of PyPI, and fails where it cannot
audit: .tools/.ready
	.tools/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip --strict

readme: setup
	$(BIN)/python -m curriculum.cli readme

clean:
	rm -rf .curriculum .tools .ruff_cache .hypothesis
