#!/usr/bin/env bash
# build.sh VERSION DIR: builds doorward_VERSION_ARCH.deb in a directory, from the source
# around it. The same source, version, Go and SOURCE_DATE_EPOCH give the same bytes.
# DOORWARD_BINARY names a binary that was built before, instead of building one.
set -euo pipefail
version=$1 out=$(realpath "$2")
here=$(dirname "$(realpath "$0")") source=$(realpath "$(dirname "$0")/../..")
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$source" log -1 --format=%ct 2>/dev/null || date +%s)}
arch=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
umask 022

put() { install -D -m "$1" "$2" "$root/$3"; }

if [[ -n "${DOORWARD_BINARY:-}" ]]; then
  binary=$DOORWARD_BINARY
else
  binary=$work/doorward
  (cd "$source" && CGO_ENABLED=0 go build -trimpath -pgo cmd/doorward/profile.pgo -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$version" -o "$binary" ./cmd/doorward)
fi
put 755 "$binary" usr/bin/doorward
put 644 "$source/deploy/systemd/doorward.service" usr/lib/systemd/system/doorward.service
put 644 "$source/deploy/systemd/doorward.socket" usr/lib/systemd/system/doorward.socket
put 640 "$source/examples/first.yaml" etc/doorward/doorward.yaml.example
put 644 "$here/default" etc/default/doorward

man=$root/usr/share/man/man1
"$binary" man "$man"
gzip -n9 "$man"/*.1

mkdir -p "$root"/usr/share/{bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
"$binary" completion bash >"$root/usr/share/bash-completion/completions/doorward"
"$binary" completion zsh >"$root/usr/share/zsh/vendor-completions/_doorward"
"$binary" completion fish >"$root/usr/share/fish/vendor_completions.d/doorward.fish"

doc=usr/share/doc/doorward
for file in "$source"/docs/*.md; do put 644 "$file" "$doc/$(basename "$file")"; done
for file in "$source"/examples/*.yaml; do put 644 "$file" "$doc/examples/$(basename "$file")"; done
put 644 "$source/deploy/prometheus/alerts.yaml" "$doc/examples/prometheus-alerts.yaml"
put 644 "$source/deploy/grafana/doorward.json" "$doc/examples/grafana-doorward.json"
put 644 "$here/copyright" "$doc/copyright"
printf 'doorward (%s) stable; urgency=medium\n\n  * See https://github.com/doorward/doorward/commits/main\n\n -- %s  %s\n' \
  "$version" "Doorward maintainers <maintainers@doorward.invalid>" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -n9 >"$root/$doc/changelog.gz"

install -d "$root/DEBIAN"
for script in postinst prerm postrm; do install -m 755 "$here/$script" "$root/DEBIAN/$script"; done
(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
sed -e "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$(du -sk --apparent-size "$root" | cut -f1)/" "$here/control" >"$root/DEBIAN/control"

dpkg-deb --root-owner-group --build "$root" "$out/doorward_${version}_$arch.deb" >/dev/null
echo "$out/doorward_${version}_$arch.deb"
