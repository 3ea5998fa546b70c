"""All targets, by the environment that can run them."""

from __future__ import annotations

import importlib.util

from tests.fuzz.targets.base import Target
from tests.fuzz.targets.bundles import BundleDocuments, BundleTokenizer, Learners, ManifestFile
from tests.fuzz.targets.calibrations import CalibrationFile
from tests.fuzz.targets.doctor import SystemTree
from tests.fuzz.targets.options import Options
from tests.fuzz.targets.profiles import ProfileFile
from tests.fuzz.targets.releases import ReleasedModel, StateDocuments
from tests.fuzz.targets.runs import FinishedRun, InterruptedRun, RunLogFile
from tests.fuzz.targets.sensors import SensorTree
from tests.fuzz.targets.spool import SpoolFiles
from tests.fuzz.targets.texts import CsvFile, JsonlFile, StandardInput, TsvFile

__all__ = ["DEVICE_TARGETS", "targets_here"]

DEVICE_TARGETS: tuple[type[Target], ...] = (
    *(JsonlFile, CsvFile, TsvFile, StandardInput, SpoolFiles, ManifestFile, ProfileFile, Learners, BundleTokenizer),
    *(BundleDocuments, FinishedRun, InterruptedRun, RunLogFile, ReleasedModel, StateDocuments, SensorTree, Options),
    *(SystemTree, CalibrationFile),
)


def targets_here() -> tuple[type[Target], ...]:
    """Return the targets of this environment: with torch those of the model to export, else those of the device."""
    if importlib.util.find_spec("torch") is None:
        return DEVICE_TARGETS
    from tests.fuzz.targets.models import HOST_TARGETS

    return HOST_TARGETS
