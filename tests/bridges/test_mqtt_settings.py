"""Where the broker's settings come from, and what is refused of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_far.bridges.mqtt_settings import Tls, load_settings
from edge_far.errors import ConfigError, EdgeFarError, InputMissing


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "mqtt.yaml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_file_the_environment_and_the_defaults(tmp_path: Path) -> None:
    defaults = load_settings(None, {})
    assert defaults.address == ("localhost", 1883) and defaults.topic.startswith("edge-far/")
    path = written(tmp_path, "host: broker\nuser: me\npassword: one\ntopic: home/hall\ntls: {ca: /ca.pem}\n")
    settings = load_settings(path, {"EDGE_FAR_MQTT_PASSWORD": "two", "EDGE_FAR_MQTT_DISCOVERY": ""})
    assert settings.address == ("broker", 8883) and settings.tls == Tls(ca="/ca.pem")
    assert (settings.user, settings.password, settings.discovery) == ("me", "two", None)
    assert settings.id == "home_hall" and "two" not in repr(settings)
    assert load_settings(None, {"EDGE_FAR_MQTT_HOST": "h", "EDGE_FAR_MQTT_PORT": "99"}).address == ("h", 99)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("hosts: broker\n", "'hosts' is unknown"),
        ("port: 0\n", "'port' is 0, not from 1 to 65535"),
        ("- host\n", "is no list of settings"),
        ("topic: home/+\n", "'topic' is no topic"),
        ("topic: /home\n", "'topic' is no topic"),
        ("user: me\npassword: 7\n", "'password' is 7, not a text"),
        ("password: secret\n", "'password' is there without 'user'"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(written(tmp_path, text), {})
    assert wrong in str(raised.value) and "mqtt.yaml" in str(raised.value)


def test_a_password_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"others may read it \(chmod 600"):
        load_settings(written(tmp_path, "user: me\npassword: secret\n", 0o644), {})
    assert load_settings(written(tmp_path, "user: me\n", 0o644), {"EDGE_FAR_MQTT_PASSWORD": "x"}).password == "x"


def test_missing_files_and_a_port_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="no such settings file"):
        load_settings(tmp_path / "mqtt.yaml", {})
    with pytest.raises(ConfigError, match="not a whole number"):
        load_settings(None, {"EDGE_FAR_MQTT_PORT": "many"})
    with pytest.raises(EdgeFarError, match=r"tls: /no/ca\.pem: a file cannot be used: No such file"):
        Tls(ca="/no/ca.pem").context()
