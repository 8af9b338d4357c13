#!/usr/bin/env bash
# Runs every fuzzer of the module for a short time each (default 2s). Each package
# is built for fuzzing once.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-2s}
passed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cache=$(go env GOCACHE)/fuzz/$(go list -m)
last=

# When the time is up while a worker answers, Go reports its own deadline as a
# failure (go.dev/issue/75804). No input failed then: a failing one is written
# down, and a worker that hangs or dies is named.
out_of_time() {
  grep -q '^ *context deadline exceeded$' "$work/out" &&
    ! grep -qE 'Failing input|panic|hung or terminated|_test\.go:' "$work/out"
}

while IFS=: read -r file name; do
  folder=${file%/*}
  if [ "$folder" != "$last" ]; then
    go test -c -fuzz . -o "$work/fuzzers" "./$folder"
    last=$folder
  fi
  echo "fuzzing $name in $folder for $time"
  (cd "$folder" && "$work/fuzzers" -test.run '^$' -test.fuzz "^$name\$" -test.fuzztime "$time" -test.fuzzminimizetime 10x \
    -test.fuzzcachedir "$cache/$folder") >"$work/out" 2>&1 || out_of_time || { cat "$work/out"; exit 1; }
  passed=$((passed + 1))
done < <(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's#^\./##; s#:func #:#' | sort)
((passed > 0)) || { echo "no fuzzer found"; exit 1; }
echo "$passed fuzzers passed"
