"""The bundle and the profile of a device's service: the same two options for everything that works beside it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from edge_far.bundles.bundle import open_bundle
from edge_far.commands.profile_choice import default_profile, profile_word
from edge_far.errors import UsageError

__all__ = ["add_place_arguments", "bundle_of", "profile_of"]


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


def bundle_of(options: argparse.Namespace) -> Path:
    """Return the bundle; raises UsageError where none is named."""
    if options.bundle is None:
        raise UsageError("no bundle", where="--bundle", hint="name the factory bundle, or set EDGE_FAR_BUNDLE")
    return Path(options.bundle)


def profile_of(options: argparse.Namespace) -> str:
    """Return the profile that was asked for, or the bundle's; who signed the bundle is asked once it is known."""
    profile: str | None = options.profile
    return profile or default_profile(open_bundle(bundle_of(options), signers=None).manifest.profile)
