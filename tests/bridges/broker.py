"""A real mosquitto on the loopback, and somebody who listens and speaks there."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

USER, PASSWORD = "edge", "s3cret word"
NAMES = ("mosquitto", "mosquitto_passwd", "openssl")


def program(name: str) -> str | None:
    """Return where a program is; Debian's mosquitto lies in /usr/sbin."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def missing() -> str | None:
    """Return why these tests cannot run here, or None."""
    absent = [name for name in NAMES if program(name) is None]
    return f"{', '.join(absent)} not installed (apt install mosquitto openssl)" if absent else None


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Wait until a condition holds; return what it returned."""
    ends = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)
    return found


class Broker:
    """One mosquitto with two listeners: one for everybody, one with TLS and a password."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.tls_port = free_port(), free_port()
        self.certificate = folder / "certificate.pem"
        key, passwords = folder / "key.pem", folder / "passwords"
        self._call("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        self._call("mosquitto_passwd", "-b", "-c", str(passwords), USER, PASSWORD)
        lines = ["per_listener_settings true", "persistence true", f"persistence_location {folder}/"]
        lines += [f"user {getpass.getuser()}"]  # started by root, it would work as a user who may not look in here
        lines += [f"listener {self.port} 127.0.0.1", "allow_anonymous true"]
        lines += [f"listener {self.tls_port} 127.0.0.1", "allow_anonymous false", f"password_file {passwords}"]
        lines += [f"certfile {self.certificate}", f"keyfile {key}"]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self.start()

    def start(self) -> None:
        """Start, and wait until both listeners are there."""
        command = [program("mosquitto") or "", "-c", str(self.folder / "mosquitto.conf")]
        self._log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        wait_for(
            lambda: self._process.poll() is not None or (self._answers(self.port) and self._answers(self.tls_port))
        )
        assert self._process.poll() is None, (self.folder / "log").read_text()

    def stop(self) -> None:
        """End it in good order: it keeps the sessions of those who come back."""
        self._process.terminate()
        self._process.wait(10)
        self._log.close()

    def _call(self, name: str, *words: str) -> None:
        command = [program(name) or "", *words]
        if name == "openssl":
            command += ["-keyout", str(self.folder / "key.pem"), "-out", str(self.certificate), "-days", "2"]
            command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        subprocess.run(command, check=True, capture_output=True)

    @staticmethod
    def _answers(port: int) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False


class Listener:
    """Somebody at the broker's open listener, who hears everything and speaks."""

    def __init__(self, port: int) -> None:
        from paho.mqtt import client as mqtt

        self.heard: list[tuple[str, str]] = []
        subscribed: list[bool] = []

        def hear(client: Any, data: Any, message: Any) -> None:
            self.heard.append((message.topic, message.payload.decode("utf-8", "replace")))

        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_message = hear
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)  # after every break
        self._client.on_subscribe = lambda *_: subscribed.append(True)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_for(lambda: subscribed)

    def last(self, topic: str) -> str | None:
        """Return what was said last on a topic."""
        return next((text for name, text in reversed(self.heard) if name == topic), None)

    def say(self, topic: str, text: str | bytes, *, keep: bool = False) -> None:
        """Say something, and wait until the broker has it."""
        self._client.publish(topic, text, 1, retain=keep).wait_for_publish(10)

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()
