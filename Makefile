# Everything goes through make; `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
TOOLS := $(CURDIR)/.tools
BUF := protos/node_modules/.bin/buf
export KEYSWITCH_RECORDINGS ?= $(abspath ../shared/recordings)

.PHONY: help
help: ## Lists what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- setting up -----------------------------------------------------------------
$(TOOLS)/uv/bin/uv:
	@python3 -m venv $(TOOLS)/uv && $(TOOLS)/uv/bin/pip install -q uv==0.13.8

$(VENV)/.run: requirements.txt protos/pyproject.toml pyproject.toml clients/python/pyproject.toml clients/cli/pyproject.toml | $(TOOLS)/uv/bin/uv
	@echo "setting up $(VENV) (once) ..."
	@test -x $(PY) || $(TOOLS)/uv/bin/uv venv -q --python 3.11 --seed $(VENV)
	@VIRTUAL_ENV=$(VENV) $(TOOLS)/uv/bin/uv pip install -q --require-hashes -r requirements.txt
	@VIRTUAL_ENV=$(VENV) $(TOOLS)/uv/bin/uv pip install -q "setuptools>=77"
	@VIRTUAL_ENV=$(VENV) $(TOOLS)/uv/bin/uv pip install -q --no-deps --no-build-isolation -e protos -e . -e clients/python -e clients/cli
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	@echo "setting up the tools of check and test (once) ..."
	@VIRTUAL_ENV=$(VENV) $(TOOLS)/uv/bin/uv pip install -q --require-hashes -r requirements-dev.txt
	@touch $@

$(BUF): protos/package-lock.json
	@cd protos && npm install --no-save --silent && touch node_modules/.bin/buf

$(TOOLS)/bin/protoc-gen-go:
	@GOTOOLCHAIN=local GOBIN=$(TOOLS)/bin go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12

$(TOOLS)/bin/protoc-gen-go-grpc:
	@GOTOOLCHAIN=local GOBIN=$(TOOLS)/bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2

# --- contract ---------------------------------------------------------------------
.PHONY: gen gen-check lint-contract lock
gen: $(VENV)/.dev $(TOOLS)/bin/protoc-gen-go $(TOOLS)/bin/protoc-gen-go-grpc ## Generates the stubs
	@PYTHON=$(CURDIR)/$(PY) TOOLS=$(TOOLS) protos/generate

gen-check: gen ## Fails when the committed stubs are not what the contract generates
	@git diff --exit-code --stat -- protos/gen clients/go/gen && test -z "$$(git status --porcelain -- protos/gen clients/go/gen)"

lint-contract: $(BUF)
	@cd protos && ./node_modules/.bin/buf lint
	@if [ "$(CONTRACT_MAY_BREAK)" != 1 ] && git rev-parse -q --verify main >/dev/null; then \
		cd protos && ./node_modules/.bin/buf breaking --against "$$(git rev-parse --path-format=absolute --git-common-dir)#branch=main,subdir=protos"; fi

lock: $(TOOLS)/uv/bin/uv ## Pins the Python dependencies anew
	@for f in requirements requirements-dev tests/tools/litellm/requirements tests/tools/moto/requirements; do $(TOOLS)/uv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --python-version 3.11 $$f.in -o $$f.txt; done

# --- running ------------------------------------------------------------------------
.PHONY: run
run: $(VENV)/.run ## Starts everything locally, streams a completion, stays up until Ctrl-C
	@exec $(PY) -m deploy.local.run

# --- checking and testing --------------------------------------------------------------
.PHONY: check lint types vault-server model-servers ollama-server test test-python test-go test-recordings fuzz security bench bench-decoders soak soak-memory format test-money fault-matrix stories
format: $(VENV)/.dev ## Formats the Python code
	@$(VENV)/bin/ruff check -q --fix . ; $(VENV)/bin/ruff format -q .

lint: $(VENV)/.dev
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check -q . && cd clients/go && test -z "$$(gofmt -l $$(find . -name '*.go' -not -path './gen/*'))" && go vet ./...

types: $(VENV)/.dev
	@$(VENV)/bin/mypy .

check: lint types lint-contract gen-check ## Lint, types, contract lint, fresh stubs, layers
	@$(PY) -m pytest -q tests/unit/test_layers.py
	@echo "check: all green"

