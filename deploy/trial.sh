# Checks the bundle as the service itself will be started: its user, its directories, its walls, its profile with the
# signature that this asks for. install.sh reads this file. What is refused is told at once, not by a timer at night.

trial=edge-far-trial.service

try_service() {
    if systemctl is-active --quiet edge-far.service; then return; fi
    { systemctl cat edge-far.service; trial_settings; } >"/run/systemd/system/$trial"
    systemctl daemon-reload
    started=yes
    systemctl start "$trial" 2>/dev/null || started=no
    status=$(systemctl show "$trial" --property=ExecMainStatus --value)
    invocation=$(systemctl show "$trial" --property=InvocationID --value)
    rm -f "/run/systemd/system/$trial"
    systemctl reset-failed "$trial" 2>/dev/null || true
    systemctl daemon-reload
    if [ "$started" = no ]; then refuse_trial; fi
}

# Every setting of the service, drop-ins too, but for what it runs.
trial_settings() {
    cat <<'UNIT'

[Service]
Type=oneshot
ExecStart=
ExecStart=/bin/sh -ec 'for place in "$$STATE_DIRECTORY" "$$CACHE_DIRECTORY" /var/spool/edge-far; do : >"$$place/.trial.tmp"; rm "$$place/.trial.tmp"; done'
ExecStart=/opt/edge-far/venv/bin/edge-far verify --profile ${EDGE_FAR_PROFILE} ${EDGE_FAR_BUNDLE}
ExecReload=
WatchdogSec=0
RuntimeMaxSec=infinity
TimeoutStartSec=2min
StandardOutput=null
StandardError=journal
UNIT
}

# Statuses of 200 and more are systemd's: man systemd.exec, "Process Exit Codes".
refuse_trial() {
    code=69
    if [ -z "$invocation" ]; then
        fail "installed, but the service cannot run here: a mount that it needs has failed ($(failed_mounts));" \
            "mount it, or mend /etc/fstab; then run install.sh again"
    fi
    case $status in
        203) hint="program and Python ($(readlink -f /opt/edge-far/venv/bin/python)) must lie outside home directories,"
            hint="$hint on a file system without noexec: name another Python with --python" ;;
        217|225|226) hint=$(namespace_hint) ;;
        238|239) hint="look at /var/lib/edge-far and /var/cache/edge-far ($recipe)" ;;
        65|66|69|78) hint="mend that" ;;
        *) hint="see 'journalctl --unit=$trial'" ;;
    esac
    fail "installed, but the service cannot run here (status $status: $(trial_reason)); $hint; then run install.sh again"
}

namespace_hint() {
    if systemd-detect-virt --container --quiet; then
        echo "allow this container namespaces of its own (LXC: security.nesting=true), or use deploy/Containerfile"
    else
        echo "look for a drop-in that asks for too much: systemctl cat edge-far.service"
    fi
}

failed_mounts() {
    systemctl list-units --type=mount --state=failed --plain --no-legend | while read -r unit rest; do
        systemctl show --property=Where --value "$unit"
    done | xargs
}

# What the journal has of it, in a few words.
trial_reason() {
    journalctl --sync 2>/dev/null || true
    journalctl --quiet --no-pager --output=cat "INVOCATION_ID=$invocation" + "_SYSTEMD_INVOCATION_ID=$invocation" \
        2>/dev/null | grep -v '^Starting' | sed "s/^$trial: //; 1q" || true
}
