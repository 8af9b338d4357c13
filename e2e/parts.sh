#!/usr/bin/env bash
# Installs the real parts that the tests talk to, where they are missing.
set -euo pipefail
cd "$(dirname "$0")"

PATH=$PATH:/usr/sbin # where servers are, also for those whose PATH has no such place
missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need chromium chromium
need node nodejs
need npm npm
need openssl openssl
need gcc gcc # the race detector links with it
need nginx nginx-light
need caddy caddy
need haproxy haproxy
need redis-server redis-server
need redis-sentinel redis-sentinel
need redis-cli redis-tools
need sshd openssh-server
need ssh openssh-client
need git git
need curl curl
need socat socat
need psql postgresql-client
[[ -n "$(ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null)" ]] || missing+=(postgresql)
need wrk wrk
need rsyslogd rsyslog-gnutls # which brings rsyslog along
need systemd-analyze systemd
need groff groff-base
need fakeroot fakeroot

if ((${#missing[@]})); then
  echo "installing: ${missing[*]}"
  as_root=()
  ((EUID == 0)) || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# npm ci removes node_modules first; skip it while the lock file is unchanged.
for package in oidc-provider axe; do
  stamp=$package/node_modules/.installed
  if ! cmp -s "$package/package-lock.json" "$stamp"; then
    echo "installing: npm $package"
    (cd "$package" && npm ci --no-audit --no-fund --loglevel=error)
    cp "$package/package-lock.json" "$stamp"
  fi
done
