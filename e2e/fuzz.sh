#!/usr/bin/env bash
# Runs every fuzzer of the module for a short time each (default 2s).
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-2s}
passed=0
while IFS=: read -r file name; do
  echo "fuzzing $name in ${file%/*} for $time"
  go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10x "./${file%/*}" >/tmp/fuzz.$$ 2>&1 || { cat /tmp/fuzz.$$; rm -f /tmp/fuzz.$$; exit 1; }
  passed=$((passed + 1))
done < <(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's#^\./##; s#:func #:#' | sort)
rm -f /tmp/fuzz.$$
((passed > 0)) || { echo "no fuzzer found"; exit 1; }
echo "$passed fuzzers passed"
