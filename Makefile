# make run | test | test-long | build | up | down | images        (`make help` lists them all)

VENV   := .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# LEAN=1: what the starter model needs, without torch
NEEDED := $(STAMP)$(if $(LEAN),-lean)
COMPOSE := docker compose$(if $(SCALE), --project-name imagesearch-scale --file docker-compose.scale.yml)

.DEFAULT_GOAL := help
.PHONY: help run worker test test-long fuzz lint build bench audit key backup restore move-vectors move-state lock images up down clean

# $(call wanted,NAME,example): the value of a variable that a command cannot do without
wanted = $(if $($(1)),$($(1)),$(error $(1) is missing: make $@ $(1)=$(2)))

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

run: $(NEEDED) ## start everything on http://127.0.0.1:3000, watching ./images (IMAGES_DIR, DATA_DIR, HOST, PORT, MODELS_DIR, MODEL_PROFILE; LEAN=1)
	@exec $(BIN)/python -m standalone

worker: $(NEEDED) ## ingest what the watcher sends to a broker (BROKER_URL, DATABASE_URL, QDRANT_URL); any number of them
	@exec $(BIN)/python -m watcher.queue

test: lint ## install, lint, type-check, and run the whole test suite (TEST_WORKERS=1: one test at a time)
	@$(BIN)/python -m tests.phases $(PYTEST_ARGS)

test-long: $(STAMP) ## attack it for hours: hundreds of kills, bursts of 50,000 files (FAULT_SEED=... repeats one)
	$(BIN)/pytest -m long --timeout 7200 $(PYTEST_ARGS)

fuzz: $(STAMP) ## look for bytes that break the decoding of pictures, by atheris where it is installed (FUZZ=-max_total_time=600)
	$(BIN)/python -m tests.fuzz.with_atheris $(FUZZ)

lint: $(STAMP) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

build: $(STAMP) ## create .venv and install everything

$(BIN)/uv:
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and \
	  "Python 3.11 or newer is needed; $(PYTHON) is %d.%d. Name another one: PYTHON=python3.12" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(STAMP): requirements.lock pyproject.toml | $(BIN)/uv
	@echo "==> Preparing $(VENV) (the first time downloads about 3 GB; torch is the largest part)"
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --editable .
	@touch $@
	@echo "==> $(VENV) is ready"

$(STAMP)-lean: requirements.lock pyproject.toml | $(BIN)/uv
	@echo "==> Preparing $(VENV) for the starter model alone (the first time downloads about 110 MB; make build adds the rest)"
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r pyproject.toml --constraint requirements.lock
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --editable .
	@touch $@

bench: $(STAMP) ## measure it on this machine, ten minutes, into docs/performance.md (BENCH=--long: an hour; BENCH=--peers: other libraries too)
	$(BIN)/python -m benchmarks $(BENCH)

audit: | $(BIN)/uv ## look every version of the lock up among the known vulnerabilities (asks PyPI; not part of make test)
	$(BIN)/uv tool run --from pip-audit==2.10.1 pip-audit -r requirements.lock --require-hashes --disable-pip --strict --progress-spinner off

key: $(NEEDED) ## make an API key, and what to write into API_KEYS for it
	@$(BIN)/python -m searchsvc.api_keys

backup: $(NEEDED) ## copy what it keeps, while it runs (TO=folder, else ./backups/TIME; PICTURES=1: the watched folder, too)
	@$(BIN)/python -m standalone.backups take $(TO) $(if $(PICTURES),--pictures)

restore: $(NEEDED) ## put a backup back, while it does not run (FROM=folder; PICTURES=1: bring back missing pictures)
	@$(BIN)/python -m standalone.backups restore $(call wanted,FROM,backups/TIME) $(if $(PICTURES),--pictures)

move-vectors: $(NEEDED) ## copy all vectors to another home, while it does not run (TO=edge or a server's URL; REPLACE=1: remove what is there)
	@$(BIN)/python -m standalone.moves --to "$(call wanted,TO,edge)" $(if $(REPLACE),--replace)

move-state: $(NEEDED) ## copy ledger and ratings to another home, while it does not run (TO=sqlite or postgresql://...; REPLACE=1: remove what is there)
	@$(BIN)/python -m standalone.moves.state --to "$(call wanted,TO,sqlite)" $(if $(REPLACE),--replace)

lock: $(STAMP) ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --python-version 3.11 \
	  --no-header --no-annotate --quiet --upgrade --output-file requirements.lock

images: ## build the container images (SCALE=1: those of the scaled form)
	$(COMPOSE) build

up: ## start the services in containers, with a Qdrant server, Prometheus and Grafana (SCALE=1: several of each, and all they share)
	$(COMPOSE) up --build --detach

down: ## stop them; their volumes stay (SCALE=1: those of the scaled form)
	$(COMPOSE) down

clean: ## remove caches and the environment; pictures and data stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
