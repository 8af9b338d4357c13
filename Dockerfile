# The image: the binary, certificate authorities, and an empty directory for state.
#
#   make vendor && docker build --network none --build-arg VERSION=1.2.3 -t doorward:1.2.3 .
#
# With the directory vendor/ nothing is fetched during the build; without it the
# modules come through GOPROXY and are checked against go.sum. The same source,
# VERSION and GO_IMAGE give the same binary, byte by byte.
#
# The target `local` takes a binary that was built elsewhere, from a directory
# with doorward, ca-certificates.crt and an empty directory state:
#   docker build --target local -f Dockerfile DIRECTORY

# Name it by digest (golang:1.26-bookworm@sha256:…) to rebuild the same image later.
ARG GO_IMAGE=golang:1.26-bookworm

FROM scratch AS base
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Doorward" \
      org.opencontainers.image.description="An identity-aware access proxy" \
      org.opencontainers.image.source="https://github.com/doorward/doorward" \
      org.opencontainers.image.documentation="https://github.com/doorward/doorward/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
EXPOSE 8443 9901
# Mount the configuration at /etc/doorward and a volume for sessions at
# /var/lib/doorward; nothing else is written, so the root may be read-only.
ENTRYPOINT ["/doorward"]
CMD ["serve", "--config", "/etc/doorward/doorward.yaml"]
# Kubernetes has probes of its own and ignores it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
  CMD ["/doorward", "health", "--config", "/etc/doorward/doorward.yaml"]

FROM base AS local
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --chown=65532:65532 state /var/lib/doorward
COPY doorward /doorward

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY . .
ARG VERSION=dev
ENV CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-buildvcs=false
RUN go build -trimpath -pgo cmd/doorward/profile.pgo -ldflags "-s -w -buildid= -X main.version=${VERSION}" -o /out/doorward ./cmd/doorward \
 && mkdir -p /out/state && cp /etc/ssl/certs/ca-certificates.crt /out/

FROM base
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 /out/state /var/lib/doorward
COPY --from=build /out/doorward /doorward
