#!/bin/sh
# microvm.sh: in the lab: microVMs of a whole node, from honest commands to guests and deaths that try to hurt the host.
#   microvm.sh DIR [PART]...   DIR: a new directory for the data; the image lies in /opt/image
# Parts, all of them when none is named: basics console limits flood kill tenants leaks
# Nothing here passes or fails by a time: waits are bounded only so that a hang is a failure.
set -eu
bulkhead=/opt/bulkhead/bulkhead
data=$1
shift
parts=${*:-basics console limits flood kill tenants leaks}
runs=${MICROVM_RUNS:-100} seconds=${MICROVM_SECONDS:-150} # of leaks: what is reached first
serving=''
trap '[ -z "$serving" ] || kill "$serving" 2>/dev/null || true' EXIT
fail() {
    echo "microvm.sh: $*" >/dev/console
    tail -n 30 "$data.log" >/dev/console
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
# member NAME FILE: a number or a word of a report
member() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" "$2"; }

# What a sandbox could leave behind, one figure a line: the same before and after, but for what fits a pool.
named() { for p in /proc/[0-9]*; do [ "$(cat "$p/comm" 2>/dev/null)" != "$1" ] || basename "$p"; done; }
monitors() { named bulkhead-vmm; }
alive() { run sandbox ps --json | grep -o '"id"' | wc -l; }
descriptors() { # of each kind
    for file in "/proc/$2/fd"/*; do readlink "$file" || true; done | sed 's/[0-9][0-9]*/N/g' | sort | uniq -c |
        sed "s/^/$1 /"
}
left() {
    echo "processes $(cat /proc/[0-9]*/comm 2>/dev/null | grep -c '^bulkhead')"
    descriptors supervisor "$supervisor"
    descriptors control "$(named bulkhead-contro)"
    echo "cgroups $(find /sys/fs/cgroup -type d | wc -l)"
    echo "interfaces $(find /sys/class/net -type l | wc -l)"
    echo "namespaces $(for p in /proc/[0-9]*; do readlink "$p/ns/net" || true; done | sort -u | wc -l)"
    echo "mounts $(wc -l <"/proc/$supervisor/mounts")"
    echo "files $(find "$data" ! -path "$data/control/*" | wc -l)"
}
free_kib() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
    awk '/^MemFree/ {print $2}' /proc/meminfo
}
resident_kib() { awk '/^VmRSS/ {print $2}' "/proc/$1/status"; }
# the node remembers the newest 32 who called it
known_operators() { for _ in $(seq 32); do alive >/dev/null; done; }
settled() { # the pool of blank monitors is full again, nothing runs
    for _ in $(seq 600); do
        [ "$(alive)" != 0 ] || [ "$(monitors | wc -l)" != "$pool" ] || return 0
        sleep 0.2
    done
    fail "what was there never came back: $(alive) alive, $(monitors | wc -l) monitors, $pool before"
}
same() { # same BEFORE: nothing more than that is there now, or soon: a new blank monitor is not ready at once
    settled
    for _ in $(seq 100); do
        left >/tmp/now
        ! diff "$1" /tmp/now >/tmp/difference || return 0
        sleep 0.2
    done
    fail "left behind: $(cat /tmp/difference)"
}
until_running() { # until_running COUNT: so many are beyond their boot
    for _ in $(seq 600); do
        [ "$(run sandbox ps --json | grep -o '"state":"running"' | wc -l)" != "$1" ] || return 0
        sleep 0.2
    done
    fail "$1 did not come to run: $(run sandbox ps)"
}

part_basics() {
    [ "$(sandbox -- sh -c 'seq 1 2000 | sort -n | tail -n 1 | tr 0 o; id -un; ls /sys/class/net; exit 7' ||
        echo "code $?")" = "2ooo
sandbox
lo
code 7" ] || fail "a pipeline, its user, no network, its exit status"
    # binary, both ways, more than every buffer on the way; both streams apart
    dd if=/dev/urandom of=/tmp/binary bs=64k count=48 2>/dev/null
    sandbox --timeout 120s -- sh -c 'cat; dd if=/dev/zero bs=64k count=128 2>/dev/null; echo error >&2' \
        </tmp/binary >/tmp/back 2>/tmp/error
    dd if=/dev/zero bs=64k count=128 2>/dev/null | cat /tmp/binary - | cmp - /tmp/back || fail "3 MiB in, 11 MiB out"
    [ "$(cat /tmp/error)" = error ] || fail "stderr: $(cat /tmp/error)"
    [ "$(sandbox --cpus 2 --user root -- sh -c 'id -u; nproc')" = "0
2" ] || fail "two vCPUs and another user"
    codes 137 sandbox -- sh -c 'kill -9 $$'
    codes 125 sandbox -- nosuchprogram 2>/tmp/error
    expect 'could not be started' "$(cat /tmp/error)"
}

# a guest's own words, of one that ended well, of one that panicked and of one that was killed
part_console() {
    sandbox --console /tmp/console --timeout 120s -- true
    expect 'Linux version' "$(cat /tmp/console)"
    [ "$(stat -c %a /tmp/console)" = 600 ] || fail "the console's mode"
    codes 125 sandbox --console /tmp/console --timeout 120s --user root -- \
        sh -c 'echo c >/proc/sysrq-trigger' 2>/tmp/error
    expect 'panicked' "$(cat /tmp/error)"
    expect 'Kernel panic - not syncing: sysrq triggered crash' "$(tr -d '\r' </tmp/console)"
    said "$(wc -c </tmp/console) bytes of console; $(grep -a 'Kernel panic' /tmp/console | head -n 1 | tr -d '\r')"
    sandbox --console /tmp/console --timeout 120s -- sleep 1000 2>/tmp/error &
    waiting=$!
    id='' # null while it boots
    until [ -n "$id" ]; do
        kill -0 "$waiting" || fail "it does not run: $(cat /tmp/error)"
        sleep 0.2
        id=$(run sandbox ps --json | grep -o '"id":"[^"]*' | cut -d '"' -f 4)
    done
    run sandbox kill "$id"
    code=0
    wait "$waiting" || code=$?
    [ "$code" = 137 ] || fail "a sandbox that was killed: exit $code: $(cat /tmp/error)"
    expect 'Linux version' "$(cat /tmp/console)"
}

part_limits() {
    # processes: a bomb that stays, bounded, until its time is over; its number is looked at all the while
    codes 124 sandbox --timeout 20s --processes 64 -- sh -c 'bomb() { bomb & bomb & sleep 1000; }
        bomb 2>/dev/null & while :; do n=0
        for p in /proc/[0-9]*/comm; do name=; read -r name <$p; case $name in sh|sleep) n=$((n + 1)) ;; esac; done
        echo $n; done' >/tmp/bombs 2>/dev/null
    bombs=$(sort -n /tmp/bombs | tail -n 1)
    [ "${bombs:-0}" -gt 32 ] && [ "$bombs" -le 64 ] || fail "fork bomb: ${bombs:-no} processes"
    said "fork bomb: at most $bombs processes of 64, then its time was over"
    # the guest's memory is all that a hog gets, and memory is what it is told
    codes 137 sandbox --mem 96M --timeout 120s --report /tmp/report -- sh -c '
        all=$(awk "/MemTotal/ {print \$2}" /proc/meminfo)
        exec dd if=/dev/zero of=/dev/null bs=$((all - 1024))k' >/dev/null 2>/tmp/error
    expect '"how":"memory"\|"end":"memory"' "$(cat /tmp/report)"
    peak=$(member peak_kib /tmp/report)
    [ "$peak" -le $(((96 + 3 + 32) * 1024)) ] || fail "a guest of 96 MiB took $peak KiB of the host"
    said "memory hog: the host gave $peak KiB at most; $(cat /tmp/report)"
    # nor one that grows slowly and starts programs all the while, whose pages the kernel would take first, for ever
    codes 137 sandbox --mem 96M --timeout 400s --report /tmp/report -- awk '
        BEGIN { for (;;) { s[n++] = sprintf("%524288s", ""); if (system("sleep 0.02")) exit } }' 2>/tmp/error
    expect '"how":"memory"\|"end":"memory"' "$(cat /tmp/report)"
    said "slow memory hog: $(cat /tmp/report)"
    # 24 MiB of disk are 24 MiB
    sandbox --disk 24M --timeout 60s -- sh -c 'cat /dev/zero >full; stat -c %s full' >/tmp/full 2>/tmp/error
    expect 'No space left' "$(cat /tmp/error)"
    [ "$(cat /tmp/full)" -gt 4000000 ] && [ "$(cat /tmp/full)" -lt 25165824 ] || fail "the disk took $(cat /tmp/full)"
    # CPU time, the boot's included, which costs here what it costs nowhere else
    sandbox --report /tmp/report -- true
    bound=$(($(member cpu_seconds /tmp/report | cut -d . -f 1) * 3 / 2 + 3))
    codes 152 sandbox --cpu-time "${bound}s" --timeout 300s -- sh -c 'while :; do :; done' 2>/tmp/error
    expect 'CPU time was over' "$(cat /tmp/error)"
    said "CPU time: over after $bound s"
}

