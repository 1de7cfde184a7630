#!/bin/bash
# run.sh: one test of the lab: run.sh jail|node|rootless BUILD
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$2
programs=()
for program in "$build"/bulkhead "$build"/bulkheadd "$build"/bulkhead-{kms,control,gateway,cell}; do
    programs+=(-f "$program:/opt/bulkhead/$(basename "$program")")
done
curl=$(command -v curl)
case $1 in
jail)
    exec "$here/lab.sh" -f "$build/tests/unit/jail/test_jail:/opt/test_jail" -- /opt/test_jail ;;
node)
    exec "$here/lab.sh" "${programs[@]}" -f "$curl" -f "$here/node.sh:/opt/node.sh" -- sh /opt/node.sh /tmp/data ;;
rootless)
    exec "$here/lab.sh" "${programs[@]}" -f "$curl" -f "$(command -v setpriv):/opt/setpriv" \
        -f "$here/node.sh:/opt/node.sh" -- 'mkdir -p /tmp/nobody && chown 65534:65534 /tmp/nobody &&
        /opt/setpriv --reuid 65534 --regid 65534 --clear-groups sh /opt/node.sh /tmp/nobody/data' ;;
*)
    echo "run.sh: jail, node or rootless" >&2
    exit 2 ;;
esac
