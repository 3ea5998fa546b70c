from pathlib import Path


def write_ort_artifacts(directory: Path, folded, learners, values, console) -> bool:
    return False
