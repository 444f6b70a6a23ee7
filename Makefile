# Needs Python >= 3.11 and make. Everything else is installed into .venv by the targets themselves.
PYTHON ?= python3
ARGS ?=
UV = .make/tool/bin/uv
RUN = .venv/bin/
EXTRAS = --extra cpu --extra local --extra embedded --extra offline
export UV_PROJECT_ENVIRONMENT = .venv
export UV_PYTHON_DOWNLOADS = never
# Images for containers often forbid bytecode; the hundreds of processes that the tests and the
# benchmarks start would then each compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check env env-dev bench bench-peers clean

demo: .make/run
	$(RUN)tollhouse demo $(ARGS)

test: check
	$(RUN)pytest -q -n 2 --dist worksteal $(ARGS)

# Format, lint, types, import contracts.
check: .make/dev
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)mypy
	$(RUN)lint-imports

env: .make/run
env-dev: .make/dev

bench: .make/dev
	$(RUN)python -m loadtest.bench $(ARGS)

bench-peers: .make/dev
	$(RUN)python -m loadtest.peers $(ARGS)

.make/tool/bin/uv: requirements-uv.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed; say make PYTHON=python3.12")'
	$(PYTHON) -m venv .make/tool
	.make/tool/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@touch $@

.make/run: .make/tool/bin/uv pyproject.toml uv.lock
	$(UV) sync --quiet --frozen --inexact --compile-bytecode --no-default-groups --python .make/tool/bin/python $(EXTRAS)
	@touch $@

.make/dev: .make/tool/bin/uv pyproject.toml uv.lock
	$(UV) sync --quiet --frozen --inexact --compile-bytecode --python .make/tool/bin/python $(EXTRAS) --extra postgres --group dev
	@touch $@ .make/run

clean:
	rm -rf .venv .make .tollhouse dist
