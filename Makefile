# Needs only make, git and Python 3.11 or later with its venv module. Everything is installed into
# .venv, by pip as it is configured on the machine.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check

# Size of the model search in `make demo`; empty: all 61 878 rows.
ROWS ?= 8000
# Further arguments for pytest, the examples' tests and the benchmarks, as in
# `make test PYTEST_ARGS="-k pi -x"`, `make bench BENCH_ARGS="--cases round_trip"` and
# `make chaos CHAOS_ARGS="--systems mars --tasks 1000"`.
PYTEST_ARGS ?=
BENCH_ARGS  ?=
# Where a run of the benchmarks is kept, as JSON lines; the tables stand beside it.
BENCH_JSON  ?= build/bench/$(shell date -u +%Y%m%dT%H%M%SZ).jsonl
CHAOS_ARGS  ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-without-clusters test-on-clusters test-pythons test-page peers-suites faults storage check format \
	docs dist slurm kubernetes bench bench-quick bench-page bench-cluster bench-adapters bench-newcomer bench-what-if bench-watched bench-tpch \
	larger-than-memory chaos clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) \
		| awk -F ':.*## ' '{ printf "  make %-22s %s\n", $$1, $$2 }'

# --- environments --------------------------------------------------------------------------------
# Stamp files say what .venv holds; a change of pyproject.toml installs again. The second holds all
# of the first: `make test` after `make demo` only adds the tools.

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "mars needs Python 3.11 or later; try: make PYTHON=python3.12"; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/for-demo: pyproject.toml | $(VENV)/made
	@echo "installing mars-remote and what the examples need (once)"
	@$(PIP) install --quiet --editable '.[ml]'
	@$(PY) -m compileall -q src  # an editable install does not, and may be told not to later
	@touch $@

# For hosts that join over ssh, and firewalls between them; those tests are skipped without. So are
# those on Slurm, which tests/lab/install_slurm.sh installs.
SYSTEM_SETTLED := { test -x /usr/sbin/sshd && test -x /usr/sbin/nft; } || test "$$(id -u)" != 0 \
	|| ! command -v apt-get >/dev/null
INSTALL_SYSTEM := { apt-get -qq update && apt-get -qq install --no-install-recommends -y \
	openssh-server openssh-client iproute2 nftables >/dev/null; } || true

# For the page in a real browser; those tests are skipped without, too.
BROWSER_SETTLED := command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	|| test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null
INSTALL_BROWSER := { apt-get -qq update && apt-get -qq install --no-install-recommends -y \
	chromium fonts-dejavu-core >/dev/null; } || true

# pip learned to read [dependency-groups] in 25.1, and many a Python still brings an older one.
$(VENV)/for-tests: pyproject.toml $(VENV)/for-demo | $(VENV)/made
	@echo "installing the tools for checks and tests (once)"
	@$(PY) -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' \
		> $(VENV)/dev.txt
	@$(PIP) install --quiet --requirement $(VENV)/dev.txt
	@$(SYSTEM_SETTLED) || $(INSTALL_SYSTEM)
	@{ $(BROWSER_SETTLED); } || $(INSTALL_BROWSER)
	@sh tests/lab/install_slurm.sh || true
	@touch $@

# --- what people run -----------------------------------------------------------------------------

demo: $(VENV)/for-demo  ## run both example programs, serial and spawned (some minutes)
	@echo
	@echo "=== examples/monte_carlo_pi.py: pi by Monte Carlo ==="
	@$(PY) examples/monte_carlo_pi.py
	@echo
	@echo "=== examples/model_search.py$(if $(ROWS), --rows $(ROWS)): 36 models of three families ==="
	@$(PY) examples/model_search.py $(if $(ROWS),--rows $(ROWS))
	@echo
	@echo "All 61 878 rows (about ten minutes on two cores, 12 GB of memory):"
	@echo "    $(PY) examples/model_search.py"

