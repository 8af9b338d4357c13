# syntax=docker/dockerfile:1
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/doorward ./cmd/doorward \
 && mkdir -p /out/state /out/etc

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/doorward /doorward
# Mount the configuration at /etc/doorward and a volume for sessions at
# /var/lib/doorward; everything else is read-only.
COPY --from=build --chown=65532:65532 /out/state /var/lib/doorward
COPY --from=build /out/etc /etc/doorward
USER 65532:65532
EXPOSE 8443 9901
ENTRYPOINT ["/doorward"]
CMD ["serve", "--config", "/etc/doorward/doorward.yaml"]
