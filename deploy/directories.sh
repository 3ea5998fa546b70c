# The directories of the service, looked at before systemd meets them. install.sh reads this file.
# systemd keeps the state of a user that comes and goes below /var/lib/private, and makes /var/lib/edge-far a link to it;
# likewise /var/cache. What stands in the way there ends the service with a status that helps nobody (238, 239).

state=$stage/var/lib/private/edge-far
spool=$stage/var/spool/edge-far
recipe='see docs/howto/state-on-ssd.md'
is_mount() { mountpoint -q "$1"; }
is_empty() { [ -z "$(find "$1" -mindepth 1 -maxdepth 1 ! -name lost+found 2>/dev/null)" ]; }
# The link that systemd makes, or one that means the same.
is_own_link() { case $(readlink "$1") in private/edge-far|/var/*/private/edge-far) true ;; *) false ;; esac; }

# --- Looking: each of these changes nothing, and ends with one line where the service could not run ---

check_directories() {
    code=73
    for base in "$stage/var/lib" "$stage/var/cache"; do check_private "$base"; done
    check_plain "$spool"
    if live; then
        check_user
        check_idle
        check_owners
    fi
    code=64
}

# $1/edge-far must be systemd's link, or a directory that can become $1/private/edge-far.
check_private() {
    public=$1/edge-far private=$1/private/edge-far
    check_plain "$private"
    if [ -L "$public" ]; then
        is_own_link "$public" || fail "$public is a link to $(readlink "$public"), which the service cannot use;" \
            "remove the link and mount that directory at $private ($recipe)"
    elif is_mount "$public"; then
        fail "$public is a mount, which the service cannot use; mount it at $private instead ($recipe)"
    elif [ -e "$public" ] && [ ! -d "$public" ]; then
        fail "$public is not a directory; move it away"
    elif ! is_empty "$public" && ! is_empty "$private"; then
        fail "both $public and $private hold something, and the service uses one: move the other away" \
            "(if the second one is away, the first takes its place)"
    elif ! is_empty "$public" && is_mount "$private"; then
        fail "$private is a mount, and still empty: copy the state (cp -a $public/. $private/), then move $public away"
    fi
}

check_plain() {
    if [ -L "$1" ]; then
        fail "$1 is a link to $(readlink "$1"), which the service does not follow;" \
            "remove the link and mount that directory at $1 ($recipe)"
    elif [ -e "$1" ] && [ ! -d "$1" ]; then
        fail "$1 is not a directory; move it away"
    fi
}

# systemd makes user and group edge-far together while the service runs, or uses a user that is there.
check_user() {
    if getent group edge-far >/dev/null && ! getent passwd edge-far >/dev/null; then
        fail "there is a group 'edge-far' without a user, so systemd cannot make the service's user;" \
            "remove it (groupdel edge-far) or add the user (useradd --system --gid edge-far edge-far)"
    fi
}

# A daemon that was started by hand holds one of the two, whether it works or waits.
check_idle() {
    if systemctl is-active --quiet edge-far.service; then return; fi
    for file in /var/lib/edge-far/lock /var/lib/edge-far/waiting "$state/lock" "$state/waiting"; do
        if [ -f "$file" ] && ! flock --nonblock "$file" true; then
            code=75
            fail "a daemon that was started by hand is at work in ${file%/*}; stop it first"
        fi
    done
}

# The service's user is one of 61184 to 65519, and its files must be able to belong to it.
check_owners() {
    code=69
    can_belong /run || fail "this container has no user 65519, which the service may need;" \
        "give it 65536 users (subuid, subgid), or use deploy/Containerfile"
    code=74
    for place in "$state" "$spool"; do
        if [ -d "$place" ] && ! can_belong "$place"; then
            fail "$place: files there cannot be given to the service's user" \
                "($(findmnt --noheadings --output FSTYPE,OPTIONS --target "$place"));" \
                "mount it writable, from a file system with owners, as ext4 is"
        fi
    done
}

can_belong() {
    probe=$(mktemp "$1/.install.XXXXXX" 2>/dev/null) || return 1
    chown -h 65519:65519 "$probe" 2>/dev/null || true
    found=$(stat --format=%u:%g:%a "$probe")
    rm -f "$probe"
    [ "$found" = 65519:65519:600 ]
}

# --- Taking over what runs by hand have left ---

# Before systemd-tmpfiles: a directory at the usual place becomes the one below private.
take_over_state() {
    public=$stage/var/lib/edge-far
    if [ -L "$public" ]; then
        [ "$(readlink "$public")" = private/edge-far ] || rm -f "$public"  # systemd makes its own, which is relative
    elif is_empty "$public"; then
        rmdir "$public" 2>/dev/null || true
    else
        mkdir -p "$stage/var/lib/private"
        chmod 700 "$stage/var/lib/private"
        rmdir "$state" 2>/dev/null || true
        mv -T "$public" "$state"
        say "moved $public to $state, where the service keeps it"
    fi
    take_over_cache
}

# systemd moves this one itself, unless the new place is there already; it holds measurements only.
take_over_cache() {
    public=$stage/var/cache/edge-far
    if [ -L "$public" ]; then
        [ "$(readlink "$public")" = private/edge-far ] || rm -f "$public"
    elif [ -d "$stage/var/cache/private/edge-far" ]; then
        rm -rf "$public"
    fi
}

# systemd gives everything in a directory to the service's user, but only if the directory itself is another's.
give_away_state() {
    if systemctl is-active --quiet edge-far.service; then return; fi
    for place in "$state" "$stage/var/cache/private/edge-far"; do
        [ -d "$place" ] || continue
        if [ -n "$(find "$place" -xdev ! -user "$(stat --format=%u "$place")" -print -quit)" ]; then
            chown root:root "$place"
            say "$place: gave what other users have left there to the service"
        fi
    done
}

# A daemon by hand uses the state directory's own spool, the service another one: what waits there would be lost.
take_over_spool() {
    for path in "$state"/spool/* "$state"/spool/.ingest "$state"/spool/.kept "$state"/spool/.refused; do
        name=${path##*/}
        if [ ! -e "$path" ] || [ -L "$path" ] || rmdir "$path" 2>/dev/null; then continue; fi
        rmdir "$spool/$name" 2>/dev/null || true
        if [ -e "$spool/$name" ]; then
            fail "both $path and $spool/$name are there; the service reads the second: move one file after the other" \
                "to $spool, then remove $path"
        fi
        if [ -f "$path" ]; then chgrp edge-far-spool "$path" && chmod g+r "$path"; fi
        # The spool may be another file system, and the power may fail: copied, then renamed, then removed.
        rm -rf "$spool/.$name.tmp"
        cp -a --remove-destination -T "$path" "$spool/.$name.tmp"
        sync
        mv -T "$spool/.$name.tmp" "$spool/$name"
        rm -rf "$path"
        say "moved $path to $spool, which the service reads"
    done
}

# The daemon's own directories in the spool, once its user is known: the state directory belongs to it.
# $1 is the user it belonged to before. Members of the group may write to the spool, so no other's are taken.
give_away_spool() {
    owner=$(stat --format=%u "$state")
    for path in "$spool/.ingest" "$spool/.kept" "$spool/.refused"; do
        [ -d "$path" ] && [ ! -L "$path" ] || continue
        case $(stat --format=%u "$path") in
            "$owner") ;;
            0|"$1") chown -hR "$owner" "$path"; chmod go-w "$path" ;;
            *) fail "$path belongs to user $(stat --format=%U "$path"); look into it, move its files to $spool" \
                "and remove it" ;;
        esac
    done
}

# --- Removing ---

# Remove a directory of ours; a mount of its own is emptied, and another's link stays.
erase() {
    if [ -L "$1" ]; then
        if is_own_link "$1"; then rm -f "$1"; else say "$1 is a link to $(readlink "$1"), which stays"; fi
    elif [ -d "$1" ] && is_mount "$1"; then
        find "$1" -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +
        say "$1 is a mount and stays, empty"
    else
        rm -rf "$1"
    fi
}
