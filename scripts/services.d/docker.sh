# shellcheck shell=bash
# A server in a container, where there are no packages for it. Its data is in the container's
# volume and lives until `wipe`.

container() { echo "clerk-sync-$1-${elsewhere##*-}"; }
container_exists() { docker container inspect "$(container "$1")" >/dev/null 2>&1; }

create_postgres_container() {
    local port=$1 password
    password=$(random_hex 16)
    remember postgres way=docker port="$port" password="$password"
    docker create --name "$(container postgres)" --publish "127.0.0.1:$port:5432" \
        --env POSTGRES_USER=clerk_sync --env POSTGRES_PASSWORD="$password" --env POSTGRES_DB=clerk_sync \
        "$postgres_image" -c max_connections=300 >/dev/null
}

# The name of the host is part of the node's name, and so of its data folder.
create_rabbitmq_container() {
    local port=$1
    remember rabbitmq way=docker port="$port"
    docker create --name "$(container rabbitmq)" --hostname clerk-sync --publish "127.0.0.1:$port:5672" \
        "$rabbitmq_image" >/dev/null
}

start_docker() {
    local first=$postgres_first_port
    if [[ $1 == rabbitmq ]]; then first=$amqp_first_port; fi
    if [[ -z $(recall "$1" port) ]]; then remove_container "$1"; fi # its password is lost
    if ! container_exists "$1"; then "create_$1_container" "$(free_port '' "$first")"; fi
    docker start "$(container "$1")" >/dev/null
    wait_for "$start_seconds" '' answers "$1" "$(recall "$1" port)" || {
        docker logs --tail 25 "$(container "$1")" >&2
        die "$(title "$1") did not start; above is the end of its log"
    }
}

remove_container() { docker rm --force --volumes "$(container "$1")" >/dev/null 2>&1 || true; }
stop_docker() { docker stop -t "$stop_seconds" "$(container "$1")" >/dev/null; }
kill_docker() { docker kill "$(container "$1")" >/dev/null; }
