# Every target sets up .venv the first time, with plain pip; none needs root.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: setup compiled demo test check bench bench-code agreement clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(STAMP)

setup: compiled

# Bytecode of the sources, since an interpreter that may write none compiles them anew at each start: that takes longer
# than most commands do.
compiled: $(STAMP)
	@$(BIN)/python -m compileall -q bpflisp simulator pytest_plugin tests examples tools

demo: compiled
	$(BIN)/python -m examples.demo

test: compiled
	$(BIN)/python -m pytest -n auto

check: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# Generated programs against the running kernel, verdicts and then results; needs bpf(2), and so root.
agreement: compiled
	$(BIN)/python -m tests.agreement.generate $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) \
		--keep fixtures/verifier/generated
	$(BIN)/python -m tests.agreement.engines --programs 4000

bench: compiled
	$(BIN)/python -m tests.bench --plugin

# The code beside clang-19's: slots, what the kernel's verifier processes, and time a packet; says what it cannot measure.
bench-code: compiled
	$(BIN)/python -m tests.bench.code

# What programs do with each pass left out alone, and at the lower levels: none of it may change.
passes: $(STAMP)
	$(BIN)/python -m tests.bpflisp.passes

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache
