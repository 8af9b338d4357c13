# `make test` is the whole truth: it installs the real parts the tests talk to,
# then runs everything with them required. CI runs exactly this.

GO ?= go
FUZZTIME ?= 2s

.PHONY: build test demo lint fuzz parts generate bench pgo microbench charts clients vendor sbom deb test-image test-kubernetes

# With the profile the compiler takes a minute longer, so tests do without it.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -pgo cmd/doorward/profile.pgo -o bin/doorward ./cmd/doorward

test: parts lint clients
	DOORWARD_REQUIRE_PARTS=1 $(GO) test -race -timeout 12m ./...
	$(MAKE) --no-print-directory charts
	$(MAKE) --no-print-directory microbench BENCHTIME=10x
	$(MAKE) --no-print-directory fuzz

# Debian packages and npm modules that the stories drive: a browser, an
# independent OpenID provider, Redis, sshd, PostgreSQL.
parts:
	./e2e/parts.sh

# The chart and the manifests: linted, rendered and checked with Helm's own
# packages, in a module of its own. Vet would look at all of them.
charts:
	cd deploy/helm && $(GO) test -vet=off ./...

demo:
	$(GO) run ./cmd/demo

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these files"; exit 1; }
	$(GO) vet ./...

# The client runs on other systems than servers do; lint looks at Linux.
clients:
	for os in darwin windows; do GOOS=$$os CGO_ENABLED=0 $(GO) vet ./cmd/doorward ./internal/tunnel ./internal/clilogin || exit 1; done

# A smoke run of every fuzzer: the seed corpora run with the tests, this adds
# FUZZTIME of search to each.
fuzz:
	./e2e/fuzz.sh $(FUZZTIME)

# Doorward beside other proxies, in tables: docs/performance.md.
bench:
	$(GO) run ./bench

# Where the program spends its time under the loads of bench, for make build.
pgo:
	$(GO) run ./bench pgo cmd/doorward/profile.pgo

BENCHTIME ?= 1s
microbench:
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./authz ./proxy ./internal/session ./devicecheck ./internal/tunnel ./internal/h1 ./internal/lane

# docs/config.md and config/schema.json come from the comments in the code.
generate:
	$(GO) generate ./...

# What the opt-in targets below take is not needed for anything else.

# The modules beside the source, so that the image is built without a network.
vendor:
	$(GO) mod vendor

# What is in the binary, as CycloneDX: from the binary itself, not from go.mod.
sbom: build
	$(GO) run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.9.0 bin -json -output bin/doorward.cdx.json bin/doorward

# Builds the image without a network or a daemon, and runs it. As root.
test-image:
	./deploy/image/test.sh

# A Debian package in bin/: binary, unit, manual pages, completion. VERSION names it.
VERSION ?= 0.0.0~$(shell git log -1 --format=%cd.%h --date=format:%Y%m%d)
deb:
	@mkdir -p bin
	./deploy/debian/build.sh $(VERSION) bin

# A real kube-apiserver, built from its module (ten minutes the first time), takes
# the manifests and the rendered chart, and reviews tokens. Needs Debian's etcd-server.
test-kubernetes:
	cd deploy/apiserver && $(GO) test -vet=off -count=1 -v -timeout 40m .
