"""The board: its name, RAM, the profile that fits, its cores' instructions, and how much of it we may use."""

from __future__ import annotations

import re

from edge_far.device.board.cpu import CpuShare, cpu_quota
from edge_far.device.board.kernel_files import read_text
from edge_far.device.board.known_boards import nearest_profile, size
from edge_far.device.board.memory import available_mib, cgroup_limit_mib
from edge_far.doctor.finding import UNKNOWN, Finding, Subject

__all__ = ["examine_hardware"]

# Words of /proc/cpuinfo: products of 8-bit numbers, and arithmetic in 16 bits.
DOT_PRODUCT = {"asimddp": "8-bit dot product", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX VNNI"}
HALF = {"asimdhp": "16-bit floats", "avx512_fp16": "AVX-512 FP16"}


def examine_hardware(subject: Subject) -> list[Finding]:
    """Return the findings on board, memory, profile and processor."""
    return [
        _board(subject),
        _memory(subject),
        _profile(subject),
        _instructions(subject),
        _share(subject),
        _memory_limit(subject),
    ]


def _board(subject: Subject) -> Finding:
    board = subject.board
    if board.model is None and board.processor == "unknown":
        return Finding("board", "note", UNKNOWN, "neither the device tree nor /proc/cpuinfo can be read")
    core = f", {board.core}" if board.core else f", {board.processor}" if board.processor != board.model else ""
    count = "" if board.cores is None else f", {board.cores} core{'s' * (board.cores != 1)}"
    return Finding("board", "ok", f"{board.model or 'no name'}{core}{count}")


def _memory(subject: Subject) -> Finding:
    board = subject.board
    if board.ram_mib is None or board.sold_mib is None:
        return Finding("memory", "note", UNKNOWN, "/proc/meminfo cannot be read")
    free = available_mib(subject.root)
    read = f"{board.ram_mib:.0f} MiB (sold as {size(board.sold_mib)})"
    read += "" if free is None else f", {free:.0f} MiB available"
    if board.sold_mib < 512:
        return Finding("memory", "bad", read, "the smallest profile is for 512 MB", "take a board with more memory")
    if subject.match is None or free is None:
        return Finding("memory", "ok", read)
    profile = subject.match.profile
    asked = profile.memory.budget_mib + profile.pressure.min_available_mib
    if free >= asked:
        return Finding("memory", "ok", read)
    why = (
        f"{profile.name} asks for a budget of {profile.memory.budget_mib} MiB and leaves "
        f"{profile.pressure.min_available_mib} MiB to others: {asked - free:.0f} MiB more than is available now"
    )
    room = int(free - profile.pressure.min_available_mib)
    todo = f"stop what else runs (ps aux --sort -rss | head), or train with --budget-mib {max(room, 1)}"
    return Finding("memory", "warn", read, why, todo)


def _profile(subject: Subject) -> Finding:
    match, board = subject.match, subject.board
    if match is not None:
        read = f"{match.profile.name} ({match.profile.board.description})"
        if match.exact:
            return Finding("profile", "ok", read, match.why)
        todo = f"edge-far profiles show {match.profile.name} > my-board.yaml   # and correct what differs"
        return Finding("profile", "note", read, match.why, todo)
    if board.model is None and board.processor == "unknown":
        return Finding("profile", "note", UNKNOWN, "which board it is cannot be read")
    if not board.is_arm:
        return Finding("profile", "ok", "workstation", "no board that a built-in profile names")
    near = nearest_profile(board)
    start = "edge-far profiles sample" if near is None else f"edge-far profiles show {near.name}"
    why = "no built-in profile names this board" + ("" if near is None else f"; {near.name} asks for no more RAM")
    return Finding("profile", "note", "none", why, f"{start} > my-board.yaml   # and correct what differs")


def _instructions(subject: Subject) -> Finding:
    board = subject.board
    if not board.features:
        return Finding("instructions", "note", UNKNOWN, "/proc/cpuinfo names no features")
    dot = [text for word, text in DOT_PRODUCT.items() if word in board.features]
    half = [text for word, text in HALF.items() if word in board.features]
    if not board.is_arm and "avx2" not in board.features:
        why = "the runtime's quick kernels need AVX2: training is several times slower"
        return Finding("instructions", "warn", "no AVX2", why, "edge-far plan BUNDLE   # says how slow")
    wide = ["AVX2"] if not board.is_arm else []
    read = ", ".join([*wide, *dot, *half]) or "no 8-bit dot product, no 16-bit floats"
    if dot:
        return Finding("instructions", "ok", read)
    why = "without an 8-bit dot product int8 saves memory, and little time"
    return Finding("instructions", "note", read, why)


def _share(subject: Subject) -> Finding:
    """How much of the processor this process may use: affinity, cpuset, quota."""
    allowed = re.search(
        r"^Cpus_allowed_list:\s*([0-9,-]{1,500})$", read_text(subject.root / "proc/self/status") or "", re.MULTILINE
    )
    machine = subject.board.cores
    if allowed is None or machine is None:
        return Finding("processor share", "note", UNKNOWN, "/proc/self/status or /proc/cpuinfo does not tell")
    cores = _cores(allowed[1], machine)
    quota = cpu_quota(subject.root)
    share = CpuShare(cores, machine, quota if quota is not None and quota < len(cores) else None)
    if share.quota is None and len(cores) == machine:
        return Finding("processor share", "ok", share.text)
    why = f"edge-far takes {share.most_threads} thread{'s' * (share.most_threads > 1)}: more would wait for one another"
    if share.quota is not None:
        todo = "systemctl set-property UNIT CPUQuota=   # or start the container without --cpus"
        return Finding("processor share", "warn", share.text, why, todo)
    return Finding("processor share", "note", share.text, why)


def _memory_limit(subject: Subject) -> Finding:
    limit = cgroup_limit_mib(subject.root)
    if limit is None and read_text(subject.root / "proc/self/cgroup") is None:
        return Finding("memory limit", "note", UNKNOWN, "/proc/self/cgroup cannot be read")
    if limit is None or (subject.board.ram_mib is not None and limit >= subject.board.ram_mib):
        return Finding("memory limit", "ok", "no control group limits the memory of this process")
    read = f"{limit:.0f} MiB (control group)"
    if subject.match is None or limit >= subject.match.profile.memory.budget_mib:
        return Finding("memory limit", "ok", read)
    budget = subject.match.profile.memory.budget_mib
    why = f"the budget of {subject.match.profile.name} is {budget} MiB: the kernel would kill training"
    todo = f"raise the limit (MemoryMax=, docker --memory) above {budget} MiB, or give --budget-mib {limit * 0.9:.0f}"
    return Finding("memory limit", "bad", read, why, todo)


def _cores(listed: str, machine: int) -> tuple[int, ...]:
    """Return the numbers in a list of the kernel's: 0-2,5."""
    found: set[int] = set()
    for part in listed.split(","):
        low, _, high = part.partition("-")
        if low.isdigit():
            last = int(high) if high.isdigit() else int(low)
            found.update(range(int(low), min(last, machine - 1) + 1))
    return tuple(sorted(found)) or tuple(range(machine))
