# make setup    .venv/ and install/, from nothing (DISTRO=jazzy chooses ROS 2's, PYTHON=python3.12 the Python,
#               EXTRAS=mllm adds a group)
# make demo     the whole way once, on real pictures; its results are in out/demo
# make test     ruff, mypy and the tests, against what setup built
# make smoke    the node's basics on another distribution (DISTRO=jazzy), in a second clone of what is committed, out/smoke;
#               TESTS=test/ros runs all tests of the node there
# make lint     ruff and mypy alone
# make bench    the scripts of benchmarks/ that need no GPU and end within minutes (BENCHMARKS=node_soak chooses others)
# make docs     the pages, into out/docs; a warning is an error
# make clean    remove what setup and the tools made

# Once there is an environment, its own Python: what PYTHON chose for `make setup` holds for `make demo` too.
PYTHON ?= $(shell .venv/bin/python -c '' 2>/dev/null && echo .venv/bin/python || echo python3)
# Empty: that of the environment, or Kilted where there is none.
DISTRO ?=
EXTRAS ?=
BENCHMARKS ?= active_vs_slices core_overhead node_overhead

.DEFAULT_GOAL := help
.PHONY: help setup prefetch demo test smoke lint bench docs clean
# One shell for a recipe: it sources the two files that a user sources.
.ONESHELL:
SHELL := /bin/sh
.SHELLFLAGS := -ec
ACTIVATE := . .venv/bin/activate; . install/setup.sh

help:
	@sed -n 's/^# make/make/p; s/^#       /       /p' $(firstword $(MAKEFILE_LIST))

setup:
	@command -v $(PYTHON) >/dev/null || { echo "make setup: $(PYTHON) is not on the PATH; choose one: make setup PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) scripts/setup_environment.py --distribution "$(DISTRO)" --extras "$(EXTRAS)"

# The models and pictures that the demo, the tests and the benchmarks use; they stay in the user's cache.
prefetch: setup
	@$(ACTIVATE)
	activeo3 prefetch demo

demo: prefetch
	@$(ACTIVATE)
	activeo3 demo --out out/demo --force

lint: setup
	@$(ACTIVATE)
	ruff check .
	mypy

# A file of tests stays with one process, so that its node and its models start once.
test: lint prefetch
	@$(ACTIVATE)
	pytest -n auto --dist loadfile --cov --cov-report=html --durations=30 --durations-min=5
	echo "coverage: $$(coverage report --format=total) % of the lines, without child processes; by file: out/coverage/index.html"

TESTS := $(patsubst %,test/ros/test_%.py,interfaces installation launch node_lifecycle remapping)
FIND_PYTHON := import setup_environment as setup, sys; sys.exit(not setup.find_python(sys.argv[1]))

smoke: DISTRO := $(or $(DISTRO),jazzy)
smoke:
	@if ! PYTHONPATH=scripts $(PYTHON) -c "$(FIND_PYTHON)" $(DISTRO); then
		echo "make smoke: left out: no Python of this machine has wheels of ROS 2 $(DISTRO)"
		exit 0
	fi
	rm -rf out/smoke
	git clone --quiet . out/smoke
	$(PYTHON) out/smoke/scripts/setup_environment.py --distribution $(DISTRO)
	cd out/smoke
	unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH  # of a shell's own ROS
	$(ACTIVATE)
	pytest -q -n auto --dist loadfile $(TESTS)

bench: prefetch
	@$(ACTIVATE)
	for name in $(BENCHMARKS); do
		echo "== $$name"
		PYTHONPATH="research:$$PYTHONPATH" python "benchmarks/$$name.py"
	done

docs: override EXTRAS += docs
docs: setup
	@$(ACTIVATE)
	python docs/generate.py
	sphinx-build -q -W --keep-going -b html -d out/doctrees docs out/docs
	echo "the pages are in out/docs/index.html"

clean:
	rm -rf .venv build install log out .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