# Tests on clusters have a process of their own: Dask and Ray, once there, change what the others look
# at. Exit status 5: PYTEST_ARGS choose none of these.
CLUSTERS := tests/cluster tests/deploy tests/lab
PYTEST   := $(PY) -m pytest
NONE     := [ $$? -eq 5 ]
SUBMAKE  := $(MAKE) --no-print-directory

# Both halves run side by side where there are two cores: each waits for processes, timers and clusters
# most of the time. What the half on clusters prints is shown after the other's end. A failed half does
# not keep the other from running: one round says all that is wrong. Ctrl-C ends both, though pytest
# makes an exit status of it: jobs of make bear Ctrl-C, those that a shell starts with `&` do not.
ON_CLUSTERS := build/test-on-clusters
WITHOUT     := build/test-without-clusters
CORES       := $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)))' 2>/dev/null || echo 1)

test:  ## run all checks, then all tests: the half without clusters, beside it the half on clusters
	@$(SUBMAKE) check || { echo "make test: the checks FAILED; no test has run"; exit 1; }
	@mkdir -p build; echo FAILED > $(WITHOUT).result; echo FAILED > $(ON_CLUSTERS).result; : > $(ON_CLUSTERS).log
	@trap 'exit 130' INT; \
		$(SUBMAKE) --jobs=$(if $(filter 1,$(CORES)),1,2) --keep-going half-without half-on || true; \
		echo; echo "=== the half on clusters ==="; cat $(ON_CLUSTERS).log; \
		without=$$(cat $(WITHOUT).result) on=$$(cat $(ON_CLUSTERS).result); \
		echo "make test: checks passed, half without clusters $$without, half on clusters $$on"; \
		test "$$without$$on" = passedpassed

# A make of its own, as tests start makes that must not look for the job server of this one.
HALF := env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL $(firstword $(MAKE)) --no-print-directory VENV=$(VENV)
export PYTHON PYTEST_ARGS
.PHONY: half-without half-on

half-without: $(VENV)/for-tests
	@$(HALF) test-without-clusters && echo passed > $(WITHOUT).result

half-on: $(VENV)/for-tests
	@$(HALF) test-on-clusters > $(ON_CLUSTERS).log 2>&1 \
		&& echo passed > $(ON_CLUSTERS).result

test-without-clusters: $(VENV)/for-tests  ## one half of the tests, without Dask and Ray
	@$(PYTEST) $(CLUSTERS:%=--ignore=%) $(PYTEST_ARGS) || $(NONE)

test-on-clusters: $(VENV)/for-tests  ## the other half, on Dask and Ray
	@$(PYTEST) -m 'clusters and not lab and not campaign' $(CLUSTERS) tests/cli tests/engines \
		tests/resume tests/surface $(PYTEST_ARGS) || $(NONE)

# `make test` has the first file, too.
slurm: $(VENV)/for-tests  ## tests on a real Slurm, also the slow ones (some minutes; needs root and Debian)
	@sh tests/lab/install_slurm.sh
	@$(PYTEST) -m clusters tests/lab/test_slurm.py tests/lab/test_slurm_long.py $(PYTEST_ARGS)

# Each Python has an environment of its own, .venv-3.12 and so on. Versions that are not in the list
# yet are tried where they are found, and not missed where they are not.
PYTHONS ?= 3.11 3.12 3.13
NEWER   := $(if $(filter file,$(origin PYTHONS)),3.14 3.15 3.16 3.17)
HALVES  ?= test-without-clusters
PYENV   := $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions

# A shim of pyenv may stand on PATH for a version that it then refuses to start: each is asked.
test-page: $(VENV)/for-tests  ## test the page with 100 000 calls in a real browser (needs chromium)
	@MARS_PAGE_CALLS=100000 $(PYTEST) tests/page $(PYTEST_ARGS)

test-pythons:  ## the half without clusters, on every Python from 3.11 on that is found here
	@trap 'exit 130' INT; said=; failed=0; ran=0; \
	for version in $(PYTHONS) $(NEWER); do \
		python=; \
		for one in "$$(command -v python$$version)" \
				$$(ls -d "$(PYENV)"/$$version*/bin/python$$version 2>/dev/null | sort -Vr); do \
			if "$$one" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$version')" \
					2>/dev/null; then python=$$one; break; fi; \
		done; \
		if test -n "$$python"; then \
			echo; echo "=== Python $$version: $$python ==="; \
			result=passed; ran=1; \
			$(SUBMAKE) -k $(HALVES) VENV=.venv-$$version PYTHON="$$python" \
				|| { result=FAILED; failed=1; }; \
		else case " $(NEWER) " in \
			*" $$version "*) continue;; \
			*) result="not found on PATH or in $(PYENV)";; \
		esac; fi; \
		said="$$said\n  Python $$version: $$result"; \
	done; \
	printf "\nmake test-pythons ($(HALVES)):$$said\n"; \
	test "$$ran$$failed" = 10

# Tests of other packages, with mars in the place of what they test, in an environment of its own.
# SUITES="cpython": only these. The suite "cpython" needs a Python that has its own tests.
SUITES       ?=
PEERS_VENV   := .venv-peers
PEERS_PYTHON ?= $(firstword $(wildcard $(PYENV)/3.13*/bin/python3.13) $(PYTHON))

$(PEERS_VENV)/for-suites: pyproject.toml tests/peers_suites/requirements.txt
	@echo "making $(PEERS_VENV) with $(PEERS_PYTHON)"
	@$(PEERS_PYTHON) -m venv $(PEERS_VENV)
	@$(PEERS_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --editable . \
		--requirement tests/peers_suites/requirements.txt
	@touch $@

peers-suites: $(PEERS_VENV)/for-suites  ## run suites of others (CPython, loky, joblib, scikit-learn, Dask) against mars
	@$(PEERS_VENV)/bin/python -m tests.peers_suites $(SUITES) $(PYTEST_ARGS)

faults: $(VENV)/for-tests  ## run the campaigns: faults in large numbers (MARS_CAMPAIGN=0.1: a tenth)
	@$(PYTEST) -m 'campaign and not clusters' -o faulthandler_timeout=0 $(PYTEST_ARGS) || $(NONE)
	@$(PYTEST) -m 'campaign and clusters' -o faulthandler_timeout=0 $(PYTEST_ARGS) || $(NONE)

# Builds, starts and ends all that it needs. The first time it takes ten minutes more, to build.
kubernetes: $(VENV)/for-tests  ## tests on a real Kubernetes of two nodes (ten minutes; needs root and Debian 12)
	@$(PIP) install --quiet 'kubernetes>=29' 'python-dateutil<3'  # as botocore wants it
	@$(PYTEST) -m kubernetes -o faulthandler_timeout=0 tests/kubernetes $(PYTEST_ARGS) || $(NONE)

# npm brings the servers that are no Python. Nothing of it is left but build/storage.
storage: $(VENV)/for-tests  ## data at URLs on real servers: S3 twice, Azure Blob, SFTP (some minutes; needs npm)
	@mkdir -p build/storage
	@cd build/storage && npm install --silent --no-audit --no-fund s3rver@3 azurite@3
	@$(PIP) install --quiet 'adlfs>=2024.4'
	@MARS_STORAGE_SERVERS=build/storage $(PYTEST) -m 'not kubernetes' tests/storage $(PYTEST_ARGS)

check: $(VENV)/for-tests  ## format, lint, types, import layers, site; changes no source
	@$(PY) -m ruff format --check . || { echo "not formatted; run: make format"; exit 1; }
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) -m pytest --quiet --no-header tests/test_layers.py
	@$(SITE)

# A link that leads nowhere is a warning, and a warning ends the build. Sphinx says it again only of
# pages that it reads again, so all pages are read each time.
SITE := $(PY) -m sphinx --quiet --fail-on-warning --keep-going --fresh-env \
	-d build/site-cache docs build/site

docs: $(VENV)/for-tests  ## make the documentation site, from the pages in docs/
	@$(SITE)
	@echo "the site: build/site/index.html"

format: $(VENV)/for-tests  ## format, and fix what ruff can fix
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format --quiet .

