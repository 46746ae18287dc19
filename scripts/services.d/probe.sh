# shellcheck shell=bash
# Which ports are free, and whether a server truly answers. In plain bash: a machine that runs
# the servers in Docker has no client of theirs.

port_is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port REMEMBERED FIRST ; the remembered one if nobody has taken it meanwhile.
free_port() {
    local port
    for port in "$1" $(seq "$2" 10 $(($2 + 190))); do
        if [[ -n $port ]] && ! port_is_open "$port"; then
            echo "$port"
            return
        fi
    done
    die "no free port among $2, $(($2 + 10)) … $(($2 + 190))"
}

# first_byte PORT REQUEST ; the first byte that the server answers to REQUEST (printf syntax).
first_byte() {
    local byte=''
    {
        exec 3<>"/dev/tcp/127.0.0.1/$1" || return 0
        # shellcheck disable=SC2059 # the request is a format: it spells bytes
        printf "$2" >&3
        LC_ALL=C IFS= read -r -t 2 -n 1 byte <&3 || true
        exec 3>&-
    } 2>/dev/null
    printf '%s' "$byte"
}

# answers SERVICE PORT ; it speaks its protocol, which an open port does not prove.
answers() {
    [[ -n $2 ]] || return 1
    case $1 in
        # Protocol header 0-9-1; the reply, Connection.Start, is a frame of type 1.
        # RabbitMQ opens its listener as the last step of its boot.
        rabbitmq) [[ $(first_byte "$2" 'AMQP\0\0\11\1') == $'\x01' ]] ;;
        # Start-up message for user clerk_sync, as pg_isready sends it; the reply is R
        # (authenticate), or E while the server is starting up or shutting down.
        postgres) [[ $(first_byte "$2" '\0\0\0\31\0\3\0\0user\0clerk_sync\0\0') == R ]] ;;
    esac
}
