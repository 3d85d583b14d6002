# `make demo` and `make test` are all that a newcomer needs: each makes .venv first where there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-slow test-oracle lint docs reference replay-reference bench faults-ci faults soak soak-quick clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[edge,cloud,train,dev]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/roadside demo

# Two at a time, since much of it waits for processes; what shares a fixture stays together.
test: $(INSTALLED)
	$(BIN)/pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(INSTALLED)
	$(BIN)/pytest -m slow

# Our DDPG beside another implementation on a pendulum, six trainings: about ten minutes.
test-oracle: $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[oracle]"
	$(BIN)/pytest -s tests/policy/training/test_ddpg_pendulum.py

# basedpyright reads `roadside.x` in the tests through a link that only tools see.
lint: $(INSTALLED)
	mkdir -p .import && ln -sfn .. .import/roadside
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports
	$(BIN)/python -P .ci/audit.py

# These pages as HTML, in docs/_build/html; a warning is an error.
docs: reference
	$(BIN)/sphinx-build -E -W --keep-going -q -b html docs docs/_build/html

# The pages of docs/ that are made of the program itself.
reference: $(INSTALLED)
	$(BIN)/python -P docs/make_reference.py

# The recording that the test of `roadside replay` compares with: after a change that is meant to change decisions or
# answers. Look at what it differs in first: `roadside replay tests/replay/reference`.
REFERENCE := tests/replay/reference
replay-reference: $(INSTALLED)
	rm -rf build/reference
	$(BIN)/roadside demo --policy random --vehicles 1 --edges 1 --duration 14 --rate 0.8 --seed 3 --frame-interval 0 \
		--record-messages --run build/reference
	$(BIN)/roadside replay build/reference
	rm -f $(REFERENCE)/*.gz
	gzip -9n build/reference/messages/*.messages
	mv build/reference/messages/*.gz $(REFERENCE)/

# Every fault once, about four minutes; and a thousand of them, two hours. Exit status 1 where the contract was broken.
faults-ci: $(INSTALLED)
	$(BIN)/roadside bench faults --seeds 23

faults: $(INSTALLED)
	$(BIN)/roadside bench faults --seeds 1000

bench: $(INSTALLED)
	$(BIN)/roadside bench footprint

# Steady load with a fault every minute.
MINUTES ?= 60
soak: $(INSTALLED)
	$(BIN)/roadside bench soak --minutes $(MINUTES)

soak-quick: $(INSTALLED)
	$(BIN)/pytest -s -m slow tests/benchmarks/test_soak.py

clean:
	rm -rf $(VENV) .import build dist docs/_build *.egg-info
