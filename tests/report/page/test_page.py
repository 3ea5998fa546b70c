"""The page is one file that loads nothing, runs nothing, and shows what data hold as text."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from random import Random

import pytest

from edge_far.json_file import Damaged, decode
from edge_far.report.page.choice_section import check_choice, choice_section
from edge_far.report.page.evaluation_section import MOST_LABELS, check_evaluation, evaluation_section
from edge_far.report.page.learners_section import Selected, learners_section
from edge_far.report.page.markup import escaped
from edge_far.report.page.nights_section import nights_section
from edge_far.report.page.run_section import run_section
from edge_far.report.page.svg import Chart, Scale, spread, ticks
from edge_far.report.runlog import EvalPoint, RunLog, StepPoint
from tests.fuzz.mutate import mutate_document
from tests.report.page.sample import (
    ANCHORS,
    HOSTILE,
    Parsed,
    a_log,
    choice,
    evaluation,
    nights,
    selection,
    selection_document,
    whole_page,
)

ALLOWED = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "h1",
        "h2",
        "h3",
        "p",
        "nav",
        "ul",
        "li",
        "a",
    ),
    *("section", "footer", "dl", "div", "dt", "dd", "b", "span", "figure", "figcaption", "details", "summary", "table"),
    *("thead", "tbody", "tr", "th", "td", "svg", "line", "text", "path", "circle", "rect"),
}


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    return Parsed(whole_page())


def test_it_is_well_formed_and_of_known_elements(parsed: Parsed) -> None:
    assert parsed.open == [] and {tag for tag, _ in parsed.elements} <= ALLOWED


def test_it_loads_nothing_and_runs_nothing(parsed: Parsed) -> None:
    for tag, attributes in parsed.elements:
        assert not {"src", "srcset", "action", "style", "xlink:href", "data", "poster"} & attributes.keys(), tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert (attributes.get("href") or "#").startswith("#"), tag
        assert "url(" not in "".join(value or "" for value in attributes.values())
    assert "url(" not in whole_page() and "@import" not in whole_page() and "://" not in whole_page()


def test_its_policy_allows_its_own_style_sheet_alone(parsed: Parsed) -> None:
    (policy,) = (
        each["content"] for each in parsed.named("meta") if each.get("http-equiv") == "Content-Security-Policy"
    )
    (style,) = (data for tag, data in parsed.texts if tag == "style")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_every_section_is_there_and_linked(parsed: Parsed) -> None:
    assert [each["id"] for each in parsed.named("section")] == ANCHORS
    assert [each["href"] for each in parsed.named("a")] == [f"#{anchor}" for anchor in ANCHORS]


def test_what_data_hold_is_text(parsed: Parsed) -> None:
    assert HOSTILE not in whole_page()
    for where in ("title", "h1", "h2", "p", "td", "text"):
        assert any(HOSTILE[:8] in data for tag, data in parsed.texts if tag == where), where
    assert escaped("\x1b[31m<\u202e&\"'") == "\\x1b[31m&lt;\\u202e&amp;&quot;&#x27;"


def test_every_drawing_says_what_it_shows_and_has_its_numbers(parsed: Parsed) -> None:
    drawings = list(parsed.named("svg"))
    assert len(drawings) == 9 and all(each["role"] == "img" and each["aria-label"] for each in drawings)
    tables = [data for tag, data in parsed.texts if tag == "summary"]
    assert len(tables) == 9  # the nights' is one table for drawing and list


def test_numbers_of_the_tables_are_those_of_the_data() -> None:
    cells = [data for tag, data in Parsed(run_section("r", a_log(), 1).body).texts if tag == "td"]
    assert {"175", "60.00%", "350", "70.00%", "700", "90.00%"} <= set(cells)
    tiles = Parsed(run_section("r", a_log(), 1).body).text
    assert "240 MiB" in tiles and "budget 300 MiB" in tiles and "350.0 s" not in tiles and "5.8 minutes" in tiles
    rows = Parsed(nights_section(nights(), None).body).text
    for word in ("000001-ab", "85.00%", "80.00%", "the trainer died", "under way", "1 released"):
        assert word in rows
    assert "-" in [data for tag, data in Parsed(nights_section(nights(), None).body).texts if tag == "td"]


def test_learners_are_drawn_where_they_are() -> None:
    body = learners_section(selection(), 40, 4).body
    told = Parsed(body).text
    assert "block 1: 3 of 40 nodes learn" in told and "6 of 40" not in told
    assert "block 1, head 2: learns, metric 0.0003" in told and "block 1, head 1: is frozen" in told
    assert re.findall(r"M([\d.]+) 20v11h7.8v-11z", body) == ["53.8", "84.8", "348.2"]  # places 1, 5 and 39 of 40


def test_a_place_of_many_nodes_is_as_dark_as_the_share_that_learns() -> None:
    block = replace(selection().blocks[1], learners=(0, 1, 2, 3, 999), count=5)
    body = learners_section(replace(selection(), blocks=(block,), attention=None), 1000, 4).body
    # A hundred places of ten nodes: four of the first ten learn, and one of the last.
    assert re.findall(r'fill-opacity="([\d.]+)" d="M([\d.]+) ', body) == [("0.4", "352.9"), ("1", "46.0")]


def test_a_matrix_of_many_labels_shows_those_with_most_mistakes() -> None:
    document = evaluation(tuple(f"label-{number}" for number in range(40)))
    document["classes"]["label-7"] = {"support": 30, "predicted": 9, "correct": 8}
    told = Parsed(evaluation_section(document).body)
    assert f"the {MOST_LABELS} labels of 40 with the most mistakes" in told.text
    cells = [data for tag, data in told.texts if tag == "td"]
    assert cells[0] == "label-7" and cells.count("label-39") == 1 and "label-8 (1)" in cells


def test_an_evaluation_of_numbers_has_no_matrix() -> None:
    document = {"task": "regress", "examples": 9, "loss": 0.5, "data": "x", "pearson": 0.5}
    check_evaluation(document)
    assert "<svg" not in evaluation_section(document).body


@pytest.mark.parametrize("logged", [1, 2])
def test_a_short_run_without_anything_else(logged: int) -> None:
    steps = [StepPoint(n, float(n), 1.0) for n in range(1, logged + 1)]
    told = Parsed(run_section("r", RunLog(steps=steps), 1).body).text
    assert "Not measured" in told
    log = RunLog(steps=steps, evals=[EvalPoint(1, "pearson", -0.25)], memory=[(1.0, 20.0)])
    assert "-0.250" in Parsed(run_section("r", log, 1).body).text


def test_a_device_without_a_night() -> None:
    assert "No cycle has run yet." in nights_section([], None).body


def test_damaged_documents_are_told() -> None:
    for spoil in ({"rows": []}, {"score": "luck"}, {"chosen": 3}):
        with pytest.raises(Damaged):
            check_choice({**choice(), **spoil})
    check_choice(choice())
    for spoiled in ({}, {**evaluation(), "loss": "x"}, {**evaluation(), "classes": {"on": {}}}):
        with pytest.raises(Damaged):
            check_evaluation(spoiled)
    check_evaluation(evaluation())


@pytest.mark.parametrize("kind", ["choice", "selection", "evaluation"])
def test_changed_documents_are_refused_or_drawn(kind: str) -> None:
    drawn = 0
    for seed in range(300):
        good = {"choice": choice, "selection": selection_document, "evaluation": evaluation}[kind]()
        document = mutate_document(good, Random(seed))
        if not isinstance(document, dict):
            continue
        try:
            if kind == "choice":
                check_choice(document)
                body = choice_section(document).body
            elif kind == "evaluation":
                check_evaluation(document)
                body = evaluation_section(document).body
            else:
                body = learners_section(decode(Selected, document), 40, 4).body
        except Damaged:
            continue
        assert Parsed(body).open == []
        drawn += 1
    assert 0 < drawn < 300


def test_scales_and_ticks() -> None:
    assert Scale(0, 10, 100, 200)(5) == 150 and Scale(1, 100, 0, 2, True)(10) == pytest.approx(1)
    assert Scale(3, 3, 0, 10)(3) == 5 and Scale(0, 1, 0, 10)(99) == 10
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1] and ticks(7, 7) == [7]
    assert ticks(0.05, 2, logarithmic=True) == [0.1, 1] and ticks(0.5, 4, logarithmic=True) == [0.5, 1, 2]
    points = [(float(n), float(n % 5)) for n in range(1000)]
    kept = spread(points, 100)
    assert len(kept) == 100 and kept[-1] == (999.0, 2.0, 0.0, 4.0)


def test_a_line_passes_through_the_places_of_its_points() -> None:
    chart = Chart.of((0, 10), (0, 1))
    chart.line([(0, 0), (10, 1)], "a")
    first, last = re.findall(r"([\d.]+) ([\d.]+)", chart.parts[-1])
    assert (float(first[0]), float(first[1])) == (46, 194) and (float(last[0]), float(last[1])) == (388, 28)
