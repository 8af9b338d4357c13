#!/usr/bin/env bash
# Builds the image as the Dockerfile says, without a network, and runs it: as a
# user without rights, on a read-only root. Needs root, no daemon and no registry.
#
# GO_IMAGE is the image to build in. Without it one is put together from the Go
# of this machine, which no registry is needed for.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=()
for part in buildah podman runc busybox-static; do
  command -v "${part%-static}" >/dev/null || missing+=("$part")
done
if ((${#missing[@]})); then
  echo "installing: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

work=$(mktemp -d)
name=doorward-image-test-$$
# Images and containers of this run only, gone with its directory.
store=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
# Limits that need no capability, for machines where root may not raise them.
pod=(podman "${store[@]}" --runtime "$(command -v runc)" --cgroup-manager cgroupfs)
limits=(--ulimit nofile=4096:4096 --ulimit nproc=4096:4096 --network host)
cleanup() {
  "${pod[@]}" rm -f -t 5 "$name" >/dev/null 2>&1 || true
  buildah "${store[@]}" unmount --all >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT

say() { printf '%s\n' "$*"; }
fail() { say "FAILED: $*" >&2; exit 1; }

# The source as it is committed or about to be, with its modules.
mkdir "$work/src"
git ls-files --cached --others --exclude-standard -z | tar -c --null -T - | tar -x -C "$work/src"
(cd "$work/src" && go mod vendor)

if [ -z "${GO_IMAGE:-}" ]; then
  GO_IMAGE=localhost/golang
  mkdir -p "$work/go/bin" "$work/go/etc/ssl/certs" "$work/go/usr/local" "$work/go/tmp" "$work/go/root"
  cp -a "$(go env GOROOT)" "$work/go/usr/local/go"
  cp "$(command -v busybox)" "$work/go/bin/busybox"
  for tool in sh mkdir cp; do ln -s busybox "$work/go/bin/$tool"; done
  cp /etc/ssl/certs/ca-certificates.crt "$work/go/etc/ssl/certs/"
  printf 'FROM scratch\nCOPY . /\nENV PATH=/usr/local/go/bin:/bin HOME=/root\n' >"$work/Dockerfile.go"
  buildah "${store[@]}" bud --quiet --isolation chroot -f "$work/Dockerfile.go" -t "$GO_IMAGE" "$work/go" >/dev/null
  rm -rf "$work/go"
fi

# Without a network: whatever the build fetched would fail.
unshare --net buildah "${store[@]}" bud --quiet --isolation chroot --format docker \
  --build-arg GO_IMAGE="$GO_IMAGE" --build-arg VERSION=0.0.0-test -f "$work/src/Dockerfile" -t "$name" "$work/src" >/dev/null
say "built without a network, in $GO_IMAGE"

container=$(buildah "${store[@]}" from --pull-never "$name")
root=$(buildah "${store[@]}" mount "$container")

# The same source in another directory gives the same binary.
cp -a "$work/src" "$work/elsewhere"
(cd "$work/elsewhere" && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -pgo cmd/doorward/profile.pgo -ldflags "-s -w -buildid= -X main.version=0.0.0-test" -o "$work/again" ./cmd/doorward)
cmp "$work/again" "$root/doorward" || fail "built again elsewhere, it is another binary"
say "built again elsewhere: the same $(sha256sum <"$work/again" | cut -c1-16)"

files=$(cd "$root" && find . -type f | sort | tr '\n' ' ')
[ "$files" = "./doorward ./etc/ssl/certs/ca-certificates.crt " ] || fail "the image holds: $files"
say "size: $(du -sb "$root" | cut -f1 | numfmt --to=iec), $(gzip -c "$root/doorward" | wc -c | numfmt --to=iec) of it to download"

get() { "${pod[@]}" image inspect --format "$1" "$name"; }
[ "$(get '{{.Config.User}}')" = 65532:65532 ] || fail "it runs as $(get '{{.Config.User}}')"
[ "$(get '{{index .Config.Labels "org.opencontainers.image.version"}}')" = 0.0.0-test ] || fail "it carries no version"
buildah "${store[@]}" inspect --type image "$name" | grep -q '"Healthcheck"' || fail "it has no health check"

# It runs.
mkdir "$work/config" "$work/state"
chown 65532:65532 "$work/state"
chmod 0700 "$work/state"
cat >"$work/config/doorward.yaml" <<'CONFIG'
version: 1
server: {listen: "127.0.0.1:18443", admin: {listen: "127.0.0.1:19901"}}
routes:
  - {id: app, from: "http://127.0.0.1:18443", to: ["http://127.0.0.1:1"], public: [{name: all, methods: [GET], paths: ["/**"]}]}
audit: {to: [{stdout: true}]}
CONFIG
"${pod[@]}" run -d --name "$name" --read-only --read-only-tmpfs=false --cap-drop ALL --security-opt no-new-privileges "${limits[@]}" \
  -v "$work/config:/etc/doorward:ro" -v "$work/state:/var/lib/doorward" "$name" >/dev/null
until "${pod[@]}" exec "$name" /doorward health --config /etc/doorward/doorward.yaml >/dev/null 2>&1; do
  [ "$("${pod[@]}" inspect --format '{{.State.Running}}' "$name")" = true ] || { "${pod[@]}" logs "$name"; fail "it ended"; }
done
"${pod[@]}" healthcheck run "$name" >/dev/null || fail "its own health check says no"
pid=$("${pod[@]}" inspect --format '{{.State.Pid}}' "$name")
read -r uid gid caps < <(awk '/^Uid/{u=$3} /^Gid/{g=$3} /^CapEff/{c=$2} END{print u, g, c}' "/proc/$pid/status")
[ "$uid:$gid" = 65532:65532 ] || fail "it runs as $uid:$gid"
[ "$caps" = 0000000000000000 ] || fail "it has capabilities: $caps"
awk '$5=="/"{found=$6~/^ro/} END{exit !found}' "/proc/$pid/mountinfo" || fail "its root can be written to"
[ -s "$work/state/doorward.db" ] || fail "it kept no state"
say "it runs and is healthy as $uid:$gid, without capabilities, on a read-only root"
"${pod[@]}" stop -t 20 "$name" >/dev/null
[ "$("${pod[@]}" inspect --format '{{.State.ExitCode}}' "$name")" = 0 ] || fail "SIGTERM ended it with $("${pod[@]}" inspect --format '{{.State.ExitCode}}' "$name")"
say "SIGTERM ends it with 0"

# A binary that was built elsewhere, in the target for that.
mkdir -p "$work/local/state"
cp "$work/again" "$work/local/doorward"
cp /etc/ssl/certs/ca-certificates.crt "$work/local/"
buildah "${store[@]}" bud --quiet --isolation chroot --format docker --target local -f Dockerfile -t "$name-local" "$work/local" >/dev/null
"${pod[@]}" run --rm --no-healthcheck --read-only "${limits[@]}" "$name-local" version | grep -q '^doorward 0.0.0-test' || fail "the target local does not run"
say "the target local runs as well"
