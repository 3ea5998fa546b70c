"""The installer on devices where something is in the way: it works at once, or one line says what to do.

Each situation is made in the container by a few shell commands before the installer runs. BY_HAND is a daemon that
somebody starts without the service.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ssh_keys import make_key, needs_ssh_keygen
from tests.systemd.container import INSTALL, PROFILE, Container, missing, wait_for

pytestmark = [pytest.mark.device, pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

STATE = "/var/lib/private/edge-far"
PLACES = (
    *("/run/edgefar", "/var/lib/edge-far", STATE, "/var/spool/edge-far", "/opt/edge-far"),
    *("/var/cache/edge-far", "/var/cache/private/edge-far", "/mnt/ssd"),
)
BY_HAND = "/opt/edge-far/venv/bin/edge-far daemon --once --profile /profile.yaml --bundle /bundle"
INSTALLED = " ".join(INSTALL) + "; systemctl stop edge-far.timer; systemctl start edge-far.service; "
INSTALLED += "while systemctl is-active --quiet edge-far.service; do sleep 0.1; done"
EXAMPLE = '{"text": "turn it on", "label": "label-0"}\n'
TMPFS = f"mkdir -p {STATE}; mount -t tmpfs tmpfs {STATE}"


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory, installed_bundle: Path) -> Iterator[Container]:
    booted = Container(tmp_path_factory.mktemp("container"), installed_bundle)
    try:
        yield booted
    finally:
        booted.close()


@pytest.fixture(scope="module")
def unprivileged(tmp_path_factory: pytest.TempPathFactory, installed_bundle: Path) -> Iterator[Container]:
    booted = Container(tmp_path_factory.mktemp("unprivileged"), installed_bundle, unprivileged=True)
    try:
        booted.write("/profile.yaml", PROFILE)
        yield booted
    finally:
        booted.close()


@pytest.fixture
def device(container: Container) -> Container:
    """Return the container with nothing of ours in it but Python's environment and the file example.jsonl."""
    clear(container)
    return container


def clear(container: Container) -> None:
    container.run("systemctl", "stop", "edge-far.timer", "edge-far.service", check=False)
    container.run("sh", INSTALL[1], "--uninstall", "--purge")
    for place in PLACES:
        container.run("umount", "--lazy", place, check=False)
        container.run("rm", "-rf", place)
    container.run("sh", "-c", "rm -f /etc/fstab; userdel edge-far; groupdel edge-far", check=False)
    container.run("mkdir", "-p", "/mnt/ssd")
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "reset-failed")
    container.prepare_python()
    container.write("/profile.yaml", PROFILE)
    container.write("/example.jsonl", EXAMPLE)


def run_a_cycle(container: Container) -> dict[str, object]:
    """Start the service, wait for its end, and return what `status` says of the examples."""
    container.run("systemctl", "stop", "edge-far.timer")
    container.run("systemctl", "start", "edge-far.service")
    wait_for(lambda: container.show("ActiveState") in ("inactive", "failed"), 60)
    assert (container.show("Result"), container.show("ExecMainStatus")) == ("success", "75")
    text = container.run("/opt/edge-far/venv/bin/edge-far", "status", "--json", "--state", "/var/lib/edge-far")
    document = json.loads(text)
    assert document["state"] == "fresh" and document["notes"] == []
    examples: dict[str, object] = document["examples"]
    return examples


@pytest.mark.parametrize(
    "situation",
    [
        "true",
        "mkdir -m 755 /var/lib/edge-far; chown 1000 /var/lib/edge-far",
        f"ln -s {STATE} /var/lib/edge-far",
        f"{TMPFS}; mkdir -m 700 {STATE}/lost+found",
        "mkdir /var/spool/edge-far; mount -t tmpfs tmpfs /var/spool/edge-far",
        "mkdir -m 700 /var/cache/edge-far; chown 1000 /var/cache/edge-far",
        f"{INSTALLED}; rm /var/cache/edge-far; mkdir /var/cache/edge-far",
        "useradd --system edge-far",
    ],
)
def test_it_works(device: Container, situation: str) -> None:
    device.run("sh", "-c", situation)
    device.run(*INSTALL)
    run_a_cycle(device)
    assert device.run("readlink", "/var/lib/edge-far") == "private/edge-far"


@pytest.mark.parametrize(
    "owner",
    ["chown -R 0 /var/lib/edge-far", "chown -R 1000:1000 /var/lib/edge-far; chmod 700 /var/lib/edge-far"],
)
def test_what_a_run_by_hand_left_is_taken_over(device: Container, owner: str) -> None:
    """Its own spool, too: one file waits there, and one was read and is kept until the store's next copy."""
    spool = "/var/lib/edge-far/spool"
    device.call("sh", "-c", f"{BY_HAND} --state /var/lib/edge-far; cp /example.jsonl {spool}/first.jsonl")
    device.call("sh", "-c", f"{BY_HAND} --state /var/lib/edge-far")
    device.run("sh", "-c", f"sed s/on/off/ /example.jsonl > {spool}/second.jsonl; chmod 600 {spool}/*.jsonl; {owner}")
    told = device.call(*INSTALL).stderr
    assert f"moved /var/lib/edge-far to {STATE}" in told and "second.jsonl to /var/spool/edge-far" in told
    assert run_a_cycle(device)["examples"] == 2
    assert len(device.run("ls", "/var/spool/edge-far/.kept").split()) == 2
    assert device.run("ls", "-A", f"{STATE}/spool") == ""


def test_a_run_by_hand_with_the_services_spool_is_taken_over(device: Container) -> None:
    device.run("sh", "-c", "mkdir /var/spool/edge-far; cp /example.jsonl /var/spool/edge-far")
    device.call("sh", "-c", f"{BY_HAND} --state /var/lib/edge-far --spool /var/spool/edge-far")
    device.run("chown", "-R", "1000:1000", "/var/lib/edge-far", "/var/spool/edge-far")
    device.run(*INSTALL)
    assert run_a_cycle(device)["examples"] == 1


def test_files_that_root_left_in_the_services_directory_are_given_back(device: Container) -> None:
    device.run("sh", "-c", f"{INSTALLED}; mkdir -m 700 {STATE}/cycle; touch {STATE}/cycle/x; chown -R 0 {STATE}/model")
    device.run(*INSTALL)
    run_a_cycle(device)
    assert device.run("find", STATE, "-user", "root") == ""


def test_a_user_that_is_made_later_gets_everything(device: Container) -> None:
    device.run("sh", "-c", f"{INSTALLED}; useradd --system edge-far")
    device.run(*INSTALL)
    run_a_cycle(device)
    assert device.run("find", STATE, "/var/spool/edge-far", "-mindepth", "1", "!", "-user", "edge-far") == ""


@pytest.mark.parametrize(
    ("situation", "code", "words"),
    [
        (
            "ln -s /mnt/ssd /var/lib/edge-far",
            73,
            f"is a link to /mnt/ssd, which the service cannot * at {STATE} (",
        ),
        ("ln -s /nowhere /var/lib/edge-far", 73, "is a link to /nowhere, which the service cannot use"),
        ("mkdir /var/lib/edge-far; mount -t tmpfs tmpfs /var/lib/edge-far", 73, f"; mount it at {STATE} instead ("),
        (
            f"mkdir -p /var/lib/private; ln -s /mnt/ssd {STATE}",
            73,
            f"{STATE} is a link to /mnt/ssd, which * not",
        ),
        ("touch /var/lib/edge-far", 73, "/var/lib/edge-far is not a directory; move it away"),
        (f"mkdir -p {STATE}/a /var/lib/edge-far/b", 73, "hold something, and the service uses one: move the other"),
        (
            f"{TMPFS}; mkdir -p /var/lib/edge-far/b",
            73,
            f"copy the state (cp -a /var/lib/edge-far/. {STATE}/)",
        ),
        (f"{TMPFS}; mount -o remount,ro {STATE}", 74, "(tmpfs * ro,relatime); mount it writable"),
        ("ln -s /mnt/ssd /var/spool/edge-far", 73, "remove the link and mount that directory at /var/spool/edge-far"),
        ("ln -s /tmp /var/cache/edge-far", 73, "mount that directory at /var/cache/private/edge-far"),
        ("groupadd edge-far", 73, "remove it (groupdel edge-far) or add the user"),
        ("mkdir /var/lib/edge-far; flock -n /var/lib/edge-far/lock sleep 5 & sleep 1", 75, "by hand is at work in"),
    ],
)
def test_it_says_what_to_do_and_changes_nothing(device: Container, situation: str, code: int, words: str) -> None:
    device.run("sh", "-c", f"({situation}) >/dev/null 2>&1")
    done = device.call(*INSTALL)
    assert done.returncode == code and len(done.stderr.splitlines()) == 1, done.stderr
    assert all(part in done.stderr for part in words.split(" * ")), done.stderr
    assert device.run("find", "/etc", "-name", "*edge-far*", "!", "-path", "/etc/*group*") == ""


def refused(container: Container) -> str:
    """Return the one line of an installer that has installed, tried the service, and seen it fail."""
    done = container.call(*INSTALL)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 69 and last.startswith("install.sh: error: installed, but the service cannot run here")
    assert container.run("systemctl", "is-enabled", "edge-far.timer", check=False) == "disabled"
    assert container.run("find", "/run/systemd/system", "-name", "*trial*") == ""
    return last


@needs_ssh_keygen
def test_a_signature_is_checked_at_once_within_the_services_walls(device: Container) -> None:
    """ssh-keygen runs as a user that exists only while it runs: what it needs for that, the installer tells."""
    device.write("/profile.yaml", f"{PROFILE}security: {{allowed_signers: /opt/signers}}\n")
    key = make_key("maker")
    device.write("/opt/signers", key.line())
    assert "manifest.json.sig is missing" in refused(device)
    signature = device.root / "bundle/manifest.json.sig"
    try:
        signature.write_bytes(key.sign((device.root / "bundle/manifest.json").read_bytes()))
        if device.call("sh", "-c", "command -v ssh-keygen").returncode:
            assert "ssh-keygen: is not installed, and signatures need it" in refused(device)
        elif "systemd" not in device.run("grep", "^passwd", "/etc/nsswitch.conf"):
            assert "a service's own user needs libnss-systemd" in refused(device)
        else:
            device.run(*INSTALL)
            run_a_cycle(device)
            device.write("/opt/signers", make_key("another").line())
            device.call("systemctl", "start", "edge-far.service")
            assert (device.show("Result"), device.show("ExecMainStatus")) == ("exit-code", "65")
    finally:
        signature.unlink()


def test_a_storage_device_that_is_missing(device: Container) -> None:
    """No state begins on the card below it; as soon as it is there the service runs."""
    device.write("/etc/fstab", f"tmpfs {STATE} tmpfs nofail,size=bogus 0 0\n")
    device.run("systemctl", "daemon-reload")
    assert f"a mount that it needs has failed ({STATE}); mount it, or mend /etc/fstab" in refused(device)
    assert device.call("systemctl", "start", "edge-far.service").returncode != 0
    assert device.run("ls", "-A", STATE) == ""
    device.write("/etc/fstab", f"tmpfs {STATE} tmpfs nofail 0 0\n")
    device.run("systemctl", "daemon-reload")
    device.run("systemctl", "reset-failed")
    device.run(*INSTALL)
    run_a_cycle(device)
    assert device.run("stat", "--file-system", "--format=%T", "/run/edgefar") == "tmpfs"


def test_a_state_that_moves_to_another_device_is_shown_at_once(device: Container) -> None:
    """An application holds a file of the old place open meanwhile."""
    device.run("sh", "-c", INSTALLED)
    device.run("systemd-run", "--quiet", "sh", "-c", "sleep 60 < /run/edgefar/status.json")
    device.run("sh", "-c", f"mount -t tmpfs tmpfs /mnt/ssd; cp -a {STATE}/. /mnt/ssd; mount --bind /mnt/ssd {STATE}")
    device.run(*INSTALL)
    run_a_cycle(device)
    assert device.run("stat", "--file-system", "--format=%T", "/run/edgefar") == "tmpfs"


def test_a_python_in_a_home_directory(device: Container) -> None:
    device.run("sh", "-c", "mkdir -p /root/own; cp -L /usr/bin/python3 /root/own")
    device.run("ln", "-sfn", "/root/own/python3", "/opt/edge-far/venv/bin/python")
    told = refused(device)
    assert "status 203" in told and "(/root/own/python3) must lie outside home directories" in told


def test_purging_empties_mounts_and_leaves_the_links_of_others(device: Container) -> None:
    device.run("sh", "-c", f"{TMPFS}; mkdir {STATE}/lost+found")
    device.run("sh", "-c", INSTALLED)
    device.run("sh", "-c", "rm /var/lib/edge-far; ln -s /mnt/ssd /var/lib/edge-far; touch /mnt/ssd/mine")
    told = device.call("sh", INSTALL[1], "--uninstall", "--purge")
    assert told.returncode == 0 and f"{STATE} is a mount and stays, empty" in told.stderr
    assert device.run("ls", "-A", STATE) == "lost+found"
    assert device.run("ls", "/var/lib/edge-far/") == "mine"


def test_an_unprivileged_container(unprivileged: Container) -> None:
    unprivileged.run(*INSTALL)
    run_a_cycle(unprivileged)


@pytest.mark.parametrize(("kind", "status"), [("mnt", 226), ("user", 217), ("net", 225)])
def test_a_container_without_namespaces(unprivileged: Container, kind: str, status: int) -> None:
    unprivileged.run("systemctl", "disable", "--now", "edge-far.timer", check=False)
    unprivileged.allow_namespaces(kind, 0)
    told = refused(unprivileged)
    unprivileged.allow_namespaces(kind, 1000)
    assert f"status {status}: Failed to set up" in told
    assert (
        "allow this container namespaces of its own (LXC: security.nesting=true), or use deploy/Containerfile" in told
    )
    unprivileged.run(*INSTALL)
