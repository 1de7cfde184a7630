#!/bin/bash
# run.sh: one test of the lab: run.sh agent|hostile|jail|node|rootless|microvm BUILD [PART]...
# MICROVM_RUNS, MICROVM_SECONDS: of the part leaks, so many guests or so long (100, 150 s; a hundred take some eight minutes)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$2
programs=()
for program in "$build"/bulkhead{,d} "$build"/bulkhead-{kms,control,gateway,cell,vmm,runner,agent}; do
    programs+=(-f "$program:/opt/bulkhead/$(basename "$program")")
done
curl=$(command -v curl)
case $1 in
jail)
    exec "$here/lab.sh" -f "$build/tests/unit/jail/test_jail:/opt/test_jail" \
        -f "$build/tests/unit/jail/test_jail_vmm:/opt/test_jail_vmm" -- \
        '/opt/test_jail && /opt/test_jail_vmm each_thread_is_killed_for_what_none_may' ;;
agent) # as a guest's init, over a vsock that leads back to the same kernel
    tests=()
    for test in exec files guest session streams; do
        tests+=(-f "$build/tests/unit/agent/test_agent_$test:/opt/agent/$test")
    done
    exec "$here/lab.sh" -m 640 -t 1500 -s vsock_loopback -f "$build/bulkhead-agent:/opt/bulkhead-agent" "${tests[@]}" \
        -- 'export BULKHEAD_AGENT=/opt/bulkhead-agent BULKHEAD_AGENT_GUEST=1 failed=0
        for test in /opt/agent/*; do $test || failed=1; done; exit $failed' ;;
hostile) # the monitor's machine and devices, sanitized: a report ends the program, and fails the case wherever it is
    sanitized=$here/../../build/hostile said=$(mktemp)
    trap 'rm -f "$said"' EXIT
    [ -e "$sanitized/build.ninja" ] || meson setup "$sanitized" "$here/../.." -Dtests=true -Doptimization=1 \
        -Db_sanitize=address,undefined -Db_lundef=false -Dc_args=-fno-sanitize-recover=all >&2
    ninja -C "$sanitized" tests/unit/vmm/test_vmm_hostile tests/guests/hostile_guest >&2
    LAB_APPEND="loglevel=1 ${LAB_APPEND:-}" "$here/lab.sh" -t 1500 \
        -f "$sanitized/tests/unit/vmm/test_vmm_hostile:/opt/test" -f "$sanitized/tests/guests/hostile_guest:/opt/guest" \
        -- "export HOSTILE_GUEST=/opt/guest HOSTILE_CONSOLE=1 HOSTILE_SEEDS=${HOSTILE_SEEDS:-1}
        export HOSTILE_ROUNDS=${HOSTILE_ROUNDS:-2}; /opt/test" 2>&1 | tee "$said"
    ! grep -a -E 'ERROR: [A-Za-z]+Sanitizer|runtime error' "$said" ;;
node)
    exec "$here/lab.sh" "${programs[@]}" -f "$curl" -f "$here/node.sh:/opt/node.sh" -- sh /opt/node.sh /tmp/data ;;
rootless)
    exec "$here/lab.sh" "${programs[@]}" -f "$curl" -f "$(command -v setpriv):/opt/setpriv" \
        -f "$here/node.sh:/opt/node.sh" -- 'mkdir -p /tmp/nobody && chown 65534:65534 /tmp/nobody &&
        /opt/setpriv --reuid 65534 --regid 65534 --clear-groups sh /opt/node.sh /tmp/nobody/data' ;;
microvm)
    # packages are kept beside the lab's kernel, so that they are fetched once, and by one of the cases
    cache=${LAB_CACHE:-$here/../../build/lab} image=$(mktemp -d)
    trap 'rm -rf "$image"' EXIT
    mkdir -p "$cache/packages"
    flock "$cache/packages.lock" "$build/bulkhead" image build base --data "$image" --packages "$cache/packages"
    # shellcheck disable=SC2086
    "$here/lab.sh" -n -m 3072 -t 1750 -s tun "${programs[@]}" -f "$image/images/base:/opt/image" \
        -f "$here/microvm.sh:/opt/microvm.sh" -- "export MICROVM_RUNS=${MICROVM_RUNS:-100}
        export MICROVM_SECONDS=${MICROVM_SECONDS:-150}; sh /opt/microvm.sh /tmp/data ${*:3}" ;;
*)
    echo "run.sh: agent, hostile, jail, node, rootless or microvm" >&2
    exit 2 ;;
esac
