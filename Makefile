# poold: `make run` and `make test` do everything on a fresh Debian machine.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := .build/release
SEEDS ?= 10000
# One file without the shared libraries of Swift and C++: it runs where no toolchain is, and it starts in a fraction of the time.
STATIC := .build/static
RELEASE := -c release --static-swift-stdlib -Xlinker -L$(CURDIR)/$(STATIC)

.PHONY: run test build bench lint proto fuzz sim soak setup swift-tests python-tests client-tests clean

# Runs poold with the example pools in the foreground and says how to call them.
run: build $(VENV)/.done
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" exec $(BIN)/poold

build: setup
	@mkdir -p $(STATIC) && rm -f $(STATIC)/libstdc++.a
	@archive="$$(gcc -print-file-name=libstdc++.a)"; [[ $$archive != /* ]] || ln -s "$$archive" $(STATIC)/libstdc++.a
	swift build $(RELEASE) --product poold
	swift build $(RELEASE) --product poolctl
	swift build $(RELEASE) --product poolbench
	swift build $(RELEASE) --product poolsim

test: build $(VENV)/.done
	@.ci/steps

setup:
	@.ci/setup

$(VENV)/.done: python/pyproject.toml | setup
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check -e 'python[test,examples]'
	touch $@

# Beside the project's own floor: Benchmarks/README.md
bench: build $(VENV)/.done
	$(MAKE) -s -C Benchmarks/floor
	$(BIN)/poolbench compare --python $(VENV)/bin/python

lint:
	swift format lint --strict -r Package.swift Sources Tests Benchmarks

# Needs protoc and protoc-gen-swift (of swift-protobuf) on PATH; the result is committed.
proto:
	cd proto && protoc --swift_out=../Sources/PoolProtocol --swift_opt=Visibility=Package --swift_opt=FileNaming=DropPath --swift_opt=UseAccessLevelOnImports=true poold/v1/control.proto poold/v1/meta.proto

fuzz:
	Tests/Fuzz/run $(or $(SECONDS_EACH),60)

sim: build
	$(BIN)/poolsim run --seeds $(SEEDS)

clean:
	rm -rf .build $(VENV)
