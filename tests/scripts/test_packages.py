"""The wheel and the sdist hold what the source tree says, and the wheel works where only the device's packages are."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]
FILES = ["README.md", "deploy/install.sh", "device_profiles/a.yaml", "edge_far/__init__.py", "edge_far/device_profiles"]
FILES += ["edge_far/device/run.py", "tests/test_cli.py", ".gitignore"]
PACKAGE = ["edge_far/__init__.py", "edge_far/device/run.py", "edge_far/device_profiles/a.yaml"]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("packages", REPOSITORY / "scripts" / "packages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["packages"] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


packages = load_script()


def requirements_of(lines: Iterable[str]) -> set[str]:
    return {line.partition("#")[0].strip() for line in lines} - {""}


def test_the_device_packages_are_those_of_the_extra() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {*project["dependencies"], *project["optional-dependencies"]["device"]}
    assert requirements_of((REPOSITORY / "deploy" / "device-packages.txt").read_text().splitlines()) == wanted


def test_the_bridges_packages_are_those_of_their_extras() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = (REPOSITORY / "deploy" / "environment.sh").read_text()
    for bridge in ("mqtt", "wyoming"):
        (package,) = extras[bridge]
        assert f"{bridge}) needed='{package}'" in text


def archives(folder: Path, in_wheel: Iterable[str], in_sdist: Iterable[str]) -> object:
    built = packages.Built(folder / "edge_far-1-py3-none-any.whl", folder / "edge_far-1.tar.gz")
    with zipfile.ZipFile(built.wheel, "w") as wheel:
        for name in [*in_wheel, *(f"edge_far-1.dist-info/{name}" for name in packages.METADATA)]:
            wheel.writestr(name, "")
    with tarfile.open(built.sdist, "w:gz") as sdist:
        for name in [*in_sdist, *packages.SDIST_METADATA]:
            sdist.addfile(tarfile.TarInfo(f"edge_far-1/{name}"), io.BytesIO())
    return built


def test_a_forgotten_file_and_a_stray_one_are_named(tmp_path: Path) -> None:
    beside = ["README.md", "deploy/install.sh"]
    assert packages.wrong_files(archives(tmp_path, PACKAGE, PACKAGE + beside), FILES) == []
    stray = "edge_far/__pycache__/cli.pyc"
    built = archives(tmp_path, [*PACKAGE[:-1], stray], [*PACKAGE, "README.md", "tests/test_cli.py"])
    assert packages.wrong_files(built, FILES) == [
        "edge_far-1-py3-none-any.whl: edge_far/device_profiles/a.yaml is missing",
        f"edge_far-1-py3-none-any.whl: {stray} is not wanted",
        "edge_far-1.tar.gz: deploy/install.sh is missing",
        "edge_far-1.tar.gz: tests/test_cli.py is not wanted",
    ]


@pytest.mark.device
@pytest.mark.slow
def test_the_wheel_is_complete_and_works(tmp_path: Path, test_bundles: Path) -> None:
    """Beside the device's packages of this environment: nothing is downloaded but the tools that build, once."""
    try:
        packages.tools()
    except RuntimeError as error:
        pytest.skip(f"the tools that build are not to be had: {str(error)[-200:]}")
    built = packages.build(tmp_path / "dist")
    assert packages.wrong_files(built, packages.source_files()) == []
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    site = packages.packages_of(venv)
    packages.run([sys.executable, *packages.PIP, "--python", venv / "bin/python", "install", "--no-deps", built.wheel])
    (site / "device.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # a line's own .pth files are not read
    where = packages.run([venv / "bin/python", "-c", "import edge_far; print(edge_far.__file__)"], cwd=tmp_path)
    assert Path(where.strip()) == site / "edge_far" / "__init__.py"
    packages.use(venv, tmp_path / "use")
