# shellcheck shell=bash
# RabbitMQ as a process: a node of its own, with its own port mapper, cookie and folders, and
# every port on loopback.

# What a caller may want besides: plugins, and lines of rabbitmq.conf.
rabbitmq_plugins=()
rabbitmq_settings=()

# RabbitMQ's own scripts. Those in /usr/sbin change the user and the folder first.
rabbitmq_bin() {
    local folder
    for folder in /usr/lib/rabbitmq/bin /usr/local/lib/rabbitmq/bin; do
        if [[ -x $folder/rabbitmq-server ]]; then
            echo "$folder"
            return
        fi
    done
}

# rabbitmq_env ; fills the array of that name: where server and rabbitmqctl find each other
# and all files, none of them the system's.
rabbitmq_env() {
    local folder
    folder=$(folder rabbitmq)
    rabbitmq_env=(HOME="$folder"
        ERL_EPMD_PORT="$(recall rabbitmq epmd)" ERL_EPMD_ADDRESS=127.0.0.1
        RABBITMQ_NODENAME="$rabbitmq_node"
        RABBITMQ_DIST_PORT="$(recall rabbitmq dist)"
        RABBITMQ_MNESIA_BASE="$folder/data"
        RABBITMQ_LOG_BASE="$folder/log"
        RABBITMQ_CONFIG_FILE="$folder/rabbitmq.conf"
        RABBITMQ_ADVANCED_CONFIG_FILE="$folder/advanced.config"
        RABBITMQ_CONF_ENV_FILE="$folder/rabbitmq-env.conf"
        RABBITMQ_ENABLED_PLUGINS_FILE="$folder/enabled_plugins"
        RABBITMQ_CTL_DIST_PORT_MIN=27800 RABBITMQ_CTL_DIST_PORT_MAX=27899
        RABBITMQ_CTL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}")
}

write_rabbitmq_config() {
    local folder=$1 port=$2
    mkdir -p "$folder/data" "$folder/log"
    cat >"$folder/rabbitmq.conf" <<CONF
# By clerk-sync's scripts/services.
listeners.tcp.1 = 127.0.0.1:$port
disk_free_limit.absolute = 50MB
$(printf '%s\n' ${rabbitmq_settings[@]+"${rabbitmq_settings[@]}"})
CONF
    (IFS=, && echo "[${rabbitmq_plugins[*]-}].") >"$folder/enabled_plugins"
    if [[ ! -s $folder/.erlang.cookie ]]; then
        random_hex 24 >"$folder/.erlang.cookie"
    fi
    chmod 400 "$folder/.erlang.cookie"
    : >"$folder/server.log"
    if is_root; then chown -R "$(user rabbitmq):" "$folder"; fi
}

# Our own port mapper, by a link in our folder, so that it is known by its command line too.
epmd_pid() { process epmd "$(folder rabbitmq)/epmd"; }
epmd_answers() { [[ -n $1 && -n $(epmd_pid) ]] && epmd -port "$1" -names >/dev/null 2>&1; }

launch_epmd() {
    cd "$1"
    ln -sf "$(command -v epmd)" "$1/epmd"
    as rabbitmq ERL_EPMD_ADDRESS=127.0.0.1 "$1/epmd" -port "$2" -daemon </dev/null >/dev/null 2>&1 9>&-
}

start_epmd() {
    local folder=$1 port=$2
    if epmd_answers "$port"; then return; fi # it outlives `kill`
    stop_epmd
    (launch_epmd "$folder" "$port")
    wait_for 10 '' epmd_answers "$port" || die "Erlang's port mapper does not answer on port $port"
}

stop_epmd() {
    local pid
    pid=$(epmd_pid)
    if [[ -n $pid ]]; then kill "$pid" 2>/dev/null || true; fi
}

# link_lean_home FOLDER ; RabbitMQ as installed, without the fifty plugins that we do not use:
# Erlang looks for each module in the folders of all, which doubles the time of a start. If some are
# wanted, all are there: they need each other.
link_lean_home() {
    local real part
    real=$(dirname "$(readlink -f "$(rabbitmq_bin)/rabbitmq-server")")/..
    rm -rf "$1"
    mkdir -p "$1/plugins"
    ln -s "$real/sbin" "$1/sbin"
    for part in "$real"/plugins/*; do
        case ${part##*/} in
            rabbitmq_prelaunch*) ;; # part of the server
            rabbitmq_*) if ((${#rabbitmq_plugins[@]} == 0)); then continue; fi ;;
        esac
        ln -s "$part" "$1/plugins/"
    done
}

launch_rabbitmq() {
    local folder=$1
    local -a rabbitmq_env
    rabbitmq_env
    cd "$folder"
    ulimit -n "$(ulimit -Hn)"
    # RUNNING_UNDER_SYSTEMD makes the script exec the server: no shell stays around it.
    as rabbitmq "${rabbitmq_env[@]}" RUNNING_UNDER_SYSTEMD=true RABBITMQ_SCRIPTS_DIR="$folder/home/sbin" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} -clerk_sync $folder/data" \
        setsid "$(rabbitmq_bin)/rabbitmq-server" </dev/null >>"$folder/server.log" 2>&1 9>&-
}

start_native_rabbitmq() {
    local folder port dist epmd
    own_folder rabbitmq
    folder=$(folder rabbitmq)
    port=$(free_port "$(recall rabbitmq port)" "$amqp_first_port")
    dist=$(free_port "$(recall rabbitmq dist)" "$dist_first_port")
    epmd=$(recall rabbitmq epmd)
    epmd_answers "$epmd" || epmd=$(free_port "$epmd" "$epmd_first_port")
    remember rabbitmq way=native port="$port" dist="$dist" epmd="$epmd"
    write_rabbitmq_config "$folder" "$port"
    link_lean_home "$folder/home"
    start_epmd "$folder" "$epmd"
    launch_rabbitmq "$folder" &
    wait_for "$start_seconds" $! port_is_ours rabbitmq || fail_start rabbitmq "$folder/server.log"
}

kill_native_rabbitmq() {
    local pid
    pid=$(server_pid rabbitmq)
    if [[ -z $pid ]]; then return 0; fi
    kill -KILL "$pid" 2>/dev/null || true
    wait_for "$stop_seconds" '' are_dead "$pid" || die "RabbitMQ's process $pid does not die"
}
