#!/bin/sh
# node.sh: in the lab: a whole node, from serve to erase, and that cgroup v2 and Landlock are in force.
#   node.sh DIR      as root or as anybody; DIR: a new directory for the data
set -eu
bulkhead=/opt/bulkhead/bulkhead
data=$1
serving=''
trap '[ -z "$serving" ] || kill "$serving" 2>/dev/null || true' EXIT
fail() {
    echo "node.sh: $*" >&2
    tail -n 30 "$data.log" >&2
    exit 1
}
expect() { # expect PATTERN TEXT
    echo "$2" | grep -q -- "$1" || fail "\"$1\" is not in: $2"
}
run() { "$bulkhead" "$@" --data "$data"; }

"$bulkhead" serve --data "$data" >"$data.out" 2>"$data.log" &
serving=$!
waited=0
until grep -q '^bulkhead ready' "$data.out"; do
    kill -0 "$serving" 2>/dev/null || fail "serve ended"
    waited=$((waited + 1))
    [ "$waited" -lt 120 ] || fail "not ready after two minutes"
    sleep 1
done
echo "ready as uid $(id -u) on $(uname -r)"

run tenant create acme
token=$(run token acme --user ada)
url=http://127.0.0.1:7117/v1/memories
call() { curl -sS --max-time 60 -H "Authorization: Bearer $token" -H 'Content-Type: application/json' "$@"; }
expect '"text":"kept in the lab"' "$(call -d '{"text":"kept in the lab"}' "$url")"
expect '"text":"kept in the lab"' "$(call "$url")"
expect '"score"' "$(call -d '{"query":"lab"}' "$url/search")"
expect '"unauthenticated"' "$(curl -sS --max-time 60 "$url")"

run status
status=$(run status --json)
jails=$(echo "$status" | grep -o '"jail_state":"[a-z]*"' | sort | uniq -c)
expect '"jail_state":"verified"' "$jails"
[ "$(echo "$jails" | wc -l)" = 1 ] || fail "not every jail is verified: $jails"
expect '"landlock[a-z_]*":[^,]*2' "$status"
if [ "$(id -u)" = 0 ]; then
    expect '"cgroup":"/' "$status"
    pid=$(echo "$status" | grep -o '"name":"cell-[^}]*' | grep -o '"pid":[0-9]*' | head -n 1 | cut -d : -f 2)
    group=/sys/fs/cgroup$(cut -d : -f 3 "/proc/$pid/cgroup")
    [ "$(cat "$group/memory.max")" != max ] || fail "the cell's memory is not bounded: $group"
    [ "$(cat "$group/pids.max")" != max ] || fail "the cell's processes are not bounded: $group"
    echo "the cell is in $group: memory.max $(cat "$group/memory.max"), pids.max $(cat "$group/pids.max")"
fi

run audit export acme -o "$data.audit"
"$bulkhead" audit verify "$data.audit"
run tenant erase acme --receipt "$data.receipt"
"$bulkhead" receipt verify "$data.receipt"
expect '"unauthenticated"' "$(call "$url")"
kill -TERM "$serving"
wait "$serving" || fail "SIGTERM: exit $?"
serving=''
echo "the node served, erased and stopped"