vault-server: ## Finds or builds the real Vault and OpenBao servers that tests use (once, up to ten minutes)
	@tests/tools/openbao/build >/dev/null || echo "without OpenBao: its tests skip"
	@tests/tools/vault/build >/dev/null && { ! command -v go >/dev/null || tests/tools/vault/build --kubernetes >/dev/null; }

model-servers: $(TOOLS)/uv/bin/uv ## Installs llama.cpp's server with a small model, a LiteLLM proxy and an AWS of one machine, which tests use (once, 830 MB)
	@for name in llama litellm moto; do tests/tools/install-python $$name >/dev/null || echo "without $$name: its tests skip"; done

ollama-server: model-servers ## Finds or builds a real Ollama server, and runs the tests that use it (once, up to half an hour)
	@OLLAMA_BIN="$$(tests/tools/ollama/build)" $(PY) -m pytest -q tests/service/test_model_servers.py

test: test-python test-go ## Runs all tests; sets up what they need

test-python: $(VENV)/.dev vault-server model-servers
	@VAULT_BIN="$$(tests/tools/vault/build 2>/dev/null)" $(PY) -m pytest -q

test-go:
	@cd clients/go && GOTOOLCHAIN=local go test ./...

test-money: $(VENV)/.dev ## Runs the tests of the ledger, budgets and payers, on SQLite and PostgreSQL; prints the counts last
	@log=$$(mktemp); set -o pipefail; status=0; \
	$(PY) -m pytest -q -s tests/unit/router/test_money.py tests/unit/router/test_ledger*.py tests/service/test_router_budgets.py tests/unit/router/test_journal.py tests/security/test_payer_contract.py tests/security/test_killed_router.py tests/security/test_fault_matrix.py | tee $$log || status=$$?; \
	echo; grep -E '^(ledger laws|spenders on|payer contract|killed router|fault matrix)|(passed|failed)' $$log; rm $$log; exit $$status

fault-matrix: $(VENV)/.dev ## Writes the table of docs/fault-matrix.md anew
	@KEYSWITCH_WRITE_MATRIX=1 $(PY) -m pytest -q -s tests/security/test_fault_matrix.py

stories: $(VENV)/.dev ## Plays the stories of docs/stories and writes what their commands say anew
	@KEYSWITCH_WRITE_STORIES=1 $(PY) -m pytest -q tests/stories

test-recordings: $(VENV)/.dev ## Decodes every recorded answer of real providers
	@$(PY) -m pytest -q tests/unit/dialects

fuzz: $(VENV)/.dev ## Feeds every decoder with bytes that a fuzzer grows out of the recordings (SECONDS=60)
	@$(PY) -m tests.fuzz $(or $(SECONDS),60)
	@$(PY) -m tests.fuzz.borders $(or $(SECONDS),60)
	@$(PY) -m tests.fuzz.strangers $(or $(SECONDS),60)

security: $(VENV)/.dev vault-server ## Tries the security promises at length and prints what was found
	@KEYSWITCH_THOROUGH=1 VAULT_BIN="$$(tests/tools/vault/build 2>/dev/null)" $(PY) -m pytest -q -s --timeout=1800 tests/security

.PHONY: bench-timing
bench-timing: $(VENV)/.dev ## Measures whether time tells what is another's from what is not there (minutes, on a quiet machine)
	@$(PY) -m tests.bench.timing

.PHONY: catalog-check
catalog-check: $(VENV)/.run ## Says which entries of the built-in catalog have not been checked for 90 days
	@$(PY) -m router_service.catalog.staleness $$(date +%F)

bench: $(VENV)/.dev ## Measures the router against a bare pipe and a peer (minutes)
	@$(PY) -m tests.bench
	@$(PY) -m tests.bench.ledger

bench-decoders: $(VENV)/.dev ## Measures framing and decoding per event, by dialect, over the recordings
	@$(PY) -m tests.bench.decoders

MINUTES ?= 2
soak: $(VENV)/.dev ## Two routers over one Redis and one PostgreSQL under faults, MINUTES=2; prints what was promised and what was kept
	@$(PY) -m tests.soak $(MINUTES)

soak-memory: $(VENV)/.dev ## Whether a router keeps memory of calls that have ended, COMPLETIONS=100000 CANCELS=10000
	@$(PY) -m tests.soak.memory --completions $(or $(COMPLETIONS),100000) --cancels $(or $(CANCELS),10000)
