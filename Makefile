# `make demo` and `make test` set up what they need on a machine with python3, git and make.

VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin

# TensorFlow and a viewer's OpenGL in one process end in a segmentation fault on Linux, so
# the tests run twice: without viewers, and without TensorFlow.
VIEWER_TESTS := tests/gui tests/plugin tests/test_boundaries.py
XVFB := xvfb-run --auto-servernum --server-args="-screen 0 1600x1000x24"

.PHONY: demo test lint test-core test-viewer clean

demo: $(READY)
	$(BIN)/napari-unet demo

test: lint test-core test-viewer

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate napari.yaml

test-core: $(READY)
	$(BIN)/pytest $(VIEWER_TESTS:%=--ignore=%)

test-viewer: $(READY)
	$(XVFB) $(BIN)/pytest $(VIEWER_TESTS)

$(READY): pyproject.toml scripts/setup.sh
	scripts/setup.sh $(VENV)
	touch $@

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
