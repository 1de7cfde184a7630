#!/bin/sh
# microvm.sh: in the lab: microVMs of a whole node, from honest commands to guests and deaths that try to hurt the host.
#   microvm.sh DIR [PART]...   DIR: a new directory for the data; the image lies in /opt/image
# Parts, all of them when none is named: basics limits flood kill tenants leaks
# Nothing here passes or fails by a time: waits are bounded only so that a hang is a failure.
set -eu
bulkhead=/opt/bulkhead/bulkhead
data=$1
shift
parts=${*:-basics limits flood kill tenants leaks}
runs=${MICROVM_RUNS:-100}
serving=''
trap '[ -z "$serving" ] || kill "$serving" 2>/dev/null || true' EXIT
fail() {
    echo "microvm.sh: $*" >&2
    tail -n 30 "$data.log" >&2
    exit 1
}
expect() { # expect PATTERN TEXT
    echo "$2" | grep -q -- "$1" || fail "\"$1\" is not in: $2"
}
run() { "$bulkhead" "$@" --data "$data"; }
# sandbox [OPTION]... -- COMMAND...
sandbox() { "$bulkhead" sandbox run --data "$data" --tier microvm "$@"; }
# codes STATUS COMMAND...: its exit status must be that
codes() {
    wanted=$1
    shift
    got=0
    "$@" || got=$?
    [ "$got" = "$wanted" ] || fail "exit $got, not $wanted: $*"
}
said() { echo "$(cut -d . -f 1 /proc/uptime) s: $*"; }

