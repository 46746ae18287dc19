# shellcheck shell=bash
# PostgreSQL as a process: made with a password of its own, reachable by TCP on loopback only.

# postgres_bin [VERSION] ; the folder of PostgreSQL's server programs of that major version, else
# of the newest. Debian keeps them out of PATH.
postgres_bin() {
    local newest
    # shellcheck disable=SC2086 # the asterisk is a pattern
    newest=$(printf '%s\n' /usr/lib/postgresql/${1:-*}/bin | sort --version-sort | tail -n 1)
    if [[ -x $newest/postgres ]]; then
        echo "$newest"
    elif have postgres && [[ $(postgres --version) == *" ${1:-}"* ]]; then
        dirname "$(command -v postgres)"
    fi
}

# Made aside and renamed when complete: an interrupted start leaves no half-made data.
init_postgres() {
    local folder=$1 password
    password=$(random_hex 16)
    remember postgres way=native port= password="$password"
    rm -rf "$folder/data.new" "$folder/password"
    (umask 077 && echo "$password" >"$folder/password")
    if is_root; then chown "$(user postgres):" "$folder/password"; fi
    make_cluster "$folder" "$(postgres_bin)" >"$folder/initdb.log" 2>&1 || fail_start postgres "$folder/initdb.log"
    rm "$folder/password"
    mv "$folder/data.new" "$folder/data"
}

# make_cluster FOLDER BIN ; in subshells, as `as` does not return.
make_cluster() (
    data=$1/data.new bin=$2
    cd "$1"
    (as postgres "$bin/initdb" --pgdata="$data" --username=clerk_sync --pwfile="$1/password" \
        --auth=scram-sha-256 --encoding=UTF8 --locale=C) || return 1
    cat >>"$data/postgresql.conf" <<'CONF' || return 1

# By clerk-sync's scripts/services. Durability is the default: fsync and synchronous_commit on.
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
CONF
    as postgres "$bin/postgres" --single -D "$data" postgres <<<'CREATE DATABASE clerk_sync'
)

launch_postgres() {
    local folder=$1 bin=$2 port=$3
    cd "$folder"
    as postgres setsid "$bin/postgres" -D "$folder/data" -p "$port" \
        </dev/null >>"$folder/server.log" 2>&1 9>&-
}

start_native_postgres() {
    local folder bin port
    own_folder postgres
    folder=$(folder postgres)
    if [[ ! -e $folder/data || -z $(recall postgres password) ]]; then
        rm -rf "$folder/data" # its password is lost
        init_postgres "$folder"
    fi
    bin=$(postgres_bin "$(<"$folder/data/PG_VERSION")")
    if [[ -z $bin ]]; then
        die "$folder/data is of PostgreSQL $(<"$folder/data/PG_VERSION"), which is not installed; scripts/services wipe deletes it"
    fi
    port=$(free_port "$(recall postgres port)" "$postgres_first_port")
    remember postgres way=native port="$port" password="$(recall postgres password)"
    clear_crash "$folder"
    : >"$folder/server.log"
    launch_postgres "$folder" "$bin" "$port" &
    wait_for "$start_seconds" $! port_is_ours postgres || fail_start postgres "$folder/server.log"
}

# The postmaster and its children, which all work in the data folder: while a child lives, a
# new server refuses the data. Stopped first, the postmaster cannot make one meanwhile.
kill_native_postgres() {
    local postmaster pids
    postmaster=$(server_pid postgres)
    if [[ -n $postmaster ]]; then kill -STOP "$postmaster" 2>/dev/null || true; fi
    pids=$(postgres_pids)
    if [[ -z $pids ]]; then return; fi
    # shellcheck disable=SC2086 # one word per process
    kill -KILL $pids 2>/dev/null || true
    # shellcheck disable=SC2086
    wait_for "$stop_seconds" '' are_dead $pids || die "PostgreSQL's processes do not die: $pids"
}

postgres_pids() {
    local process
    # It fails when a process ends while it looks, which is no failure of ours.
    { find /proc/[0-9]*/cwd -maxdepth 0 -lname "$(folder postgres)/data" -printf '%h\n' 2>/dev/null || true; } |
        while read -r process; do
            if [[ $(cat "$process/comm" 2>/dev/null) == postgres ]]; then echo "${process#/proc/}"; fi
        done
}

# are_dead PID… ; gone, or a zombie that nobody has reaped yet.
are_dead() {
    local pid
    for pid in "$@"; do
        if [[ -e /proc/$pid ]] && ! grep -qs '^State:[[:space:]]*Z' "/proc/$pid/status"; then return 1; fi
    done
}

# After a crash: the children of a killed postmaster may go on for a while, and itself, until
# it is reaped, passes for alive with the server that finds its pid in the lock file.
clear_crash() {
    local lock_file=$1/data/postmaster.pid
    kill_native_postgres
    if [[ -e $lock_file ]] && are_dead "$(head -n 1 "$lock_file")"; then rm -f "$lock_file"; fi
}
