"""Connect the service with MQTT: examples and feedback in, status and releases out, a button that asks for a cycle.

The broker is named in a YAML file (--config) or in variables (EDGE_FAR_MQTT_HOST, _PORT, _USER, _PASSWORD, _TOPIC,
_NAME, _DISCOVERY), which win; a password is never an argument. Needs the extra mqtt. It runs until SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.console import Console
from edge_far.daemon.intake.spool import DEFAULT_SPOOL

EXAMPLES = """examples:
  edge-far bridge mqtt --config /etc/edge-far/mqtt.yaml
  EDGE_FAR_MQTT_HOST=broker.lan edge-far bridge mqtt
  edge-far bridge mqtt --config mqtt.yaml --shown state --spool state/spool    # beside 'edge-far daemon --state state'
"""

SHOWN = Path("/run/edgefar")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far bridge`."""
    parser.add_argument("kind", choices=("mqtt",), help="what to connect with")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of the broker (mode 0600)")
    parser.add_argument(
        "--shown",
        type=Path,
        default=SHOWN,
        metavar="DIR",
        help="where the service shows status and model: this, or its state directory (default: %(default)s)",
    )
    parser.add_argument(
        "--spool", type=Path, default=DEFAULT_SPOOL, metavar="DIR", help="the daemon's (default: %(default)s)"
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run until a signal; the document says what came in."""
    from edge_far.bridges.mqtt_bridge import Bridge
    from edge_far.bridges.mqtt_settings import load_settings
    from edge_far.bridges.stopping import until_signal

    bridge = Bridge(load_settings(options.config), options.shown, options.spool, console)
    with until_signal() as stop:
        bridge.run(stop)
    return dict(vars(bridge.counts))


def render(document: dict[str, Any]) -> str:
    """Return one line."""
    return (
        f"{document['handed_over']} handed over, {document['refused']} refused, {document['asked']} asked for a cycle"
    )
