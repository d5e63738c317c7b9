# make demo, test, lint, format, types, results, install, clean. Needs Python 3.11 or 3.12, git and make.
#
#   PYTHON=/path/to/python3.12   the interpreter to use, in place of the first good one on PATH
#   ARGS="-k windows"            passed on to pytest (make test) or to foretide demo (make demo)
#   FORETIDE_REQUIRE=all         make test: parts that are missing fail, and the oracles are installed too

VENV := .venv
BIN := $(VENV)/bin
comma := ,
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lint format types results install clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      train, score and forecast on the sample that comes along"
	@echo "make test      the tests (ARGS=... goes to pytest)"
	@echo "make lint      ruff        make format   ruff, in place        make types   mypy"
	@echo "make results   the table of committed benchmark results"
	@echo "make install   everything for development into $(VENV)"
	@echo "make clean     removes $(VENV) and caches; keeps .foretide, where your runs are"

demo: $(VENV)/run.stamp
	@$(BIN)/foretide demo $(ARGS)

test: $(VENV)/$(if $(filter all,$(FORETIDE_REQUIRE)),oracles,test).stamp
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/dev.stamp
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

types: $(VENV)/dev.stamp
	@$(BIN)/mypy

results: $(BIN)/python
	@$(BIN)/python -m benchmarks.results

install: $(VENV)/dev.stamp

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.foretide/*' -prune -exec rm -rf {} +

# $(call pip-install,extras,stamps): an installed set covers the smaller ones, so all their stamps are set.
define pip-install
	@echo "Installing Foretide$(if $(1), with [$(1)],) into $(VENV): one to five minutes. The download is about 0.7 GB where"
	@echo "PIP_FIND_LINKS or an extra index offers a CPU-only torch, and about 3.2 GB with PyPI's build for NVIDIA cards."
	@$(BIN)/python -m pip install -q -c constraints.txt setuptools
	@$(BIN)/python -m pip install --no-build-isolation -c constraints.txt -e '.$(if $(1),[$(1)])'
	@touch $(foreach stamp,$(2),$(VENV)/$(stamp).stamp)
endef

$(VENV)/run.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(call pip-install,,run)

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(call pip-install,test,run test)

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(call pip-install,dev,run test dev)

$(VENV)/oracles.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(call pip-install,test$(comma)oracles,run test oracles)

# The first on PATH that answers: a name is no proof, version managers leave some that only print an error.
$(BIN)/python:
	@usable='import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))'; \
	found=; bare=; \
	for folder in $$(echo "$$PATH" | tr ' :' '? '); do \
	  for name in $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3 python); do \
	    case $$name in */*) candidate=$$name ;; *) candidate=$$folder/$$name ;; esac; \
	    [ -x "$$candidate" ] && "$$candidate" -c "$$usable" >/dev/null 2>&1 || continue; \
	    if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$$candidate; break 2; fi; \
	    bare=$$candidate; \
	  done; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	  echo "$$bare cannot make virtual environments: ensurepip is missing. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	elif [ -z "$$found" ]; then \
	  echo "No usable Python 3.11 or 3.12 found on PATH: install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$found"; \
	"$$found" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }
