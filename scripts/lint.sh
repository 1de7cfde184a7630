#!/bin/bash
# The tidy test, shell syntax, and clang-tidy over src/. Quiet when all is well; exit 1 when anything is not.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
python3 tests/tidy/tidy.py . || failed=1
for script in scripts/*.sh tests/lab/*.sh bench/*.sh .ci/run; do
    [ ! -f "$script" ] || bash -n "$script" || failed=1
done
for script in tests/e2e/*.mjs tests/attack/*.mjs tests/crash/*.mjs examples/*.mjs; do
    [ ! -f "$script" ] || node --check "$script" || failed=1
done
mkdir -p build
[ -f build/lint/build.ninja ] ||
    CC=clang-19 meson setup build/lint -Dtests=false >build/lint.log 2>&1 || { cat build/lint.log >&2; exit 1; }
ninja -C build/lint -t compdb >/dev/null # the list of commands follows the sources
python3 - <<'LIST' | xargs -0 -P "$(nproc)" -n 4 clang-tidy-19 --quiet -p build/lint >build/lint.out 2>build/lint.err || failed=1
import json, os
names = {os.path.normpath(os.path.join('build/lint', entry['file']))
         for entry in json.load(open('build/lint/compile_commands.json'))}
print('\0'.join(sorted(name for name in names if name.startswith('src/'))), end='')
LIST
if grep -E '(warning|error):' build/lint.out; then failed=1; fi
[ $failed = 0 ] || { tail -n 5 build/lint.err >&2; echo 'lint: there are complaints' >&2; exit 1; }
echo 'lint: clean'
