"""Print `name==version` of all that the device extra needs, as this interpreter has it (device environment).

The emulated root gets exactly these versions, so that only the processor differs between the two runs.
"""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def pinned_requirements(root: str, extra: str) -> list[str]:
    """The closure of one distribution's requirements with an extra, itself left out, sorted."""
    pins: dict[str, str] = {}
    waiting = [(root, extra)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        distribution = metadata.distribution(name)
        pins[name] = distribution.version
        for line in distribution.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": wanted}):
                needed = canonicalize_name(requirement.name)
                waiting += [(needed, nested) for nested in ("", *requirement.extras)]
    del pins[root]
    return sorted(f"{name}=={version}" for name, version in pins.items())


if __name__ == "__main__":
    print("\n".join(pinned_requirements("edge-far", "device")))
