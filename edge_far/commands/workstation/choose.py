"""Try the ladder's rungs on training data and say which one to export (workstation: needs torch).

Every rung (the head alone, the last blocks, all blocks) trains on a part of the data as a device would train it, and is
measured on the rest. Taken is the cheapest that is not measurably worse than the best. `edge-far export --method auto`
does the same; this command shows the table without compiling anything, and can draw it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.commands.workstation import export
from edge_far.console import Console
from edge_far.errors import Unavailable, UsageError
from edge_far.process.packages import install_line
from edge_far.process.privacy import keep_caches_together
from edge_far.storage import check_file

EXAMPLES = """examples:
  edge-far choose --model ./all-MiniLM-L6-v2 --train train.jsonl
  edge-far choose --model ./all-MiniLM-L6-v2 --train train.jsonl --choose-minutes 10 --picture choice.png
  edge-far choose --model ./all-MiniLM-L6-v2 --train train.jsonl --board board.json    # and a run's time there
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far choose`: those of `edge-far export` that matter here."""
    export.add_source_arguments(parser)
    parser.add_argument("--choose-minutes", **export.CHOOSE_MINUTES)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw quality against work, a PNG")
    parser.add_argument(
        "--board",
        type=Path,
        metavar="FILE",
        help="what 'edge-far doctor --bench --json' printed on the board: also tell what a run takes there, at least",
    )
    export.add_far_arguments(parser.add_argument_group("FAR"))
    export.add_training_arguments(parser.add_argument_group("training"))
    parser.set_defaults(
        method="auto",
        out=Path(),
        frozen_precision="fp32",
        no_ort=True,
        reserve_labels=0,
        attention=None,
        attention_retention=None,
        embeddings=None,
        start="continue",
        head_start="auto",
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Choose; the document is the choice."""
    from edge_far.profile.document import load_profile

    keep_caches_together()
    _check_picture(options.picture)
    profile = load_profile(options.profile)
    export.check_model(options.model)
    board = None
    if options.board is not None:
        from edge_far.report.board_time import read_board_speed

        board = read_board_speed(options.board)
    settings = export.settings_from(options, profile)
    try:
        from edge_far.compile.pipeline import choose_only
    except ImportError as error:
        raise Unavailable(
            f"choose needs the workstation's packages, and {error.name} is missing", hint=install_line("host")
        ) from error
    document = choose_only(settings, console)
    if board is not None:
        for row in (*document["rows"], document["chosen"]):
            row["board_seconds"] = round(board.seconds(row["gflop"], document["width"]), 1)
    if options.picture is not None:
        from edge_far.report.ladder import draw_ladder

        draw_ladder(document, options.picture)
    return document


def _check_picture(picture: Path | None) -> None:
    """Refuse before the trials what could not be drawn after them."""
    if picture is None:
        return
    from edge_far.report.plot import drawing

    if picture.suffix.lower() != ".png":
        raise UsageError(f"'{picture}' is not a .png file", where="--picture", hint="name it FILE.png")
    check_file(picture)
    drawing()


def render(document: dict[str, Any]) -> str:
    """Return the table and the reason."""
    from edge_far.choice.outcome import as_table

    chosen = document["chosen"]
    lines = [as_table(document["rows"], chosen), "", f"* {document['reason']}"]
    if document["left_out"]:
        lines.append(f"  not tried on all examples: {', '.join(document['left_out'])}")
    method = f"--method {chosen['method']} --pooling {chosen['pooling']} --learning-rate {chosen['learning_rate']:g}"
    by_heads = " --attention heads" if chosen["attention"] == "heads" else ""
    lines.append(f"next    edge-far export --model MODEL --train FILE {method}{by_heads} --out BUNDLE")
    return "\n".join(lines)
