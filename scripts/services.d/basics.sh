# shellcheck shell=bash
# What the other parts are made of: messages, what is remembered between calls, locks, waiting.

say() { printf 'services: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [[ $(id -u) -eq 0 ]]; }
is_linux() { [[ $(uname -s) == Linux ]]; }

random_hex() { od -An -v -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

title() {
    case $1 in
        postgres) echo PostgreSQL ;;
        rabbitmq) echo RabbitMQ ;;
    esac
}

# remember SERVICE KEY=VALUE… ; replaces the whole file in one step.
remember() {
    local service=$1 file=$state/$1.state
    shift
    (
        umask 077 # it holds a password
        printf '%s\n' "$@" >"$file.new"
    )
    mv "$file.new" "$state/$service.state"
}

# recall SERVICE KEY ; empty when it was never remembered.
recall() {
    if [[ -r $state/$1.state ]]; then sed -n "s/^$2=//p" "$state/$1.state"; fi
}

# lock NAME ; held on descriptor 9 until this (sub)shell ends. Servers are started with
# `9>&-`, else they would hold it for as long as they live.
lock() {
    mkdir -p "$state"
    exec 9>"$state/$1.lock"
    if ! have flock; then return; fi # macOS, where only Docker serves
    flock --nonblock 9 && return
    say "waiting for another call that is busy with $1"
    flock 9
}

# wait_for SECONDS PID COMMAND… ; 0 once COMMAND succeeds, 1 when the time is over,
# 2 when process PID (may be empty) ended before.
wait_for() {
    local deadline=$((SECONDS + $1)) pid=$2
    shift 2
    until "$@"; do
        if [[ -n $pid ]] && ! kill -0 "$pid" 2>/dev/null; then return 2; fi
        if ((SECONDS >= deadline)); then return 1; fi
        sleep 0.1
    done
}

not() { ! "$@"; }
