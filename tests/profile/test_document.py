"""Device profiles: the built-in ones, every kind of wrong file, and the generated reference."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edge_far.errors import ConfigError, EdgeFarError, InputMissing, StorageError
from edge_far.profile.document import (
    SECTIONS,
    Profile,
    built_in,
    builtin_names,
    list_profiles,
    load_profile,
    reference_yaml,
)
from edge_far.profile.run_sections import Memory
from edge_far.profile.schema import REQUIRED, default_of, settings_of

ROOT = Path(__file__).parents[2]
NAMES = {
    *("rpi-zero2w-512", "rpi3b-1gb", "rpi4-2gb", "rpi4-4gb", "rpi4-8gb", "rpi5-4gb", "rpi5-8gb", "rpi5-16gb"),
    *(
        "jetson-nano-4gb",
        "jetson-xavier-nx-8gb",
        "jetson-orin-nano-8gb",
        "jetson-orin-nx-16gb",
        "workstation",
    ),
}


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(folder: Path, text: str | bytes) -> list[str]:
    """Return the lines of the error that a profile of this text raises."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    assert caught.value.exit_code == 78
    assert caught.value.where is not None
    assert caught.value.where.startswith(str(path))
    return [line.strip() for line in str(caught.value).removeprefix(f"{caught.value.where}: ").splitlines()]


def test_whose_bundles_are_opened_is_said_by_absolute_paths_and_never_by_half(tmp_path: Path) -> None:
    begin = "memory: {budget_mib: 300}\nsecurity: "
    path = write(tmp_path, begin + "{allowed_signers: /etc/edge-far/allowed_signers, revoked_keys: /etc/edge-far/r}")
    assert load_profile(path).security.allowed_signers == "/etc/edge-far/allowed_signers"
    for value in ("allowed_signers", '""', "./signers"):
        (line,) = problems(tmp_path, begin + f"{{allowed_signers: {value}}}")
        assert line.startswith("At 'security.allowed_signers': must be an absolute path, or null")
    (line,) = problems(tmp_path, begin + "{revoked_keys: /etc/edge-far/r}")
    assert line.startswith("At 'security.revoked_keys': has no effect without security.allowed_signers")


def test_the_built_in_profiles_are_the_supported_boards() -> None:
    assert set(builtin_names()) == NAMES
    assert {profile.name for profile in list_profiles()} == NAMES
    assert {path.stem for path in (ROOT / "device_profiles").glob("*.yaml")} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES - {"workstation"}))
def test_a_board_leaves_room_for_its_system(name: str) -> None:
    profile = load_profile(name)
    assert profile.board.ram_mib is not None
    assert profile.memory.budget_mib <= profile.board.ram_mib * 0.75
    assert profile.board.ram_mib - profile.memory.budget_mib >= 200
    assert profile.compute.frozen_precision == "int8"
    assert profile.compute.threads == profile.board.cores
    assert profile.board.dot_product == name.startswith(("rpi5", "jetson-orin"))
    assert profile.thermal.pause_above_celsius is not None
    # The firmware's limits: 60 degrees C on the 3B+, 80 on the other Raspberry Pis; we keep to 80 elsewhere.
    assert profile.thermal.pause_above_celsius <= (60 if name == "rpi3b-1gb" else 80)


def test_the_smallest_board() -> None:
    profile = load_profile("rpi-zero2w-512")
    assert profile.memory.budget_mib == 300
    assert profile.board.core == "cortex-a53"


def test_values_and_defaults(tmp_path: Path) -> None:
    profile = load_profile(
        write(tmp_path, "memory:\n  budget_mib: 700\nthermal:\n  pause_above_celsius: 70\ncompute:\n")
    )
    assert profile == Profile(
        name="mine",
        memory=Memory(budget_mib=700),
        thermal=dataclasses.replace(Profile(name="", memory=Memory(budget_mib=64)).thermal, pause_above_celsius=70.0),
    )
    assert type(profile.thermal.pause_above_celsius) is float
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.memory.budget_mib = 1  # type: ignore[misc]


def test_the_document_of_a_profile_loads_as_the_same_profile(tmp_path: Path) -> None:
    for profile in list_profiles():
        path = tmp_path / f"{profile.name}.yaml"
        path.write_text(yaml.safe_dump(profile.as_document()))
        assert load_profile(path) == profile


