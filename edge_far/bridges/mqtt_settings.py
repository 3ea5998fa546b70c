"""How the broker is reached: a YAML file, and variables of the environment that win over it.

A password is never an argument, which every user of the machine could read.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from edge_far.errors import ConfigError
from edge_far.json_file import Damaged, Name, Within, decode
from edge_far.profile.yaml_file import read_yaml

__all__ = ["VARIABLES", "MqttSettings", "Tls", "load_settings"]

PREFIX = "EDGE_FAR_MQTT_"
VARIABLES = ("host", "port", "user", "password", "topic", "name", "discovery")
PORT, TLS_PORT = 1883, 8883
SAMPLE = "see docs/howto/home-assistant.md"


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0]) or "device"


@dataclass(frozen=True)
class Tls:
    """Files in PEM: the authorities that are trusted (None: the system's), our certificate and its key."""

    ca: Name | None = None
    certificate: Name | None = None
    key: Name | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context that checks the broker's certificate and name; raises ConfigError for an unusable file."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            named = ", ".join(filter(None, (self.ca, self.certificate, self.key)))
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"a file cannot be used: {reason}", where=f"tls: {named}") from error
        return context


@dataclass(frozen=True)
class MqttSettings:
    """The broker, and the names under which this device is known there.

    `topic` begins every topic of ours, `name` is what people read, `discovery` is Home Assistant's prefix (None: no
    discovery).
    """

    host: Name = "localhost"
    port: Annotated[int, Within(1, 65535)] | None = None
    user: Name | None = None
    password: Name | None = dataclasses.field(default=None, repr=False)
    tls: Tls | None = None
    topic: Name = dataclasses.field(default_factory=lambda: f"edge-far/{_host_name()}")
    name: Name = dataclasses.field(default_factory=lambda: f"edge-far {_host_name()}")
    discovery: Name | None = "homeassistant"

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        return self.host, self.port or (TLS_PORT if self.tls else PORT)

    @property
    def id(self) -> str:
        """Return the name of this device for machines, of letters, digits and _."""
        return re.sub(r"[^A-Za-z0-9]+", "_", self.topic).strip("_")


def load_settings(path: Path | None, environment: Mapping[str, str] = os.environ) -> MqttSettings:
    """Return the settings of a file (None: the defaults) and of the environment; raises InputMissing, ConfigError."""
    document: dict[str, Any] = {}
    if path is not None:
        found = read_yaml(path, what="settings", where_to_look=SAMPLE, sample=SAMPLE)
        if not isinstance(found, dict):
            raise ConfigError("is no list of settings", where=str(path), hint=SAMPLE)
        document = {str(key): value for key, value in found.items()}
        if document.get("password") is not None and _others_may_read(path):
            raise ConfigError("holds a password and others may read it", where=str(path), hint=f"chmod 600 {path}")
    for name in VARIABLES:
        if (value := environment.get(PREFIX + name.upper())) is not None:
            document[name] = int(value) if name == "port" and value.isdigit() else value or None
    where = str(path or f"{PREFIX}*")
    try:
        settings: MqttSettings = decode(MqttSettings, document)
    except Damaged as error:
        raise ConfigError(str(error), where=where, hint=SAMPLE) from error
    for name in ("topic", "discovery"):
        value = getattr(settings, name)
        if value is not None and not re.fullmatch(r"[^+#/\0]+(/[^+#/\0]+)*", value):
            raise ConfigError(f"'{name}' is no topic: names with / between them, without + and #", where=where)
    if settings.password is not None and settings.user is None:
        raise ConfigError("'password' is there without 'user'", where=where, hint="name the user too")
    return settings


def _others_may_read(path: Path) -> bool:
    """Say whether everybody may; a group may be the service's, and systemd's copy shows an ACL as one."""
    return bool(path.stat().st_mode & stat.S_IROTH)
