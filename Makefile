# Everything works on a machine with Python 3.11 or later, pip and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install serve test check simulate fuzz faults clients stores agents pictures soak format bench bench-peers docs clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

.venv/serve: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[openai]'
	@touch $@

# Of 17,000 files few are used: these are compiled when they are imported, so that must be allowed.
.venv/dev: .venv/serve
	$(BIN)/python -m pip install --quiet --no-compile --group dev
	@touch $@

.venv/docs: .venv/dev
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

install: .venv/dev ## make .venv with all that development needs

serve: .venv/serve ## the demo bot and its chat page at http://127.0.0.1:8000/
	$(BIN)/turnwise serve

test: .venv/dev  ## all tests
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist worksteal

check: .venv/dev ## lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

simulate: .venv/dev ## many worlds of crashes and races: SEEDS=10000
	SEEDS=$(or $(SEEDS),5000) $(BIN)/python -m pytest tests/simulation
	TIMES=10 $(BIN)/python -m pytest tests/test_machine.py

fuzz: .venv/dev  ## every door given what nobody should send: EXAMPLES=1000
	EXAMPLES=$(or $(EXAMPLES),1000) $(BIN)/python -m pytest -n 2 --timeout 0 tests/test_door_fuzz.py tests/test_messenger_fuzz.py

faults: .venv/dev ## break processes, stores and lines, and count what is left: STRIKES=5
	STRIKES=$(or $(STRIKES),5) $(BIN)/python -m pytest -n 2 --dist worksteal --timeout 0 tests/faults --ignore tests/faults/test_soak.py

clients: .venv/dev ## other people's clients, in all versions; writes their table into the docs
	rm -rf .clients && mkdir .clients
	CLIENTS=all CLIENTS_TABLE=$(CURDIR)/.clients $(BIN)/python -m pytest -n 2 tests/test_clients.py
	$(BIN)/python tests/client_table.py .clients

stores: .venv/dev ## the stories of several processes, on every store
	STORES=all $(BIN)/python -m pytest -n 2 tests/test_processes.py

agents: .venv/dev ## other people's agents, killed on every store
	AGENT_STORES="sqlite redis postgres" $(BIN)/python -m pytest -n 2 tests/test_other_agents.py

pictures: .venv/dev ## the pictures of README and docs, anew
	PICTURES=1 $(BIN)/python -m pytest tests/test_pictures.py

soak: .venv/dev  ## half an hour of load and faults, and nothing left over: MINUTES=30
	MINUTES=$(or $(MINUTES),30) $(BIN)/python -m pytest --timeout 0 tests/faults/test_soak.py

format: .venv/dev ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/bench: .venv/dev
	$(BIN)/python -m pip install --quiet --group bench
	@touch $@

bench: .venv/bench ## speed next to bare FastAPI, bare Starlette and Chatsky, side by side
	$(BIN)/python bench/run.py
	$(BIN)/python bench/batching.py
	$(BIN)/python bench/pictures.py

bench-peers: .venv/bench ## the same job on other products, which it installs into .peers/
	$(BIN)/python bench/peers.py

docs: .venv/docs ## the documentation as a site in site/
	$(BIN)/mkdocs build --strict

clean:           ## remove what make has made
	rm -rf .venv .peers .clients site dist .mypy_cache .ruff_cache .pytest_cache
