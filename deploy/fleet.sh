# A board's end of a fleet: Flower beside the service, in an environment of its own. install.sh reads this file.
# docs/howto/fleet.md says what each part may see. The key is made here, and never leaves the board.

fleet_opt=$stage/opt/edge-far-fleet
fleet_etc=$etc/fleet
fleet_units='edge-far-fleet-node.service edge-far-fleet-work.service edge-far-fleet-work.path'

# A board that takes part goes on taking part, and is updated with the rest.
known_fleet() {
    if [ -z "$fleet" ] && [ -f "$units/edge-far-fleet-node.service" ] && [ -f "$fleet_etc/node.env" ]; then
        fleet=$(sed -n 's/^EDGE_FAR_FLEET_SERVER=//p' "$fleet_etc/node.env")
    fi
}

check_fleet() {
    code=64
    if [ -z "$fleet" ]; then
        [ -z "$fleet_ca" ] || fail "--fleet-ca is of --fleet: name the fleet's server, HOST:PORT"
        return
    fi
    case $fleet in
        *[!A-Za-z0-9.:_[\]-]*) fail "--fleet $fleet: is not HOST:PORT" ;;
        ?*:*[0-9]) case ${fleet##*:} in *[!0-9]*) fail "--fleet $fleet: is not HOST:PORT" ;; esac ;;
        *) fail "--fleet $fleet: is not HOST:PORT" ;;
    esac
    if [ -n "$fleet_ca" ]; then
        code=66
        [ -f "$fleet_ca" ] || fail "$fleet_ca: not found; it is the ca.crt of the fleet's owner (docs/howto/fleet.md)"
        code=65
        if grep -q 'PRIVATE KEY' "$fleet_ca"; then fail "$fleet_ca: holds a private key, which is no board's; give ca.crt"; fi
        grep -q 'BEGIN CERTIFICATE' "$fleet_ca" || fail "$fleet_ca: is not a certificate (PEM); give the fleet's ca.crt"
    else
        [ -f "$fleet_etc/ca.crt" ] || fail "name the certificate of the fleet's authority with --fleet-ca ca.crt"
    fi
    code=69
    [ -f "$fleet_etc/node.key" ] || command -v ssh-keygen >/dev/null ||
        fail "ssh-keygen: not found; it makes this board's key: install openssh-client"
    code=64
}

put_fleet() {
    [ -n "$fleet" ] || return 0
    [ -x "$fleet_opt/bin/python" ] || "$python" -m venv "$fleet_opt"
    "$fleet_opt/bin/python" -m pip install --quiet --disable-pip-version-check "${package}[fleet]"
    mkdir -p "$fleet_etc"
    chmod 700 "$fleet_etc"
    if [ -n "$fleet_ca" ]; then put "$fleet_ca" "$fleet_etc/ca.crt" 644; fi
    if [ ! -f "$fleet_etc/node.key" ]; then
        rm -f "$fleet_etc/.node.key.tmp" "$fleet_etc/.node.key.tmp.pub"
        ssh-keygen -q -t ecdsa -b 384 -N '' -C "$(uname -n)" -f "$fleet_etc/.node.key.tmp"
        mv "$fleet_etc/.node.key.tmp.pub" "$fleet_etc/node.key.pub"
        mv "$fleet_etc/.node.key.tmp" "$fleet_etc/node.key"
        say "made this board's key; on the fleet's server, once: flwr supernode register FILE fleet, where FILE holds"
        say "$(cat "$fleet_etc/node.key.pub")"
    fi
    printf 'EDGE_FAR_FLEET_SERVER=%s\n' "$fleet" >"$opt/.node.env.tmp"
    put "$opt/.node.env.tmp" "$fleet_etc/node.env" 644
    rm -f "$opt/.node.env.tmp"
    for unit in $fleet_units; do put "$here/$unit" "$units/$unit" 644; done
    put "$here/edge-far-fleet.sysusers" "$stage/etc/sysusers.d/edge-far-fleet.conf" 644
    put "$here/edge-far-fleet.tmpfiles" "$stage/etc/tmpfiles.d/edge-far-fleet.conf" 644
    put "$units/edge-far.service.d/10-profile.conf" "$units/edge-far-fleet-work.service.d/10-profile.conf" 644
    if [ -f "$here/../docs/howto/fleet.md" ]; then put "$here/../docs/howto/fleet.md" "$opt/docs/howto/fleet.md" 644; fi
}

start_fleet() {
    [ -n "$fleet" ] || return 0
    systemd-sysusers edge-far-fleet.conf
    systemd-tmpfiles --create edge-far-fleet.conf
    systemctl daemon-reload
    systemctl enable --quiet --now edge-far-fleet-work.path
    systemctl enable --quiet edge-far-fleet-node.service
    systemctl restart --no-block edge-far-fleet-node.service  # the server may not know it yet; it tries again
}

# The environment stays where the fleet's server runs out of it on this machine.
remove_fleet() {
    if live; then
        systemctl disable --now edge-far-fleet-work.path edge-far-fleet-node.service 2>/dev/null || true
        systemctl stop edge-far-fleet-work.service 2>/dev/null || true
        systemctl reset-failed edge-far-fleet-work.service edge-far-fleet-node.service 2>/dev/null || true
    fi
    for unit in $fleet_units; do rm -f "$units/$unit"; done
    rm -rf "$units/edge-far-fleet-work.service.d/10-profile.conf"
    rmdir "$units/edge-far-fleet-work.service.d" 2>/dev/null || true
    rm -f "$stage/etc/sysusers.d/edge-far-fleet.conf" "$stage/etc/tmpfiles.d/edge-far-fleet.conf"
    if [ ! -f "$units/edge-far-fleet-server.service" ]; then rm -rf "$fleet_opt"; fi
}

purge_fleet() {
    public=$stage/var/lib/edge-far-fleet
    if [ "$(readlink "$public")" = private/edge-far-fleet ]; then rm -f "$public"; fi
    for place in "$stage/var/spool/edge-far-fleet" "$stage/var/lib/private/edge-far-fleet"; do erase "$place"; done
    if live; then groupdel edge-far-desk 2>/dev/null || true; fi
}