# What is built is looked at, and installed as users get it: into an empty environment, with the
# hard dependencies alone. The version is that of src/mars/_version.py everywhere.
DIST := build/dist

dist: $(VENV)/for-tests  ## build wheel and sdist, check them, and try them in an empty environment
	@rm -rf $(DIST) build/try; mkdir -p build
	@$(PY) -m build --outdir $(DIST) . > build/dist.log 2>&1 || { cat build/dist.log; exit 1; }
	@$(PY) -m twine check --strict $(DIST)/*
	@for file in $(DIST)/*.whl $(DIST)/*.tar.gz; do \
		echo "installing $$file into an empty environment"; \
		rm -rf build/try; $(PYTHON) -m venv build/try || exit 1; \
		build/try/bin/python -m pip --disable-pip-version-check install --quiet "$$file" || exit 1; \
		build/try/bin/python -P tests/try_installed.py || exit 1; \
	done
	@rm -rf build/try
	@ls -l $(DIST)

# The peers are many and large, so they get an environment of their own.
.venv-bench/made: pyproject.toml benchmarks/requirements.txt
	@echo "making .venv-bench with all peers (once; they are large)"
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip --disable-pip-version-check install --quiet \
		--editable . --requirement benchmarks/requirements.txt
	@touch $@

bench: .venv-bench/made  ## compare with the peers, full sizes (an hour; wants a quiet machine)
	@.venv-bench/bin/python -m benchmarks --json $(BENCH_JSON) $(BENCH_ARGS)

bench-quick: .venv-bench/made  ## the same at small sizes, one round (some minutes)
	@.venv-bench/bin/python -m benchmarks --quick --json $(BENCH_JSON) $(BENCH_ARGS)

# From all runs in benchmarks/results, in the order of their names. A later run replaces the rows
# that it has as well. Needs no peer.
bench-page:  ## write docs/benchmarks.md and docs/plots from benchmarks/results
	@$(PYTHON) -m benchmarks.report benchmarks/results/*.jsonl --output docs/benchmarks.md

bench-cluster: $(VENV)/for-tests  ## ours on Dask and Ray against plain Dask and Ray (some minutes)
	@$(PY) -m benchmarks.cluster $(BENCH_ARGS)

bench-adapters: $(VENV)/for-tests  ## joblib, Executor, Dask and pandas on mars against loky, Dask and others (minutes; a quiet machine)
	@$(PY) -m benchmarks.adapters $(BENCH_ARGS)

bench-newcomer: $(VENV)/for-tests  ## twelve programs on mars, joblib, threads and others, with time and memory (half an hour; a quiet machine)
	@$(PY) -m benchmarks.newcomer $(BENCH_ARGS)

bench-what-if: $(VENV)/for-tests  ## predictions of runs against real ones (a minute; a quiet machine)
	@$(PY) -m benchmarks.what_if $(BENCH_ARGS)

bench-watched: $(VENV)/for-tests  ## what a page costs a flood of empty calls: off, on, in a browser (minutes)
	@$(PY) -m benchmarks.watched $(BENCH_ARGS)

larger-than-memory: $(VENV)/for-tests  ## data of 3 GiB through 768 MiB of memory (some minutes)
	@$(PY) -m benchmarks.larger_than_memory

# tpchgen-cli makes the data, 1 GB in build/tpch. TPCH_ARGS="--scale 0.1 --queries 1 6": less.
TPCH_ARGS ?=
bench-tpch: $(VENV)/for-tests  ## TPC-H against pandas and Dask's threads (minutes; a quiet machine)
	@$(PIP) install --quiet tpchgen-cli
	@$(PY) -m benchmarks.tpch $(TPCH_ARGS)

chaos: .venv-bench/made  ## kill a random worker every 200 ms, ours and the peers' (half an hour)
	@.venv-bench/bin/python -m benchmarks.chaos $(CHAOS_ARGS)

clean:  ## remove environments, caches and build results
	rm -rf .venv .venv-bench .venv-3.* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
