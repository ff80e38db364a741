# What people and CI run. `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help demo test full-disk chaos check deny config-check laws requests real bench bench-e2e bench-http bench-late bench-latency bench-memory schemathesis \
        services services-down
SHELL := /bin/bash

# The real records and what must come of them, for `make real`.
REAL ?= ../shared/real
# How many faults `make chaos` does, and which.
FAULTS ?= 200
SEED ?= 1
# How many lines `make bench-http` loads.
UPIS ?= 1000000
export UPIS
# The rate, the time in seconds and the backlog of `make bench-latency`.
EVENTS_PER_SECOND ?= 10000
DURATION ?= 30
BACKLOG ?= 0
# How many histories `make laws` plays, and requests `make requests` sends.
CASES ?= 5000
# How many customers are known and events wait, for `make bench-memory`.
CUSTOMERS ?= 1000000
EVENTS ?= 5000000

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Play a month in a minute: nothing needed but Rust, a C compiler, make and perl
	cargo run --release --locked -- demo $(ARGS)

test: ## All tests, against a real Kafka and PostgreSQL that it starts by itself
	scripts/services up
	scripts/services install
	set -e; env="$$(scripts/services env)"; eval "$$env"; cargo test --locked --features failpoints

full-disk: ## A database whose disk is full for a while, on a gigabyte of memory that it mounts: root alone can
	scripts/services install
	mkdir -p target/full-disk
	mount -t tmpfs -o size=1g tmpfs target/full-disk
	trap 'umount target/full-disk' EXIT; HEADROOM_TEST_DISK="$$PWD/target/full-disk" cargo test --locked --features failpoints --test faults full_disk -- --ignored --nocapture

chaos: ## Faults over a running deployment: make chaos FAULTS=1000 SEED=7 STATE=file (to go on after a break)
	scripts/services install
	FAULTS=$(FAULTS) SEED=$(SEED) $(if $(STATE),STATE=$(abspath $(STATE))) nice cargo test --locked --features failpoints --test faults -- --nocapture

laws: ## The laws over many histories, one in 500 of them on the real stores: make laws CASES=100000
	scripts/services up
	set -e; env="$$(scripts/services env)"; eval "$$env"; CASES=$(CASES) cargo test --release --locked --test laws -- --nocapture

requests: ## Requests that are nearly right, by the thousand: make requests CASES=100000
	CASES=$(CASES) cargo test --release --locked --test query generated

bench: ## Instructions per event by callgrind, against benches/baseline.md; BLESS=1 writes that anew
	@command -v valgrind >/dev/null || apt-get install -y valgrind || { echo "bench: valgrind is not here, and apt-get cannot install it" >&2; exit 1; }
	cargo bench --locked --profile dev --bench instructions

bench-late: ## What late usage costs as a customer's month grows; MONTHS=2 leaves the longest out
	scripts/services up
	set -e; env="$$(scripts/services env)"; eval "$$env"; cargo bench --locked --bench late

bench-e2e: ## What a running service costs: make bench-e2e ARGS='--events 1000000 late20'
	cargo build --release --locked
	scripts/bench-e2e $(ARGS)

check: deny config-check ## Format, lints, dependencies, and the files of the deployment
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features failpoints -- -D warnings
	cargo clippy --locked --bench memory --bench late -- -D warnings

deny: ## Dependencies: bans, licences and sources; advisories where their database can be fetched
	scripts/deny

config-check: ## The files of docker compose and Prometheus, by their own tools
	scripts/config-check

bench-memory: ## What a worker takes of memory: make bench-memory CUSTOMERS=1000000 EVENTS=5000000
	scripts/services up
	set -e; env="$$(scripts/services env)"; eval "$$env"; CUSTOMERS=$(CUSTOMERS) EVENTS=$(EVENTS) cargo bench --locked --bench memory

real: ## Records of real systems through Kafka and PostgreSQL, then through the demo: make real REAL=folder
	cargo build --locked
	scripts/services up
	set -e; env="$$(scripts/services env)"; eval "$$env"; scripts/real $(REAL); scripts/real --sqlite $(REAL)

bench-http: ## The query at size, over Kafka and PostgreSQL: make bench-http UPIS=1000000, REUSE=postgres://... asks again
	cargo build --release --locked --bin headroom --example bench_http
	scripts/services up
	set -e; env="$$(scripts/services env)"; eval "$$env"; target/release/examples/bench_http

bench-latency: ## How late balances and alerts are at a steady rate: make bench-latency EVENTS_PER_SECOND=10000 DURATION=30 BACKLOG=5000000
	cargo build --release --locked --bin headroom --example bench_latency
	scripts/services up
	set -e; env="$$(scripts/services env)"; eval "$$env"; export EVENTS_PER_SECOND=$(EVENTS_PER_SECOND) DURATION=$(DURATION) BACKLOG=$(BACKLOG); \
	  target/release/examples/bench_latency

schemathesis: ## A running service held to its own description: make schemathesis EXAMPLES=1000
	cargo build --locked
	scripts/schemathesis

services: ## Start Kafka and PostgreSQL for tests
	scripts/services up

services-down: ## Stop what `make services` started
	scripts/services down
