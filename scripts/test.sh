#!/bin/bash
# Runs suites of the tests and closes with one line: "N passed, N failed[, N skipped]".
#   scripts/test.sh SUITE...      in build/, or in the build directory BULKHEAD_BUILD
# Suites: unit e2e attack crash tidy lab. Exit 1 on any failure. JOBS bounds the parallelism; TEST_ARGS: more words
# for `meson test`. The limits of time are for a machine that does nothing else: three times that is waited.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BULKHEAD_BUILD:-build}
jobs=${JOBS:-$(nproc)}
known=$(meson introspect "$build" --tests |
    python3 -c 'import json, sys; print(*sorted({s.split(":")[-1] for t in json.load(sys.stdin) for s in t["suite"]}))')
logs=()
for suite in "$@"; do
    case " $known " in
    *" $suite "*) ;;
    *) echo "test.sh: there is no suite \"$suite\"; known: $known" >&2; exit 2 ;;
    esac
    # a failure is counted below: what failed and why is in the log that is read there
    meson test -C "$build" --no-rebuild --suite "$suite" --num-processes "$jobs" \
        --timeout-multiplier 3 --logbase "suite-$suite" ${TEST_ARGS:-} </dev/null || true
    logs+=("$build/meson-logs/suite-$suite.json")
done
python3 scripts/count.py "${logs[@]}"
