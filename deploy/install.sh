#!/bin/sh
# Installs edge-far as a service, or removes it again. May be run twice: what is right already is left alone.
set -eu

usage() {
    cat <<'USAGE'
usage: install.sh --profile NAME|FILE --bundle DIR [--mqtt] [--wyoming] [--fleet HOST:PORT --fleet-ca FILE]
                  [--package PACKAGE] [--python PYTHON] [--jetson] [--stage DIR]
       install.sh --uninstall [--purge] [--stage DIR]

  --profile   a built-in device profile (rpi4-2gb), auto for this board's own, or a file, which is copied to /etc/edge-far/
  --bundle    the factory bundle, which is copied to /opt/edge-far/bundle
  --mqtt      add the bridge to MQTT; its settings are /etc/edge-far/mqtt.yaml (docs/howto/home-assistant.md)
  --wyoming   add the intent service for Home Assistant; its settings are /etc/edge-far/wyoming.env
  --fleet     take part in the fleet of this server: Flower in /opt/edge-far-fleet, a key of this board's own, two
              services (docs/howto/fleet.md); --fleet-ca is the certificate of the fleet's authority, ca.crt
  --package   what pip installs: a wheel, a checkout, or a requirement (default: the checkout or sdist
              that this file lies in; else edge-far from pip's index)
  --python    Python 3.11 or newer (default: python3)
  --jetson    add the drop-in that lets the application's health command use a Jetson's GPU
  --stage     put the files below DIR and leave the running system alone (for images and for tests)
  --uninstall stop and remove the service; --purge removes bundle, settings, examples and releases, too
USAGE
}

fail() { echo "install.sh: error: $*" >&2; exit "${code:-64}"; }
say() { echo "install.sh: $*" >&2; }

profile='' bundle='' package='' bridges='' fleet='' fleet_ca='' python=python3 jetson=no stage='' uninstall=no purge=no
while [ $# -gt 0 ]; do
    case $1 in
        --profile|--bundle|--package|--python|--stage|--fleet)
            [ $# -ge 2 ] || fail "$1 needs a value"
            name=${1#--}; eval "$name=\$2"; shift 2 ;;
        --fleet-ca)
            [ $# -ge 2 ] || fail "$1 needs a value"
            fleet_ca=$2; shift 2 ;;
        --jetson) jetson=yes; shift ;;
        --mqtt|--wyoming) bridges="$bridges ${1#--}"; shift ;;
        --uninstall) uninstall=yes; shift ;;
        --purge) purge=yes; shift ;;
        -h|--help) usage; exit 0 ;;
        *) usage >&2; fail "unknown option '$1'" ;;
    esac
done

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ -z "$package" ]; then
    if [ -f "$here/../pyproject.toml" ]; then package=$here/..; else package=edge-far; fi
fi
opt=$stage/opt/edge-far
etc=$stage/etc/edge-far
units=$stage/etc/systemd/system
command=$stage/usr/local/bin/edge-far
program=/opt/edge-far/venv/bin/edge-far
live() { [ -z "$stage" ]; }
. "$here/directories.sh"
. "$here/trial.sh"
. "$here/environment.sh"
. "$here/fleet.sh"

# Install file $1 as $2 with mode $3, unless it is there with the same content.
put() {
    if ! cmp -s "$1" "$2"; then
        install -D -m "$3" "$1" "$2"
        say "installed $2"
    fi
}

remove() {
    if live; then
        for unit in edge-far.timer edge-far.path edge-far-mqtt.service edge-far-wyoming.service run-edgefar.mount; do
            systemctl disable --now "$unit" 2>/dev/null || true
        done
        systemctl stop edge-far.service 2>/dev/null || true
        systemctl reset-failed edge-far.service 2>/dev/null || true
    fi
    if [ "$(readlink "$command")" = "$program" ]; then rm -f "$command"; fi
    remove_fleet
    rm -rf "$units/edge-far.service" "$units/edge-far.timer" "$units/edge-far.path" "$units/run-edgefar.mount" \
        "$units/edge-far-mqtt.service" "$units/edge-far-wyoming.service" \
        "$units/edge-far.service.d/10-profile.conf" "$units/edge-far.service.d/20-jetson.conf" \
        "$stage/etc/sysusers.d/edge-far.conf" "$stage/etc/tmpfiles.d/edge-far.conf" "$opt/venv" "$opt/docs"
    rmdir "$units/edge-far.service.d" "$opt" 2>/dev/null || true
    if [ "$purge" = yes ]; then
        for place in "$opt" "$etc" "$spool" "$state" "$stage/var/cache/private/edge-far" \
            "$stage/var/lib/edge-far" "$stage/var/cache/edge-far"; do erase "$place"; done
        purge_fleet
        rm -f "$stage/var/lib/systemd/timers/stamp-edge-far.timer"
        if live; then groupdel edge-far-spool 2>/dev/null || true; fi
        say "removed, with all examples and releases"
    else
        say "removed; examples, releases, bundle and settings are kept (--purge removes them)"
    fi
    if live; then systemctl daemon-reload; fi
}

check() {
    [ -n "$profile" ] || fail "name a device profile with --profile"
    [ -n "$bundle" ] || fail "name the factory bundle with --bundle"
    code=66
    [ -f "$bundle/manifest.json" ] || fail "$bundle: is not a bundle (no manifest.json)"
    code=69
    command -v "$python" >/dev/null || fail "$python: not found; install Python 3.11 or newer, or name it with --python"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python: is older than 3.11"
    "$python" -c 'import sys; sys.exit(sys.maxsize < 2**32)' || fail "32-bit systems are not supported; install a 64-bit one"
    if live; then
        [ -d /run/systemd/system ] || fail "systemd does not run here; run 'edge-far daemon' or use the container"
    fi
    check_fleet
    check_directories
}

# Copy the bundle beside its place and rename, so that a power cut leaves none or all of it.
put_bundle() {
    if diff -rq "$bundle" "$opt/bundle" >/dev/null 2>&1; then return; fi
    rm -rf "$opt/.bundle.tmp"
    cp -R -- "$bundle" "$opt/.bundle.tmp"
    chmod -R u=rwX,go=rX "$opt/.bundle.tmp"
    sync
    rm -rf "$opt/bundle"
    mv "$opt/.bundle.tmp" "$opt/bundle"
    say "installed $opt/bundle"
}

# The command for people, unless there is another one of that name.
put_command() {
    if [ -e "$command" ] || [ -L "$command" ]; then
        [ "$(readlink "$command")" = "$program" ] || say "$command is not ours and stays; the program is $program"
    else
        mkdir -p "$(dirname "$command")"
        ln -s "$program" "$command"
        say "installed $command"
    fi
}

# The pages that the unit names, for whoever has no checkout at hand. deploy/ may have been copied alone.
put_pages() {
    for page in start/service howto/look-after-the-service howto/state-on-ssd howto/home-assistant; do
        if [ -f "$here/../docs/$page.md" ]; then put "$here/../docs/$page.md" "$opt/docs/$page.md" 644; fi
    done
}

# The two settings that are ours; other lines of the file are its owner's and stay.
put_settings() {
    {
        printf 'EDGE_FAR_PROFILE=%s\nEDGE_FAR_BUNDLE=/opt/edge-far/bundle\n' "$1"
        if [ -f "$etc/edge-far.env" ]; then grep -Ev '^EDGE_FAR_(PROFILE|BUNDLE)=' "$etc/edge-far.env" || true; fi
    } >"$opt/.env.tmp"
    put "$opt/.env.tmp" "$etc/edge-far.env" 644
    rm -f "$opt/.env.tmp"
}

# The profile of the board on which this runs, or for which the image is: its name, one word.
own_profile() {
    "$opt/venv/bin/python" -m edge_far.cli profiles detect --root "${stage:-/}" >"$opt/.detected.tmp" || {
        cat "$opt/.detected.tmp" >&2; rm -f "$opt/.detected.tmp"; code=78; fail "name a profile instead of auto"; }
    cut -d' ' -f1 "$opt/.detected.tmp"
    rm -f "$opt/.detected.tmp"
}