# What a sandbox could leave behind, one figure a line: the same before and after, but for what fits a pool.
monitors() { for p in /proc/[0-9]*; do [ "$(cat "$p/comm" 2>/dev/null)" != bulkhead-vmm ] || basename "$p"; done; }
alive() { run sandbox ps --json | grep -o '"id"' | wc -l; }
left() {
    echo "processes $(ls -d /proc/[0-9]* | while read -r p; do cat "$p/comm" 2>/dev/null; done | grep -c '^bulkhead')"
    echo "descriptors $(ls "/proc/$supervisor/fd" | wc -l)"
    echo "cgroups $(find /sys/fs/cgroup -type d | wc -l)"
    echo "interfaces $(ls /sys/class/net | wc -l)"
    echo "namespaces $(ls -l /proc/[0-9]*/ns/net 2>/dev/null | sed 's/.*-> //' | sort -u | wc -l)"
    echo "mounts $(wc -l <"/proc/$supervisor/mounts")"
    echo "files $(find "$data" -name '*' ! -path "$data/control/*" | wc -l)"
}
settled() { # the pool of blank monitors is full again, nothing runs
    for _ in $(seq 120); do
        [ "$(alive)" != 0 ] || [ "$(monitors | wc -l)" != "$pool" ] || return 0
        sleep 1
    done
    fail "what was there never came back: $(alive) alive, $(monitors | wc -l) monitors, $pool before"
}
same() { # same BEFORE: nothing more than that is there now
    settled
    left >/tmp/now
    diff "$1" /tmp/now >/tmp/difference || fail "left behind: $(cat /tmp/difference)"
}

part_basics() {
    [ "$(sandbox -- sh -c 'seq 1 2000 | sort -n | tail -n 1 | tr 0 o; exit 7' || echo "code $?")" = "2ooo
code 7" ] || fail "a pipeline and its exit status"
    # binary, both ways, more than every buffer on the way
    dd if=/dev/urandom of=/tmp/binary bs=64k count=96 2>/dev/null
    sandbox --timeout 120s -- cat </tmp/binary >/tmp/back
    cmp /tmp/binary /tmp/back
    [ "$(sandbox --timeout 120s -- sh -c 'dd if=/dev/zero bs=64k count=256 2>/dev/null; echo error >&2' 2>/tmp/error | wc -c)" \
        = 16777216 ] || fail "16 MiB did not come out"
    expect '^error$' "$(cat /tmp/error)"
    guest=$(sandbox -- sh -c 'id -un; uname -r; ls /sys/class/net; grep -c . /proc/mounts; cat /proc/cpuinfo | grep -c ^processor')
    expect '^sandbox$' "$guest"
    said "$guest" | tr '\n' ' '
    [ "$(sandbox --cpus 2 --user root -- sh -c 'id -u; nproc')" = "0
2" ] || fail "two vCPUs and another user"
    codes 137 sandbox -- sh -c 'kill -9 $$'
    codes 127 sandbox -- nosuchprogram 2>/dev/null
}

part_limits() {
    codes 124 sandbox --timeout 5s -- sh -c 'while :; do :; done'
    codes 124 sandbox --timeout 10s --processes 64 -- sh -c 'bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done' \
        2>/dev/null
    run status >/dev/null
    expect 'alive' "$(sandbox --processes 64 -- sh -c 'for i in $(seq 200); do sleep 100 & done 2>/dev/null; echo alive' \
        2>/dev/null)"
    # the guest's memory is all that a hog gets
    memory=$(awk '/MemAvailable/ {print $2}' /proc/meminfo)
    hog=0
    sandbox --mem 96M --timeout 60s -- sh -c 'tail -c 1G /dev/zero' >/dev/null 2>&1 || hog=$?
    [ "$hog" != 0 ] || fail "a memory hog ended well"
    said "memory hog: exit $hog, the host had $memory KiB, has $(awk '/MemAvailable/ {print $2}' /proc/meminfo)"
    # 24 MiB of disk are 24 MiB
    full=$(sandbox --disk 24M --timeout 60s -- sh -c 'cat /dev/zero >full 2>/dev/null; stat -c %s full')
    [ "$full" -gt 4000000 ] && [ "$full" -lt 25165824 ] || fail "the disk took $full bytes"
    codes 152 sandbox --cpu-time 2s --timeout 60s -- sh -c 'while :; do :; done'
}

part_flood() {
    flood='ip link set eth0 up; ip addr add 10.9.9.2/24 dev eth0; arp -s 10.9.9.1 02:00:00:00:00:01
        dd if=/dev/zero bs=1k count=20000 2>/dev/null | timeout 6 nc -u 10.9.9.1 9
        cat /sys/class/net/eth0/statistics/tx_packets'
    sent=$(sandbox --net isolated --net-packets 50 --user root --timeout 60s -- sh -c "$flood" 2>/dev/null | tail -n 1)
    said "flood: $sent packets left the guest's stack"
    [ "$sent" -gt 0 ] || fail "no packet was sent"
    [ "$(sandbox --net none -- ls /sys/class/net)" = lo ] || fail "a network where none was wanted"
}

# kill -9 at any moment leaves nothing, and who ran it is told
part_kill() {
    left >/tmp/before
    for moment in 0 1 2 4 7; do
        ps_before=$(monitors | sort)
        sandbox --timeout 60s -- sh -c 'while :; do :; done' >/dev/null 2>/tmp/error &
        waiting=$!
        sleep "$moment"
        for monitor in $(monitors); do kill -9 "$monitor"; done
        code=0
        wait "$waiting" || code=$?
        [ "$code" = 125 ] || [ "$code" = 137 ] || fail "killed after $moment s: exit $code: $(cat /tmp/error) $ps_before"
        said "monitors killed after $moment s: $code $(cat /tmp/error)"
        settled
    done
    # the one who runs it goes away
    sandbox --timeout 60s -- sleep 1000 &
    waiting=$!
    for _ in $(seq 60); do [ "$(alive)" = 0 ] || break; sleep 1; done
    kill -9 "$waiting"
    wait "$waiting" 2>/dev/null || true
    # and one that is ended by its id
    same /tmp/before
    sandbox --timeout 60s -- sleep 1000 2>/tmp/error &
    waiting=$!
    for _ in $(seq 60); do [ "$(alive)" = 0 ] || break; sleep 1; done
    run sandbox kill "$(run sandbox ps --json | grep -o '"id":[^,}]*' | head -n 1 | cut -d : -f 2 | tr -d '"')"
    code=0
    wait "$waiting" || code=$?
    [ "$code" != 0 ] || fail "a sandbox that was killed ended well"
    same /tmp/before
}

part_tenants() {
    for tenant in acme umbrella; do
        run tenant create "$tenant" --tier regulated >/dev/null
        sandbox --tenant "$tenant" --timeout 120s -- sh -c "echo secret-of-$tenant >/tmp/mine; cat; cat /tmp/*" \
            </tmp/pipe.$tenant >/tmp/out.$tenant 2>&1 &
    done
    exec 5>/tmp/pipe.acme 6>/tmp/pipe.umbrella
    for _ in $(seq 120); do [ "$(alive)" != 2 ] || break; sleep 1; done
    [ "$(alive)" = 2 ] || fail "two guests side by side: $(alive) alive; $(cat /tmp/out.*)"
    uids=$(for m in $(monitors); do awk '/^Uid/ {print $2}' "/proc/$m/status"; done | sort)
    said "uids of the monitors: $uids" | tr '\n' ' '
    exec 5>&- 6>&-
    wait
    [ "$(cat /tmp/out.acme)" = secret-of-acme ] || fail "acme: $(cat /tmp/out.acme)"
    [ "$(cat /tmp/out.umbrella)" = secret-of-umbrella ] || fail "umbrella: $(cat /tmp/out.umbrella)"
}

# so many guests one after another, two rows of them side by side
part_leaks() {
    sandbox -- true
    settled
    left >/tmp/before
    memory=$(awk '/VmRSS/ {print $2}' "/proc/$supervisor/status")
    row() {
        for _ in $(seq $((runs / 2))); do
            [ "$(sandbox --net isolated --timeout 120s -- echo here)" = here ] || return 1
        done
    }
    row & first=$!
    row & second=$!
    wait "$first" || fail "a guest did not answer"
    wait "$second" || fail "a guest did not answer"
    same /tmp/before
    said "$runs guests; the supervisor's memory: $memory KiB before, $(awk '/VmRSS/ {print $2}' "/proc/$supervisor/status") after"
    [ "$(awk '/VmRSS/ {print $2}' "/proc/$supervisor/status")" -le $((memory + 1024)) ] || fail "the supervisor grows"
}

mkdir -p "$data/images"
cp -a /opt/image "$data/images/base"
mkfifo /tmp/pipe.acme /tmp/pipe.umbrella
# a boot here is an emulation in an emulation
echo '{"sandbox_boot_seconds":300}' >"$data.json"
"$bulkhead" serve --config "$data.json" --data "$data" >"$data.out" 2>"$data.log" &
serving=$!
until grep -q '^bulkhead ready' "$data.out"; do
    kill -0 "$serving" 2>/dev/null || fail "serve ended"
    sleep 1
done
supervisor=$serving
said ready
[ "$(sandbox --verbose -- echo hello)" = hello ] || fail "hello"
said "$(run status | grep -i -A 6 sandbox)"
pool=$(monitors | wc -l)
for _ in $(seq 20); do sleep 1; now=$(monitors | wc -l); [ "$now" != "$pool" ] || break; pool=$now; done
for part in $parts; do
    said "part $part"
    "part_$part"
done
kill -TERM "$serving"
wait "$serving" || fail "SIGTERM: exit $?"
serving=''
[ "$(monitors | wc -l)" = 0 ] || fail "monitors are left"
said done
