"""Documents of a bundle and of a run whose hash is right and whose content is not: 65, one line, nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_far.bundles.arrays import read_learners, write_arrays
from edge_far.bundles.bundle import Bundle, open_bundle
from edge_far.commands.adaptation.status import last_settings
from edge_far.commands.common import read_result
from edge_far.device.engine.backend import DropoutKey
from edge_far.device.engine.constants import MappedConstants
from edge_far.device.release_files import write_release
from edge_far.errors import BundleError
from edge_far.texts.batches import Batch
from tests.fuzz.targets.bundles import rehashed

Change = Callable[[Any], Any]


def changed(root: Path, original: Path, name: str, change: Change) -> Bundle:
    """Return a copy of a bundle in which one document has changed, and its hash in the manifest with it."""
    shutil.copytree(original, root)
    document = json.loads((root / name).read_bytes())
    replaced = change(document)
    content = json.dumps(document if replaced is None else replaced).encode()
    (root / name).write_bytes(content)
    manifest = rehashed((root / "manifest.json").read_bytes(), name, content)
    (root / "manifest.json").write_bytes(manifest)
    return open_bundle(root)


def first(entries: dict[str, Any]) -> Any:
    return next(iter(entries.values()))


def composed(document: dict[str, Any]) -> Any:
    return next(value for value in document["layout"]["parameters"].values() if not isinstance(value, str))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: [],
        lambda d: d.pop("layout"),
        lambda d: d.update(regions={}),
        lambda d: first(d["regions"]).pop("offset"),
        lambda d: first(d["regions"]).update(offset=-4),
        lambda d: first(d["regions"]).update(offset=2**40),
        lambda d: first(d["regions"]).update(length=3),
        lambda d: first(d["regions"]).update(shape=[2**40, 2**40]),
        lambda d: d["layout"]["parameters"].pop(next(iter(d["regions"]))),
        lambda d: composed(d).update(axis=2),
        lambda d: composed(d).update(block=99),
        lambda d: composed(d).update(learner=7),
        lambda d: d["layout"]["groups"]["nodes"]["learners"][0].append(10**6),
        lambda d: d["layout"]["groups"]["nodes"]["learners"][0].append(-1),
        lambda d: d["layout"]["groups"]["nodes"].update(width=2),
        lambda d: d["layout"]["groups"].pop("nodes"),
    ],
)
def test_a_damaged_release_document(change: Change, tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> None:
    bundle = changed(tmp_path / "bundle", tiny_bundle("tiny-fp32").root, "portable/release.json", change)
    learners = read_learners(bundle.path("learners.safetensors"))
    with pytest.raises(BundleError) as raised:
        write_release(bundle, learners, tmp_path / "model")
    assert raised.value.where == str(tmp_path / "bundle" / "portable/release.json")
    assert str(raised.value).isprintable()
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: [],
        lambda d: d.pop("step"),
        lambda d: first(d["step"]).update(offset=-1),
        lambda d: first(d["step"]).update(offset=2**60),
        lambda d: first(d["step"]).update(offset=first(d["step"])["offset"] + 1),
        lambda d: first(d["step"]).update(shape=[2**62, 4]),
        lambda d: first(d["step"]).update(dtype="object"),
        lambda d: first(d["step"]).update(random_access="yes"),
    ],
)
def test_damaged_constants(change: Change, tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> None:
    import onnxruntime as ort

    bundle = changed(tmp_path / "bundle", tiny_bundle("tiny-fp32").root, "portable/constants.json", change)
    with pytest.raises(BundleError) as raised:
        MappedConstants(bundle).give_to(ort.SessionOptions(), "step")
    assert raised.value.where == str(tmp_path / "bundle" / "portable/constants.json")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_learners_that_are_not_numbers(value: float, tmp_path: Path) -> None:
    write_arrays(tmp_path / "a", {"good": np.zeros(3, np.float32), "bad": np.array([1, value], np.float32)})
    with pytest.raises(BundleError, match="bad holds infinity or NaN"):
        read_learners(tmp_path / "a")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"steps": NaN}', "[" * 100_000])
def test_a_damaged_result(content: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(BundleError, match=r"the run is damaged: result\.json"):
        read_result(tmp_path)


@pytest.mark.parametrize(
    "settings", [{"profile": 7}, {"memory_limit_mib": "much"}, {"memory_limit_mib": float("inf")}, [], None]
)
def test_damaged_settings_of_the_daemon_count_as_none(settings: object, tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text(json.dumps({"daemon": {"settings": settings}}))
    assert last_settings(path) == {}
    path.write_text(json.dumps({"daemon": {"settings": {"profile": "rpi4-2gb", "memory_limit_mib": 300.0}}}))
    assert last_settings(path) == {"profile": "rpi4-2gb", "memory_limit_mib": 300.0}


@pytest.mark.device
def test_a_manifest_that_does_not_fit_its_graphs(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from edge_far.device.engine.session import PortableBackend

    bundle = tiny_bundle("tiny-fp32")
    unmasked = replace(bundle, manifest=replace(bundle.manifest, portable=replace(bundle.manifest.portable, masks=())))
    learners = read_learners(bundle.path("learners.safetensors"))
    ids = np.ones((1, 8), np.int64)
    backend = PortableBackend(unmasked, learners, 1, dropout=True)
    with pytest.raises(BundleError, match=r"its graphs do not fit manifest\.json"):
        backend.accumulate(Batch(ids, ids, None, ids[0, :1]), 1.0, DropoutKey(0, 0, 0))
    assert capfd.readouterr().err == ""
