#!/usr/bin/env bash
#
# The users of clerk-sync on RabbitMQ, each with the least rights that suffice. A user is made
# or brought up to date when its password is in the environment, and left alone otherwise:
#
#   CLERK_INGEST_PASSWORD=… CLERK_WORKER_PASSWORD=… deploy/rabbitmq/users.sh
#
# Set as wanted:
#   QUEUE_PREFIX     clerk; as for the programs. The users are named after it: clerk-ingest, …
#   RABBITMQ_VHOST   /
#   RABBITMQCTL      rabbitmqctl; or how to call it: 'kubectl exec -i rabbitmq-0 -- rabbitmqctl'
#
# It can be run again at any time. The broker compares the patterns below with the whole name of
# an exchange or a queue; a broker without rabbitmqctl takes the same four lines by other means.

set -euo pipefail

prefix=${QUEUE_PREFIX:-clerk}
vhost=${RABBITMQ_VHOST:-/}
read -ra rabbitmqctl <<<"${RABBITMQCTL:-rabbitmqctl} --quiet"

# allow USER PASSWORD CONFIGURE WRITE READ
allow() {
    local user=$prefix-$1 password=$2
    if [[ -z $password ]]; then return; fi
    # By standard input: an argument is there for every process of the machine to read.
    if "${rabbitmqctl[@]}" list_users | cut -f 1 | grep -qxF -- "$user"; then
        "${rabbitmqctl[@]}" change_password "$user" <<<"$password"
    else
        "${rabbitmqctl[@]}" add_user "$user" <<<"$password"
    fi
    "${rabbitmqctl[@]}" set_permissions --vhost "$vhost" "$user" "$3" "$4" "$5"
    echo "$user: configure $3  write $4  read $5"
}

p=^${prefix//./\\.}\\. # a dot is a dot, not any character

#     user          password                            configure  write         read
allow ingest       "${CLERK_INGEST_PASSWORD:-}"        '^$'       "${p}events$" '^$'
allow worker       "${CLERK_WORKER_PASSWORD:-}"        '^$'       "${p}retry$"  "${p}apply$"
# clerk-sync dead-letters: takes from the parked, gives back by way of the first rung.
allow dead-letters "${CLERK_DEAD_LETTERS_PASSWORD:-}"  '^$'       "${p}retry$"  "${p}(dead|unrouted)$"
# clerk-sync setup, once per release: makes every exchange, queue and binding of the prefix.
allow setup        "${CLERK_SETUP_PASSWORD:-}"         "$p"       "$p"          "$p"
