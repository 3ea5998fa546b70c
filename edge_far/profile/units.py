"""The unit of a setting with the bounds that go with it, the same in every section of a profile."""

from __future__ import annotations

from typing import Any

__all__ = ["IN_CELSIUS", "IN_MIB", "IN_PERCENT"]

IN_MIB: dict[str, Any] = {"unit": "MiB", "maximum": 1048576}
IN_CELSIUS: dict[str, Any] = {"unit": "degrees Celsius", "minimum": 30, "maximum": 120}
IN_PERCENT: dict[str, Any] = {"unit": "percent", "minimum": 0, "maximum": 100}