# flood [OPTION]...: the packets that a guest's queue took in five seconds
flood() {
    sandbox --net isolated "$@" --user root --timeout 60s -- sh -c 'ip link set eth0 up
        ip addr add 10.9.9.2/24 dev eth0; arp -s 10.9.9.1 02:00:00:00:00:01
        for i in 1 2 3 4; do ping -q -i 0.001 -s 1000 -w 5 10.9.9.1 >/dev/null & done; wait
        cat /sys/class/net/eth0/statistics/tx_packets'
}
part_flood() {
    flood --net-packets 5 >/tmp/limited 2>/tmp/error &
    waiting=$!
    until_running 1
    run status >/dev/null || fail "the node does not answer in a flood"
    wait "$waiting" || fail "flood: exit $?: $(cat /tmp/error)"
    flood >/tmp/free 2>/tmp/error || fail "flood: exit $?: $(cat /tmp/error)"
    said "flood: $(cat /tmp/limited) packets at 5 a second, $(cat /tmp/free) at any"
    # what the queue itself holds goes through to no one
    [ "$(cat /tmp/limited)" -gt 4 ] || fail "flood: $(cat /tmp/limited /tmp/error)"
    [ "$(cat /tmp/free)" -gt $(($(cat /tmp/limited) * 2)) ] || fail "flood: $(cat /tmp/limited /tmp/free)"
}

