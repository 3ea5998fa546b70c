"""The bundle and the profile of a device's service: the same two options for everything that works beside it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edge_far.bundles.bundle import open_bundle
from edge_far.commands.profile_choice import default_profile, profile_word
from edge_far.errors import UsageError

if TYPE_CHECKING:
    from edge_far.daemon.context import Places

__all__ = ["add_place_arguments", "places_of"]


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --bundle and --profile, which the service's environment names as well."""
    parser.add_argument(
        "--bundle",
        type=Path,
        default=os.environ.get("EDGE_FAR_BUNDLE"),
        metavar="BUNDLE",
        help="the factory bundle (default: EDGE_FAR_BUNDLE)",
    )
    parser.add_argument(
        "--profile",
        type=profile_word,
        default=os.environ.get("EDGE_FAR_PROFILE"),
        help="device profile: a name, a YAML file, or auto, this board's where it is known (default: EDGE_FAR_PROFILE, "
        "or the bundle's; auto for a bundle that was exported for no board)",
    )


def places_of(options: argparse.Namespace) -> Places:
    """Return where the service finds what it works with; raises UsageError where no bundle is named.

    Without --profile it is the bundle's; who signed the bundle is asked once the profile is known.
    """
    from edge_far.daemon.context import Places

    if options.bundle is None:
        raise UsageError("no bundle", where="--bundle", hint="name the factory bundle, or set EDGE_FAR_BUNDLE")
    bundle = Path(options.bundle)
    profile = options.profile or default_profile(open_bundle(bundle, signers=None).manifest.profile)
    return Places(options.state, bundle, profile, options.spool, options.sensors_root)
