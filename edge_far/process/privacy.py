"""What leaves this machine: nothing. And where packages that we use keep their caches: in ours.

ONNX Runtime's wheel tells its maker how it is used, and writes a device's number into the user's cache, unless a
variable forbids it before the import. `edge_far/__init__.py` calls `forbid_reports`: it runs before every other module
of ours, and what we start inherits it. docs/explain/privacy.md says how to check.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["NO_REPORTS", "cache_directory", "forbid_reports", "keep_caches_together"]

NO_REPORTS = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime: a number of this device, events to its maker
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub: what is installed here, in every request
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers: asks the hub to convert a model that was loaded by name
    "FLWR_TELEMETRY_ENABLED": "0",  # flwr, where an application uses it beside us
    "DO_NOT_TRACK": "1",  # whoever else listens to it
}

# Variable -> folder of our cache. Without them matplotlib writes into ~/.config and ~/.cache, torch into /tmp.
_FOREIGN_CACHES = {"MPLCONFIGDIR": "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "torch"}


def forbid_reports() -> None:
    """Forbid every package of this process and of its children to report; what the user had set is overridden."""
    os.environ.update(NO_REPORTS)


def cache_directory() -> Path | None:
    """Return the directory of caches: the service's (systemd's CacheDirectory=) or the user's, None without a home."""
    service = os.environ.get("CACHE_DIRECTORY", "").split(":")[0]
    if service:
        return Path(service)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base and Path(base).is_absolute():
        return Path(base) / "edge-far"
    home = os.environ.get("HOME", "")
    return Path(home) / ".cache" / "edge-far" if home else None


def keep_caches_together() -> None:
    """Send the caches of the workstation's packages into ours; where that cannot be written, nothing changes."""
    ours = cache_directory()
    for variable, name in _FOREIGN_CACHES.items():
        if ours is not None and variable not in os.environ:
            with suppress(OSError):
                (ours / name).mkdir(parents=True, exist_ok=True)
                if os.access(ours / name, os.W_OK):
                    os.environ[variable] = str(ours / name)
