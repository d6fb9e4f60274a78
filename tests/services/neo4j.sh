#!/bin/sh
# Starts and stops a private Neo4j Community server for tests: its own folder, a free port, no password.
#
#   neo4j.sh start DIR           makes DIR, starts a server in it, prints `export PHASEGATE_TEST_NEO4J=…` for eval
#   neo4j.sh fetch               fetches what the server is made of, if it isn't there
#   neo4j.sh stop DIR            ends that server at once and removes DIR
#
# PHASEGATE_NEO4J_SETTINGS, if set, is a file of further settings, which win over those for tests; PHASEGATE_NEO4J_JAVA is further options
# of Java, likewise. A server that lives for more than two minutes is worth Java's second compiler (-XX:TieredStopAtLevel=4).
#
# Needs a JDK 17 or newer (Debian: openjdk-17-jdk-headless) and, once, Maven, which fetches 214 files of 116 MB. They are kept in
# PHASEGATE_NEO4J_LIB, by default below ~/.cache.
set -eu

fail() {
    echo "neo4j.sh: $*" >&2
    exit 1
}

usage="usage: neo4j.sh start|stop DIR, or neo4j.sh fetch"
[ $# -ge 1 ] || fail "$usage"
action=$1
own=$(cd "$(dirname "$0")" && pwd)/neo4j
version=$(sed -n 's:.*<version>\([0-9][0-9.]*\.[0-9.]*\)</version>.*:\1:p' "$own/pom.xml" | head -1)
lib=${PHASEGATE_NEO4J_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/phasegate-tests/neo4j-$version}

fetch() {
    [ ! -d "$lib" ] || return 0
    command -v mvn >/dev/null || fail "mvn was not found: install Maven (Debian: apt-get install maven)"
    mkdir -p "$(dirname "$lib")"
    # Whoever else fetches it at this moment makes the same.
    new=$(mktemp -d "$lib.XXXXXX")
    mvn -q -B -f "$own/pom.xml" dependency:copy-dependencies -DoutputDirectory="$new" >"$new/fetch.log" 2>&1 \
        || fail "Maven could not fetch the server, see $new/fetch.log"
    rm -f "$new/fetch.log"
    mv -T "$new" "$lib" 2>/dev/null || rm -rf -- "$new"
}

start() {
    command -v java >/dev/null || fail "java was not found: install a JDK (Debian: apt-get install openjdk-17-jdk-headless)"
    fetch
    [ ! -e "$dir/server.pid" ] || fail "$dir has a server already: stop it first"
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    tries=0
    while [ "$tries" -lt 20 ]; do
        tries=$((tries + 1))
        port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 12000))
        cat >"$dir/neo4j.conf" <<CONF
server.bolt.enabled=true
server.bolt.listen_address=127.0.0.1:$port
server.bolt.advertised_address=127.0.0.1:$port
dbms.security.auth_enabled=false
dbms.usage_report.enabled=false
server.memory.pagecache.size=64m
db.tx_log.rotation.size=16m
db.tx_log.preallocate=false
CONF
        [ -z "${PHASEGATE_NEO4J_SETTINGS:-}" ] || cat "$PHASEGATE_NEO4J_SETTINGS" >>"$dir/neo4j.conf"
        # A setting that comes twice is the last one's.
        awk -F= '/^[^#]/ { line[$1] = $0 } END { for (key in line) print line[key] }' "$dir/neo4j.conf" >"$dir/neo4j.conf.new"
        mv "$dir/neo4j.conf.new" "$dir/neo4j.conf"
        # What an earlier server has said there is not this one's.
        rm -f "$dir/server.log"
        # Code has room enough not to be thrown away and compiled again, which took a fifth of the server's time.
        # shellcheck disable=SC2086 # several options
        nohup java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m ${PHASEGATE_NEO4J_JAVA:-} \
            --add-opens=java.base/java.nio=ALL-UNNAMED --add-opens=java.base/java.io=ALL-UNNAMED \
            --add-opens=java.base/sun.nio.ch=ALL-UNNAMED -cp "$lib/*" "$own/Server.java" "$dir" \
            >"$dir/server.log" 2>&1 </dev/null &
        pid=$!
        echo "$pid" >"$dir/server.pid"
        waited=0
        while kill -0 "$pid" 2>/dev/null && [ "$waited" -lt 600 ]; do
            if grep -q '^ready$' "$dir/server.log"; then
                echo "export PHASEGATE_TEST_NEO4J=bolt://127.0.0.1:$port"
                return
            fi
            sleep 0.1
            waited=$((waited + 1))
        done
        kill -9 "$pid" 2>/dev/null || true
        grep -q "Address already in use\|BindException" "$dir/server.log" || fail "the server did not start, see $dir/server.log"
        rm -rf -- "$dir/data"
    done
    fail "no free port was found"
}

stop() {
    [ -f "$dir/server.pid" ] || return 0
    # An orderly end takes ten seconds, and nothing of it is kept.
    kill -9 "$(cat "$dir/server.pid")" 2>/dev/null || true
    rm -rf -- "$dir"
}

case $action in
    fetch) fetch ;;
    start | stop)
        [ $# -eq 2 ] || fail "$usage"
        dir=$2
        "$action"
        ;;
    *) fail "$usage" ;;
esac