# The walls behind the trainer's own budget come from the profile.
put_limits() {
    "$opt/venv/bin/python" - "$1" >"$opt/.limits.tmp" <<'PYTHON' || { rm -f "$opt/.limits.tmp"; exit 78; }
import sys

from edge_far.errors import EdgeFarError
from edge_far.profile.document import load_profile

try:
    profile = load_profile(sys.argv[1])
except EdgeFarError as error:
    sys.exit(f"install.sh: error: {error}")
print(f"# Written by install.sh from the profile {profile.name}.\n[Service]")
print(f"MemoryMax={profile.memory.budget_mib + 96}M")  # the budget, the daemon itself, some page cache
print(f"RuntimeMaxSec={profile.adaptation.max_minutes + 60}min")
PYTHON
    put "$opt/.limits.tmp" "$units/edge-far.service.d/10-profile.conf" 644
    rm -f "$opt/.limits.tmp"
}

setup() {
    mkdir -p "$opt" "$etc"
    put_environment
    put_bundle
    case $profile in
        *.yaml|*.yml|*/*) put "$profile" "$etc/profile.yaml" 644; name=/etc/edge-far/profile.yaml; found=$etc/profile.yaml ;;
        auto) name=$(own_profile); found=$name ;;
        *) name=$profile; found=$profile ;;
    esac
    put_limits "$found"
    put_settings "$name"
    put_command
    put_pages
    for unit in edge-far.service edge-far.timer edge-far.path run-edgefar.mount; do put "$here/$unit" "$units/$unit" 644; done
    put "$here/edge-far.sysusers" "$stage/etc/sysusers.d/edge-far.conf" 644
    put "$here/edge-far.tmpfiles" "$stage/etc/tmpfiles.d/edge-far.conf" 644
    for name in $bridges; do put "$here/edge-far-$name.service" "$units/edge-far-$name.service" 644; done
    # Their owner's from the first installation on.
    case $bridges in *mqtt*) [ -f "$etc/mqtt.yaml" ] || put "$here/mqtt.yaml" "$etc/mqtt.yaml" 600 ;; esac
    case $bridges in *wyoming*) [ -f "$etc/wyoming.env" ] || put "$here/wyoming.env" "$etc/wyoming.env" 644 ;; esac
    if [ "$jetson" = yes ]; then put "$here/jetson.conf" "$units/edge-far.service.d/20-jetson.conf" 644; fi
    put_fleet
    rm -rf "$opt/.sources.tmp"
    take_over_state
    if live; then start; fi
}

start() {
    systemd-sysusers edge-far.conf
    systemd-tmpfiles --create edge-far.conf
    former=$(stat --format=%u "$state")
    take_over_spool
    give_away_state
    systemctl daemon-reload
    try_service
    give_away_spool "$former"
    show_model
    systemctl enable --quiet --now edge-far.timer edge-far.path
    for name in $bridges; do
        systemctl enable --quiet "edge-far-$name.service"
        systemctl restart --no-block "edge-far-$name.service"  # it may wait for a broker, or for the first release
    done
    start_fleet
    say "done; 'edge-far status' tells how it is, 'systemctl start edge-far' runs a cycle now"
}

# Applications must see the state directory of now, not one that was there before a file system was mounted over it.
show_model() {
    systemctl enable --quiet run-edgefar.mount
    if [ ! "$state" -ef /run/edgefar ]; then systemctl stop run-edgefar.mount; fi
    code=69
    systemctl start run-edgefar.mount 2>/dev/null || fail "the model cannot be shown in /run/edgefar: see" \
        "'systemctl status run-edgefar.mount'; in a container, allow it mounts, or use deploy/Containerfile"
    code=64
}

if live && [ "$(id -u)" -ne 0 ]; then code=77; fail "run it as root"; fi
if [ "$uninstall" = yes ]; then remove; else known_fleet; check; setup; fi
