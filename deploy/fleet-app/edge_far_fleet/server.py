"""The ServerApp."""

from edge_far.fleet.server.server_app import app

__all__ = ["app"]
