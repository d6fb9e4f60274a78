#!/bin/sh
# Starts and stops a private PostgreSQL server for tests: its own folder, a free port, no durability.
#
#   postgres.sh start DIR    makes DIR, starts a server in it, prints `export PHASEGATE_TEST_POSTGRES=…` for eval
#   postgres.sh replica DIR URL NAME    the same of a server that follows the one at URL, which knows it as NAME
#   postgres.sh stop DIR     ends that server at once and removes DIR
#
# PHASEGATE_POSTGRES_SETTINGS, if set, are further settings (`-c name=value …`, without spaces in values) that win over those
# for tests: benches measure a server that is set up as one is in production.
#
# The server runs as a user that is not root: PostgreSQL refuses root. Needs initdb and postgres (Debian: postgresql-15).
set -eu

fail() {
    echo "postgres.sh: $*" >&2
    exit 1
}

usage="usage: postgres.sh start|stop DIR, or postgres.sh replica DIR URL NAME"
[ $# -ge 2 ] || fail "$usage"
action=$1
dir=$2

# The folder with the newest server's programs; a distribution hides them from PATH.
find_programs() {
    for bin in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -n -r); do
        if [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ]; then
            echo "$bin"
            return
        fi
    done
    path=$(command -v initdb) || fail "initdb was not found: install PostgreSQL (Debian: apt-get install postgresql-15)"
    dirname "$(readlink -f "$path")"
}

# Runs a command as the server's user: that of the caller, or of the package when the caller is root.
as_server() {
    if [ "$(id -u)" -ne 0 ]; then
        "$@"
    else
        runuser -u "$server_user" -- "$@"
    fi
}

choose_user() {
    if [ "$(id -u)" -ne 0 ]; then
        id -un
    elif id postgres >/dev/null 2>&1; then
        echo postgres
    else
        echo nobody
    fi
}

# Chooses the programs and the user, and makes the folder.
prepare() {
    bin=$(find_programs)
    server_user=$(choose_user)
    [ ! -e "$dir/data" ] || fail "$dir/data is there already: stop it first"
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    if [ "$(id -u)" -eq 0 ]; then
        chown "$server_user" "$dir"
    fi
    as_server test -x "$dir" || fail "$server_user can't reach $dir: choose a folder under one that all may enter"
    cd "$dir"
}

# Starts the server of "$dir/data". The kernel is not asked for a free port, because the server would not take one that is
# held open for it: random ports are tried until one can be bound.
serve() {
    tries=0
    while [ "$tries" -lt 20 ]; do
        tries=$((tries + 1))
        port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 12000))
        if as_server "$bin/pg_ctl" -D "$dir/data" -l "$dir/server.log" -w -t 30 -o "-c port=$port \
            -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c full_page_writes=off \
            -c max_connections=200 -c max_prepared_transactions=64 -c shared_buffers=32MB -c wal_level=logical -c autovacuum=on \
            -c log_statement=none \
            ${PHASEGATE_POSTGRES_SETTINGS:-}" \
            start >"$dir/start.log" 2>&1; then
            echo "export PHASEGATE_TEST_POSTGRES=postgres://tester@127.0.0.1:$port/postgres"
            return
        fi
        grep -q "could not bind" "$dir/server.log" || fail "the server did not start, see $dir/server.log"
    done
    fail "no free port was found"
}

start() {
    prepare
    as_server "$bin/initdb" -D "$dir/data" -U tester -A trust -E UTF8 --locale=C --no-sync \
        >"$dir/initdb.log" 2>&1 || fail "initdb failed, see $dir/initdb.log"
    serve
}

replica() {
    prepare
    as_server "$bin/pg_basebackup" -d "$1?application_name=$2" -D "$dir/data" -R -X stream --checkpoint=fast --no-sync \
        >"$dir/initdb.log" 2>&1 || fail "pg_basebackup failed, see $dir/initdb.log"
    # What it connects with is what the copy was made with, but for its name, which pg_basebackup sets itself.
    echo "primary_conninfo = '$1?application_name=$2'" >>"$dir/data/postgresql.auto.conf"
    serve
}

stop() {
    [ -d "$dir" ] || return 0
    dir=$(cd "$dir" && pwd)
    if [ -f "$dir/data/postmaster.pid" ]; then
        bin=$(find_programs)
        server_user=$(choose_user)
        cd /
        as_server "$bin/pg_ctl" -D "$dir/data" -m immediate -w -t 30 stop >/dev/null 2>&1 \
            || fail "the server in $dir did not stop"
    fi
    # Only a folder that a server of ours was in is removed.
    if [ -f "$dir/initdb.log" ]; then
        rm -rf -- "$dir"
    fi
}

case $action in
    start) start ;;
    replica)
        [ $# -eq 4 ] || fail "$usage"
        replica "$3" "$4"
        ;;
    stop) stop ;;
    *) fail "$usage" ;;
esac
