"""The ClientApp."""

from edge_far.fleet.board.client_app import app

__all__ = ["app"]