# kill -9 at any moment leaves nothing, and who ran it is told
part_kill() {
    settled
    known_operators
    left >/tmp/before
    for moment in ${MICROVM_MOMENTS:-0 0.2 0.5 1 2 4 7 10}; do
        sandbox --timeout 100s --net isolated -- sh -c 'while :; do :; done' >/dev/null 2>/tmp/error &
        waiting=$!
        sleep "$moment"
        # a blank one that dies before it was chosen is followed by another
        while kill -0 "$waiting" 2>/dev/null; do
            for monitor in $(monitors); do kill -9 "$monitor" 2>/dev/null || true; done
            sleep 0.2
        done
        code=0
        wait "$waiting" || code=$?
        [ "$code" = 125 ] || fail "killed after $moment s: exit $code: $(cat /tmp/error)"
        said "monitors killed after $moment s: $(cat /tmp/error)"
        same /tmp/before
    done
    # the one who runs it goes away
    (exec "$bulkhead" sandbox run --data "$data" --tier microvm --timeout 100s -- sleep 1000) &
    waiting=$!
    until_running 1
    kill -9 "$waiting"
    wait "$waiting" 2>/dev/null || true
    same /tmp/before
    # and one that is ended by its id
    sandbox --timeout 100s -- sleep 1000 2>/tmp/error &
    waiting=$!
    until_running 1
    run sandbox kill "$(run sandbox ps --json | grep -o '"id":"[^"]*' | head -n 1 | cut -d '"' -f 4)"
    codes 137 wait "$waiting"
    expect 'was killed' "$(cat /tmp/error)"
    same /tmp/before
}

part_tenants() {
    both=''
    for tenant in acme umbrella; do
        run tenant create "$tenant" --tier regulated --retention 365 >/dev/null
        mkfifo "/tmp/pipe.$tenant"
        sandbox --tenant "$tenant" --timeout 120s -- sh -c "echo secret-of-$tenant >/tmp/mine; cat; cat /tmp/*; hostname" \
            <"/tmp/pipe.$tenant" >"/tmp/out.$tenant" 2>&1 &
        both="$both $!"
    done
    exec 5>/tmp/pipe.acme 6>/tmp/pipe.umbrella
    until_running 2
    # a blank one has no vCPU yet
    uids=$(for m in $(monitors); do
        [ "$(awk '/^Threads/ {print $2}' "/proc/$m/status")" -lt 2 ] || awk '/^Uid/ {print $2}' "/proc/$m/status"
    done | sort -u)
    [ "$(echo "$uids" | wc -l)" = 2 ] || fail "uids of two tenants' monitors: $uids"
    said "uids of the monitors: $(echo "$uids" | tr "\n" " ")"
    exec 5>&- 6>&-
    for waiting in $both; do wait "$waiting" || fail "tenants: exit $?: $(cat /tmp/out.*)"; done
    expect '^secret-of-acme$' "$(cat /tmp/out.acme)"
    expect '^secret-of-umbrella$' "$(cat /tmp/out.umbrella)"
    ! grep -q umbrella /tmp/out.acme || fail "acme sees umbrella: $(cat /tmp/out.acme)"
    ! grep -q acme /tmp/out.umbrella || fail "umbrella sees acme: $(cat /tmp/out.umbrella)"
}

# guests one after another, two rows of them side by side, as many as fit: what is left of each shows
part_leaks() {
    sandbox --net isolated -- true
    settled
    known_operators
    left >/tmp/before
    control=$(named bulkhead-contro)
    before="$(resident_kib "$supervisor") $(resident_kib "$control") $(free_kib)"
    until=$(($(cut -d . -f 1 /proc/uptime) + seconds))
    row() {
        for _ in $(seq $((runs / 2))); do
            [ "$(cut -d . -f 1 /proc/uptime)" -lt "$until" ] || return 0
            [ "$(sandbox --net isolated --timeout 120s -- echo here)" = here ] || return 1
            echo >>/tmp/guests
        done
    }
    row & first=$!
    row & second=$!
    wait "$first" || fail "a guest did not answer"
    wait "$second" || fail "a guest did not answer"
    same /tmp/before
    after="$(resident_kib "$supervisor") $(resident_kib "$control") $(free_kib)"
    said "$(wc -l </tmp/guests) guests; KiB of supervisor, control, free memory: $before, then $after"
    grew() { # grew COLUMN KIB
        [ $(($(echo "$after" | cut -d ' ' -f "$1") - $(echo "$before" | cut -d ' ' -f "$1"))) -gt "$2" ]
    }
    ! grew 1 1024 || fail "the supervisor grows"
    ! grew 2 1024 || fail "control grows"
    grew 3 -16384 || fail "the host's memory is not free again"
}

mkdir -p "$data/images"
cp -a /opt/image "$data/images/base"
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
[ "$pool" -gt 0 ] || fail "no blank monitor"
for part in $parts; do
    said "part $part"
    "part_$part"
done
kill -TERM "$serving"
wait "$serving" || fail "SIGTERM: exit $?"
serving=''
[ "$(monitors | wc -l)" = 0 ] || fail "monitors are left"
said done
