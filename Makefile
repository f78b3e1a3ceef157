# Nothing but names for `python3 -m local_stack.bootstrap COMMAND`, which works without make too.
# It makes .venv and installs the pinned requirements where that is still to do.
# Arguments: make test ARGS="-k windows -x"    Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
DURATION ?= 150

smoke: ARGS ?= --duration $(DURATION)

# exec, so that a signal to the recipe's process reaches Python.
help demo test test-all infra smoke bench bench-peers chaos lint clean:
	exec $(PYTHON) -m local_stack.bootstrap $@ $(ARGS)

.PHONY: help demo test test-all infra smoke bench bench-peers chaos lint clean
