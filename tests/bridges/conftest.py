"""Two released models with different answers, and a service that makes releases of them."""

from tests.application.releases import models, service

__all__ = ["models", "service"]