def test_every_error_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    text = """
memory: {budget_mib: lots}
compute: {threads: 0, frozen_precision: int4}
training: {batch_sise: 8, max_seq_len: 64.0}
power: {require_mains: "true"}
termal: {}
schedule: [22, 6]
"""
    assert problems(tmp_path, text) == [
        "8 errors",
        "At 'termal': unknown key; did you mean 'thermal'?",
        "At 'memory.budget_mib': must be a whole number of MiB between 64 and 1048576, not 'lots'",
        "At 'compute.threads': must be a whole number of threads between 1 and 256, not 0",
        "At 'compute.frozen_precision': must be int8 or int8-weights or fp32-compact or fp32, not 'int4'",
        "At 'training.batch_sise': unknown key; did you mean 'batch_size'?",
        "At 'training.max_seq_len': must be a whole number of tokens between 8 and 4096, not 64.0",
        "At 'power.require_mains': must be true or false, not 'true' (without quotes)",
        "At 'schedule': must be a mapping of allowed_hours, not a list",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("memory: {budget_mib: 300MB}", "not '300MB' (the number alone, in MiB: 300MB is 286)"),
        ("memory: {budget_mib: 1.5 GiB}", "not '1.5 GiB' (the number alone, in MiB: 1.5 GiB is 1536)"),
        ("memory: {budget_mib: 300 furlongs}", "not '300 furlongs' (the number alone, in MiB)"),
        ("memory: {budget_mib: '300'}", "not '300' (without quotes)"),
        ("memory: {budget_mib: true}", "not true"),
        ("memory: {budget_mib: null}", "not nothing"),
        ("memory: {budget_mib: 63}", "not 63"),
        ("memory: {budget_mib: 1e400}", "not '1e400'"),
        ("memory: {budget_mib: .nan}", "not a number beyond all bounds"),
        ("memory: {budget_mib: " + "9" * 400 + "}", "not a number beyond all bounds"),
        ("memory: {budget_mib: 2001-01-01}", "not '2001-01-01'"),
    ],
)
def test_a_wrong_amount(tmp_path: Path, line: str, problem: str) -> None:
    assert problems(tmp_path, line) == [
        f"At 'memory.budget_mib': must be a whole number of MiB between 64 and 1048576, {problem}"
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "memory: {budget_mib: 300, budget_mb: 9}",
            "'memory.budget_mb': unknown key; did you mean 'budget_mib', in MiB?",
        ),
        ("thermal: {pause_above_f: 160}", "did you mean 'pause_above_celsius', in degrees Celsius?"),
        (
            "thermal: {pause_above_celsius: 75C}",
            "not '75C' (the number alone, in degrees Celsius: 75C is 75)",
        ),
        ("thermal: {pause_above_celsius: 75F}", "not '75F' (the number alone, in degrees Celsius)"),
        ("thermal: {pause_above_celsius: .inf}", "or null, not a number beyond"),
        ("budget_mib: 300", "At 'budget_mib': unknown key; did you mean 'memory.budget_mib'?"),
        ("compute: {zzz: 1}", "At 'compute.zzz': unknown key; known here are threads, frozen_precision"),
        ("7: 1", "At '7': unknown key; known here are memory"),
        ("schedule: {allowed_hours: '22:00'}", "as HH:MM-HH:MM in quotes, or null, not '22:00'"),
        ("schedule: {allowed_hours: 22:00}", "not 1320 (put it in quotes)"),
        ("schedule: {allowed_hours: '06:00-06:00'}", "two different times"),
        ("schedule: {allowed_hours: '24:00-06:00'}", "not '24:00-06:00'"),
        ("board: {description: 4}", "must be text on one line, not 4 (put it in quotes)"),
        ('board: {description: "two\\nlines"}', "not 'two\\nlines'"),
        ("thermal: {resume_below_celsius: 75}", "must be below pause_above_celsius (75), not 75"),
        ("thermal: {resume_below_celsius: null}", "At 'thermal': set both limits, or both to null"),
        ("board: {ram_mib: 320}", "'memory.budget_mib': must be below 256, which is board.ram_mib less"),
        ("board: {cores: 2}", "At 'compute.threads': must be at most board.cores (2), not 4"),
    ],
)
def test_a_wrong_line(tmp_path: Path, line: str, problem: str) -> None:
    memory = "" if line.startswith("memory") else "memory: {budget_mib: 300}\n"
    (only,) = problems(tmp_path, memory + line)
    assert problem in only


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (b"", None, "is empty"),
        (b"# nothing but a comment\n", None, "is empty"),
        (b"memory:\n  budget_mib: 300\n# caf\xe9\n", 3, "is not UTF-8 text (byte 0xe9)"),
        (b"memory: {budget_mib: 300\n", 2, "is not valid YAML"),
        (b"memory:\n\tbudget_mib: 300\n", 2, "is not valid YAML"),
        (
            b"memory:\n  budget_mib: 300\n  budget_mib: 400\n",
            3,
            "the key 'budget_mib' is there already, at line 2",
        ),
        (b"memory: {budget_mib: 300}\nmemory: {}\n", 2, "the key 'memory' is there already, at line 1"),
        (b"memory: &m {budget_mib: 300}\npower: *m\n", 2, "an alias (*name) is not allowed here"),
        (b"memory: !!python/object/apply:os.getpid []\n", 1, "could not determine a constructor"),
        (b"? [a]\n: b\n", 1, "found unhashable key"),
        (b"memory: !!map x\n", 1, "expected a mapping node, but found scalar"),
        (b"a: 1\n---\nb: 2\n", 2, "expected a single document"),
        (b"memory: {budget_mib: 2001-99-99}\n", None, "is not valid YAML: month must be in 1..12"),
        (b"memory: {budget_mib: " + b"9" * 5000 + b"}\n", None, "is not valid YAML"),
        (b"memory: \x00\n", None, "is not valid YAML"),
        (b"[" * 20000, None, "is not valid YAML"),
        (b"# " + b"x" * 300_000, None, "is larger than 256 KiB"),
        (b"just text\n", None, "must be a mapping of sections (memory, compute"),
    ],
)
def test_a_file_that_is_no_profile(tmp_path: Path, text: bytes, line: int | None, problem: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    assert caught.value.where == (f"{path}:{line}" if line else str(path))
    assert problem in caught.value.message
    assert "\n" not in str(caught.value)


def test_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert load_profile(write(tmp_path, b"\xef\xbb\xbfmemory: {budget_mib: 99}")).memory.budget_mib == 99


def test_a_missing_file_and_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="no such profile file") as missing:
        load_profile(tmp_path / "none.yaml")
    assert missing.value.exit_code == 66
    with pytest.raises(ConfigError, match="did you mean rpi4-2gb or rpi4-4gb or rpi4-8gb"):
        load_profile("rpi4")
    with pytest.raises(ConfigError, match="did you mean rpi-zero2w-512"):
        load_profile("rpi-zero-2w")
    with pytest.raises(ConfigError, match="built in are jetson-nano-4gb, "):
        load_profile("")
    with pytest.raises(InputMissing, match=r"is a directory, not a file [(]start from"):
        load_profile(f"{tmp_path}/")


