# make help lists what there is.
VERSION ?= $(shell packaging/version.sh)
PREFIX ?= /usr/local
FUZZTIME ?= 3s

# Go finds itself by /proc, which a chroot may lack.
ifeq ($(wildcard /proc/self/exe),)
export GOROOT ?= $(patsubst %/bin/go,%,$(realpath $(shell command -v go)))
endif

# Any Go from 1.21 on fetches the toolchain that go.mod pins, Debian's too.
export GOTOOLCHAIN ?= $(shell packaging/toolchain.sh)

LINT = go tool -modfile=$(CURDIR)/tools/go.mod golangci-lint run

.PHONY: troubleshooting build files install uninstall packages release demo test test-engines test-boot test-race test-kills test-credentials lint fuzz bench bench-growth bench-engines pgo bench-boot clean help

build: ## Build the one static binary, bin/sidemirror
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/sidemirror ./cmd/sidemirror

files: build ## Make the files that are installed with it: manual pages, completions, notices
	VERSION='$(VERSION)' packaging/files.sh bin/sidemirror bin/files

install: ## Install what "make files" made, below PREFIX (/usr/local), in DESTDIR if set
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' packaging/install.sh install

uninstall: ## Give the engines' files back and remove what "make install" installed
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' packaging/install.sh uninstall

packages: ## Build deb and rpm for amd64 and arm64 into dist/
	VERSION='$(VERSION)' packaging/build.sh dist

release: ## Build packages, SBOMs and signed apt and dnf repositories; see packaging/release.sh
	VERSION='$(VERSION)' packaging/release.sh dist/release

demo: ## Watch an engine pull a private image through sidemirror (needs only Go)
	@CGO_ENABLED=0 test/demo/build.sh sidemirror . ./cmd/sidemirror -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/sidemirror
	@CGO_ENABLED=0 test/demo/build.sh 'the demonstration' test ./demo -trimpath -o ../bin/demo
	@cd test && SIDEMIRROR_BINARY=$(CURDIR)/bin/sidemirror ../bin/demo

test: ## Run every test; as root also those against real engines, installed by apt
	FUZZTIME=$(FUZZTIME) tools/test.sh

test-engines: ## Run the tests on whole hosts with the engines of every age, not only oldest and newest
	tools/test.sh hosts

test-boot: ## Install the packages on booted systems of every suite, not only trixie
	tools/test.sh boot

test-race: ## Run the daemon itself with the race detector, under the tests that load it
	tools/test.sh race

test-kills: ## Kill the daemon at 200 instants of transfers, not only at some
	cd test && SIDEMIRROR_TEST_KILLS=200 go test -count=1 -timeout 30m -run Killed ./cache ./transfer

test-credentials: ## A token of 60 s, and 1,000 pulls over 5 minutes
	cd test && CREDENTIALS_TOKEN_LIFE=60s CREDENTIALS_DURING=5m go test ./credentials -run Renewed -v

troubleshooting: ## Make docs/troubleshooting.md from the codes of the program
	cd tools && go run ./troubleshooting ..

lint: ## Check format, imports, modules, wording and the code itself
	$(LINT) ./...
	cd test && $(LINT) --config ../.golangci.yml ./...
	cd tools && $(LINT) --config ../.golangci.yml ./...
	cd bench && $(LINT) --config ../.golangci.yml ./...
	cd packaging && $(LINT) --config ../.golangci.yml ./...
	cd packaging/cpio && $(LINT) --config ../../.golangci.yml ./...
	go mod tidy -diff
	cd test && go mod tidy -diff
	cd test/credentials/oracle && go mod tidy -diff
	cd test/hosts/oracle && go mod tidy -diff
	cd tools && go mod tidy -diff
	cd bench && go mod tidy -diff
	cd packaging && go mod tidy -diff
	cd packaging/cpio && go mod tidy -diff
	cd tools && go run ./prose ..
	@! git grep -nE '\b(TODO|FIXME|XXX)\b' -- '*.go' '*.sh' '*.toml' '*.html' || { echo 'finish these, or file an issue'; exit 1; }

fuzz: ## Fuzz every target longer: make fuzz FUZZTIME=1m
	FUZZTIME=$(FUZZTIME) tools/test.sh fuzz

bench: ## Measure next to nginx and distribution, on this machine; writes bench/RESULTS.md
	bench/setup.sh
	cd bench && go run .

bench-growth: ## Measure how the cost grows with the work; writes a section of bench/RESULTS.md
	bench/setup.sh
	cd bench && go run . -growth

bench-engines: ## Measure pulls by containerd, Docker and podman; root; writes a section of bench/RESULTS.md
	test/setup.sh
	cd bench && go run . -engines

pgo: ## Profile sidemirror under load, for the compiler; writes cmd/sidemirror/default.pgo
	bench/setup.sh
	cd bench && go run . -profile ../cmd/sidemirror/default.pgo

bench-boot: ## Measure the packages on a booted system; root; writes a section of bench/RESULTS.md
	test/setup.sh
	cd bench && go run . -booted

clean: ## Remove what the other targets built
	rm -rf bin dist

help: ## Show this
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
