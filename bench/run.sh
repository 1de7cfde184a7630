#!/bin/sh
# Measures everything that README.md and docs/performance.md state: bench/run.sh [engine|front|serving|lifecycle|holdings|vmm]...
# Prints a table, writes bench/results.json; bench/publish.py then puts it into the documents. About half an
# hour, of that vmm (which fetches a kernel once) five to ten minutes; BENCH_QUICK=1: some minutes, to see that it
# works, and writes nothing but bench-quick.json in the build directory. Of some parts only, those take their place
# among the others' figures. As root: each tenant is a uid of its own, and PostgreSQL runs as its user. Build first (`make`); BULKHEAD_BUILD: another build directory than build/.
# BENCH_REALTIME=1: everything measured, peers too, under real-time scheduling (round robin).
set -eu
cd "$(dirname "$0")/.."
build=${BULKHEAD_BUILD:-build}
ninja -C "$build" bench/bench-load bench/bench-seal bench/bench-audit bench/bench-plain-log bench/bench-blob \
    bench/bench-vmm-boot bench/bench-vmm-peer bench/bench-vmm-create bench/bench-vmm-start bench/bench-vmm-block \
    bench/bench-vmm-vsock bulkhead bulkheadd bulkhead-kms bulkhead-control bulkhead-gateway bulkhead-cell \
    bulkhead-vmm bulkhead-runner bulkhead-agent >/dev/null
# Where the processor has no such guest, what needs it is left out, and says so.
ninja -C "$build" tests/guests/tiny_guest >/dev/null 2>&1 || true
# On a machine that others load too, both sides of every comparison can be given the processors first.
set -- python3 -B bench/run.py "$@"
[ -z "${BENCH_REALTIME:-}" ] || set -- chrt --rr 1 "$@"
exec "$@"
