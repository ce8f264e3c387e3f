# Every target sets up .venv the first time, with plain pip; none needs root.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: setup demo test check bench bench-code agreement clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(STAMP)

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m examples.demo

test: $(STAMP)
	$(BIN)/python -m pytest -n auto

check: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# Generated programs against the running kernel, verdicts and then results; needs bpf(2), and so root.
agreement: $(STAMP)
	$(BIN)/python -m tests.agreement.generate $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) \
		--keep fixtures/verifier/generated
	$(BIN)/python -m tests.agreement.engines --programs 4000

bench: $(STAMP)
	$(BIN)/python -m tests.bench --plugin

# The code beside clang-19's: slots, what the kernel's verifier processes, and time a packet; says what it cannot measure.
bench-code: $(STAMP)
	$(BIN)/python -m tests.bench.code

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache
