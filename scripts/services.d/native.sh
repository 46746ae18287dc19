# shellcheck shell=bash
# A server that runs as a process of this machine: its user, its folder, its life. What differs
# between the two is in postgres.sh and rabbitmq.sh.

start_native() {
    if is_running "$1"; then
        # A call that started it was interrupted; or `cargo clean` deleted its data and state.
        if [[ -n $(recall "$1" port) ]] && wait_for "$start_seconds" '' port_is_ours "$1"; then return; fi
        say "$(title "$1") is left over from an earlier call, and of no use: killing it"
        kill_native "$1"
    fi
    "start_native_$1"
}

stop_native() {
    local pid signal=TERM
    pid=$(server_pid "$1")
    if [[ $1 == postgres ]]; then signal=INT; fi # fast: does not wait for clients to leave
    if [[ -n $pid ]]; then
        kill "-$signal" "$pid" 2>/dev/null || true
        wait_for "$stop_seconds" '' not is_running "$1" || {
            say "$(title "$1") does not stop within $stop_seconds s"
            kill_native "$1"
        }
    fi
    if [[ $1 == rabbitmq ]]; then stop_epmd; fi
}

kill_native() { "kill_native_$1"; }

# PostgreSQL refuses to run as root, and RabbitMQ need not: then each runs as the user that
# its package made. For anybody else, both run as that person.
user() {
    if ! is_root; then
        id -un
    elif [[ $1 == postgres ]]; then
        echo postgres
    else
        echo rabbitmq
    fi
}

# as SERVICE COMMAND… ; in a clean environment, so that no setting of the caller gets in.
# Replaces this (sub)shell, so that $! is the server itself.
as() {
    local user service=$1 clean=()
    shift
    user=$(user "$service")
    clean=(env -i PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C.UTF-8 HOME="$(folder "$service")")
    if is_root; then
        exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups -- "${clean[@]}" "$@"
    fi
    exec "${clean[@]}" "$@"
}

# folder SERVICE ; where its data is.
folder() { if uses_elsewhere; then echo "$elsewhere/$1"; else echo "$state/$1"; fi; }

# In a folder that everybody may write to, the name could be somebody else's trap.
uses_elsewhere() { [[ -d $elsewhere && ! -L $elsewhere && -O $elsewhere ]]; }

# choose_folder ; target/services, or when that is out of reach a folder under /var/tmp.
choose_folder() {
    if uses_elsewhere || within_reach; then return; fi
    mkdir -m 755 "$elsewhere" || die "cannot make the folder $elsewhere"
    say "target/services is out of the servers' reach; their data is in $elsewhere"
}

# The servers' users must be able to reach the folder, which a root-only home prevents; and
# RabbitMQ's scripts split words at blanks.
within_reach() {
    local service
    if [[ $state == *[[:space:]]* ]]; then return 1; fi
    for service in postgres rabbitmq; do
        if ! id "$(user "$service")" >/dev/null 2>&1; then continue; fi
        (as "$service" test -x "$state") || return 1
    done
}

# own_folder SERVICE ; makes it, and gives it to the server's user (a purged and newly
# installed package may have given that user another number).
own_folder() {
    local folder user
    folder=$(folder "$1")
    user=$(user "$1")
    id "$user" >/dev/null 2>&1 || die "$(title "$1") needs a user '$user', which this machine does not have"
    mkdir -p "$folder"
    if is_root && [[ $(stat -c %U "$folder") != "$user" ]]; then chown -R "$user:" "$folder"; fi
}

# process NAME ARGUMENT ; the id of our process of that name that has ARGUMENT, a path of
# ours, on its command line. Not that of a child: one that was forked this moment still wears
# its parent's command line.
process() {
    local file pid parent
    # shellcheck disable=SC2013 # file names without blanks
    for file in $(grep -lsF -- "$2" /proc/[0-9]*/cmdline); do
        pid=${file//[!0-9]/}
        if ! is_process "$pid" "$1" "$2"; then continue; fi
        parent=$(sed -n 's/^PPid:\t//p' "/proc/$pid/status" 2>/dev/null) || continue
        if is_process "$parent" "$1" "$2"; then continue; fi
        echo "$pid"
        return 0 # in a trap a bare one returns what ended the script
    done
}

# is_process PID NAME ARGUMENT
is_process() {
    [[ -r /proc/$1/cmdline && $(cat "/proc/$1/comm" 2>/dev/null) == "$2" ]] &&
        tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline" | grep -qxF -- "$3"
}

server_pid() {
    case $1 in
        postgres) process postgres "$(folder postgres)/data" ;;
        rabbitmq) process beam.smp "$(folder rabbitmq)/data" ;;
    esac
}

is_running() { [[ -n $(server_pid "$1") ]]; }

# fail_start SERVICE LOG
fail_start() {
    kill_native "$1"
    tail -n 25 "$2" >&2 || true
    die "$(title "$1") did not start; above is the end of $2"
}
