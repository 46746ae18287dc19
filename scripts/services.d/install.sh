# shellcheck shell=bash
# Debian's and Ubuntu's packages, of the servers and of tools for the tests, installed without a
# trace in the running system: no service starts, now or at boot, and PostgreSQL's packages make no
# cluster.

can_install() {
    have apt-get && have dpkg || return 1
    is_root || { have sudo && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; }
}

# install_missing SERVICE… ; one run of apt-get for all that are missing.
install_missing() {
    local service packages=() units=()
    for service in "$@"; do
        if [[ $(way "$service") != install ]]; then continue; fi
        packages+=("$(package "$service")")
        if [[ $service == rabbitmq ]]; then units+=(rabbitmq-server); fi
    done
    if ((${#packages[@]} == 0)); then return; fi
    if [[ ! -e /usr/bin/epmd ]]; then units+=(epmd.socket epmd.service); fi

    say "installing ${packages[*]} (no system service is started)"
    trap release_services EXIT
    hold_services
    install_packages "${packages[@]}"
    disable_at_boot "${units[@]}"
}

# install_tools ; what tests start beside the servers, installed when that is possible. Where it is
# not, the servers are as good as ever, and such a test says what it misses.
install_tools() {
    local tools=()
    have pgbouncer || [[ -x /usr/sbin/pgbouncer ]] || tools+=(pgbouncer)
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || tools+=(libfaketime)
    if ((${#tools[@]} == 0)) || ! is_linux || ! can_install; then return; fi

    say "installing ${tools[*]} (no system service is started)"
    trap release_services EXIT
    hold_services
    if (install_packages "${tools[@]}"); then
        disable_at_boot pgbouncer
    else
        say "without ${tools[*]}, some tests of tests/weather fail"
    fi
    release_services
}

# install_prometheus ; with promtool, for scripts/test-watch.
install_prometheus() {
    if have prometheus && have promtool; then return; fi
    is_linux && can_install || die "Prometheus is not installed, and cannot be installed here: install it, with promtool"
    say 'installing prometheus (no system service is started)'
    trap release_services EXIT
    hold_services
    install_packages prometheus
    disable_at_boot prometheus
    release_services
}

# Package lists that are missing or too old make a first try fail.
install_packages() {
    : >"$state/apt.log"
    if has_candidates "$@" && apt install --yes --no-install-recommends "$@"; then return; fi
    apt update || true # one source of several may be away
    if apt install --yes --no-install-recommends "$@"; then return; fi
    tail -n 25 "$state/apt.log" >&2
    die "cannot install $*; above is the end of what apt-get said"
}

has_candidates() {
    local package
    for package in "$@"; do
        apt-cache policy "$package" 2>/dev/null | grep -q 'Candidate: [^(]' || return 1
    done
}

with_root() { if is_root; then "$@"; else sudo "$@"; fi; }

# apt ARGS… ; quiet, into a log that is shown when it matters.
apt() {
    with_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null >>"$state/apt.log" 2>&1 9>&-
}

policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/clerk-sync.conf

# While packages are installed, keep them from starting their system services (a policy-rc.d
# is what both invoke-rc.d and systemd's helper ask) and PostgreSQL's from making a cluster.
hold_services() {
    release_services # left by a call that was killed
    if [[ -e $policy ]]; then with_root mv "$policy" "$policy.clerk-sync"; fi
    with_root tee "$policy" >/dev/null <<POLICY
#!/bin/sh
# Temporary, by clerk-sync's scripts/services: no service starts while it installs packages.
for word; do
    case \$word in rabbitmq-server* | epmd* | postgresql* | pgbouncer* | prometheus*) exit 101 ;; esac
done
if [ -x "$policy.clerk-sync" ]; then exec "$policy.clerk-sync" "\$@"; fi
POLICY
    with_root chmod 755 "$policy"
    with_root mkdir -p "${no_cluster%/*}"
    with_root tee "$no_cluster" >/dev/null <<<'create_main_cluster = false'
}

release_services() {
    if grep -qs "by clerk-sync's scripts/services" "$policy"; then with_root rm -f "$policy"; fi
    if [[ -e $policy.clerk-sync ]]; then with_root mv "$policy.clerk-sync" "$policy"; fi
    with_root rm -f "$no_cluster"
}

# A package enables its service for the next boot; what was installed only for our private
# instances must not run then either.
disable_at_boot() {
    local unit
    for unit in "$@"; do
        if have systemctl; then with_root systemctl --quiet disable "$unit" >/dev/null 2>&1 || true; fi
        if [[ -e /etc/init.d/$unit ]]; then with_root update-rc.d "$unit" disable >/dev/null 2>&1 || true; fi
    done
}

package() {
    case $1 in
        rabbitmq) echo rabbitmq-server ;;
        postgres) echo postgresql ;;
    esac
}
