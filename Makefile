# `make demo` and `make test` set up what they need on a machine with python3, git and make.

VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin

# TensorFlow and a viewer's OpenGL in one process end in a segmentation fault on Linux, so
# the tests run in two processes: without viewers, and without TensorFlow. Both often wait for
# processes of their own, so they run side by side, all with the lowest priority: workers lower
# theirs, and those of one run would wait for the other run.
VIEWER_TESTS := tests/gui tests/plugin tests/test_boundaries.py
# Need neither, and run with the viewers, whose tests take less long.
PLAIN_TESTS := tests/data
XVFB := xvfb-run --auto-servernum --server-args="-screen 0 1600x1000x24"

.PHONY: demo test lint test-core test-viewer clean

demo: $(READY)
	$(BIN)/napari-unet demo

test: $(READY)
	@echo "Two runs of tests, side by side: ten to twenty-five minutes, and each prints when it ends."
	nice -n 19 $(MAKE) --jobs=2 --output-sync=target test-core lint test-viewer

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate napari.yaml

test-core: $(READY)
	$(BIN)/pytest $(patsubst %,--ignore=%,$(VIEWER_TESTS) $(PLAIN_TESTS))

test-viewer: $(READY)
	$(XVFB) $(BIN)/pytest $(VIEWER_TESTS) $(PLAIN_TESTS)

$(READY): pyproject.toml scripts/setup.sh
	scripts/setup.sh $(VENV)
	touch $@

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
