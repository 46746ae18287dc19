# shellcheck shell=bash
# The URLs: ours, and those that the caller gives. A given server is never started or stopped.

own_url() {
    local port
    port=$(recall "$1" port)
    case $1 in
        rabbitmq) echo "amqp://guest:guest@127.0.0.1:$port/%2f" ;;
        postgres) echo "postgres://clerk_sync:$(recall postgres password)@127.0.0.1:$port/clerk_sync" ;;
    esac
}

variable() {
    case $1 in
        rabbitmq) echo AMQP_URL ;;
        postgres) echo DATABASE_URL ;;
    esac
}

# given_url SERVICE ; the URL in the environment, or nothing. One that points at our own
# server does not count: it is there because somebody evaluated `scripts/services env`.
given_url() {
    local variable url port
    variable=$(variable "$1")
    url=${!variable:-}
    port=$(recall "$1" port)
    if [[ -n $port && $url == *"@127.0.0.1:$port/"* ]]; then return; fi
    printf '%s' "$url"
}

is_given() { [[ -n $(given_url "$1") ]]; }
url() { if is_given "$1"; then given_url "$1"; else own_url "$1"; fi; }
without_password() { sed -E 's#(://[^:/@]*):[^@]*@#\1:***@#g' <<<"$1"; }

refuse_given() {
    if ! is_given "$1"; then return 0; fi
    die "$(title "$1") is given by $(variable "$1") ($(without_password "$(given_url "$1")")): it is not ours to $2"
}