def test_the_sample_is_valid_and_shows_every_field(tmp_path: Path) -> None:
    load_profile(write(tmp_path, reference_yaml()))
    sample = yaml.safe_load(reference_yaml())
    assert list(sample) == list(SECTIONS)
    for name, section in SECTIONS.items():
        known = settings_of(section)
        assert list(sample[name]) == list(known) == [field.name for field in dataclasses.fields(section)]
        for key, (rules, _) in known.items():
            if rules.example is None:
                assert sample[name][key] == default_of(section, key)
    assert default_of(Memory, "budget_mib") is REQUIRED


def test_the_defaults_obey_their_own_rules(tmp_path: Path) -> None:
    defaults = Profile(name="mine", memory=Memory(budget_mib=64))
    assert load_profile(write(tmp_path, yaml.safe_dump(defaults.as_document()))) == defaults


def test_the_docs_hold_the_generated_sample() -> None:
    text = (ROOT / "docs" / "reference" / "profiles.md").read_text()
    _, _, rest = text.partition("<!-- edge-far profiles sample -->\n```yaml\n")
    assert rest.partition("```\n")[0] == reference_yaml(), "paste the output of: edge-far profiles sample"


def test_loading_needs_neither_numpy_nor_torch() -> None:
    code = (
        "import sys; from edge_far.profile.document import load_profile; load_profile('rpi4-2gb');"
        "print(sorted({'numpy', 'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("r" * 300, ConfigError),
        ("r" * 300 + ".yaml", StorageError),
        ("a\0b", ConfigError),
        ("a\0b.yaml", InputMissing),
        ("\ud800/b", InputMissing),
        ("\ud800", ConfigError),
    ],
)
def test_a_name_that_no_file_can_have(name: str, kind: type[EdgeFarError]) -> None:
    """Of a profile that status.json names, for example: told as the profile's fault, whatever the system says."""
    with pytest.raises(kind):
        load_profile(name)


@pytest.mark.parametrize("name", ["", "rpi9", "../../etc/profile.yaml", "/etc/hosts", "a\nb"])
def test_a_bundle_names_a_built_in_profile_or_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rpi9").write_text("memory: {budget_mib: 300}")  # a file here is not meant
    with pytest.raises(ConfigError, match="is not built in here") as raised:
        built_in(name)
    assert raised.value.where == "--profile"
    assert built_in("rpi4-2gb") == "rpi4-2gb"
