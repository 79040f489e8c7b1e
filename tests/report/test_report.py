"""The report shows the numbers of scores.json, escapes what data says, and names what is missing."""

import json
import re
from pathlib import Path

import pytest

from ecellm.errors import ConfigError, DataError
from ecellm.report.board import boards, difference
from ecellm.report.compare import lines, verdict
from ecellm.report.load import load
from ecellm.report.paper import figures, primary_rows
from ecellm.report.run import report
from tests.report.fake import IND, NASTY, OOD, UNSEEN


def _pages(out: Path) -> tuple[str, str]:
    report([str(out)])
    return (out / "report.html").read_text(), (out / "report.md").read_text()


def test_every_number_of_the_tables_is_that_of_scores_json(out: Path) -> None:
    html, markdown = _pages(out)
    for place in ("scores.json", "baselines/untuned/scores.json"):
        scores = json.loads((out / place).read_text())
        for setting in scores:
            for task, entry in scores[setting].items():
                value, (low, high) = entry["strict"][entry["primary"]], entry["strict"]["ci95"]
                shown = f"{value:.3f} ({low:.3f} – {high:.3f})"
                part = markdown.split(f"\n## {setting} (")[1].split("By the paper's rule")[0]
                assert shown in next(line for line in part.splitlines() if line.startswith(f"| {task} |"))
                assert f"{value:.3f}" in html
                assert f"{low:.3f} – {high:.3f}" in html


def test_the_verdict_counts_what_the_lines_say(out: Path) -> None:
    of = lines(load(str(out)).scores, IND, "strict")
    said = verdict(of)
    assert said.of == 10
    assert said.beats == sum(line.tuned.value > max(line.untuned.value, line.trivial.value) for line in of)
    assert said.beats + len(said.not_on) == 10
    assert said.sentence in _pages(out)[0]


def test_lexical_rules_have_a_column_and_a_sentence_of_their_own(out: Path) -> None:
    of = lines(load(str(out)).scores, IND, "strict")
    said = verdict(of)
    scores = json.loads((out / "baselines/lexical/word_overlap/scores.json").read_text())[IND]
    assert {line.task: line.lexical.value for line in of if line.lexical} == {
        task: entry["strict"][entry["primary"]] for task, entry in scores.items()
    }
    assert said.no_lexical == ("PRP", "SA", "SR", "MPC")
    assert said.also == tuple(
        line.task for line in of if line.lexical and line.tuned.value > max(line.bar, line.lexical.value)
    )
    html, markdown = _pages(out)
    for page in (html, markdown):
        assert said.beside in page
        assert "best lexical rule" in page
    path = out / "baselines/lexical/word_overlap/scores.json"
    raised = json.loads(path.read_text())
    for entry in raised[IND].values():
        entry["strict"][entry["primary"]] = 1.0
    path.write_text(json.dumps(raised))
    after = verdict(lines(load(str(out)).scores, IND, "strict"))
    assert (after.sentence, after.also) == (said.sentence, ())


def test_the_time_under_the_title_is_wall_time_where_it_is_known(out: Path) -> None:
    assert "12 min 34 s wall time, 6 min 0 s in steps" in _pages(out)[0]
    facts = json.loads((out / "run.json").read_text())
    del facts["train"]
    (out / "run.json").write_text(json.dumps(facts))
    html = _pages(out)[0]
    assert "wall time" not in html
    assert "6 min 0 s in steps" in html


def test_markup_out_of_data_stays_text(out: Path) -> None:
    html, markdown = _pages(out)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    assert "made up" in html.lower()
    assert "**Made-up data.**" in markdown


def test_no_path_of_this_machine_is_in_it(out: Path) -> None:
    assert not any(str(out) in page for page in _pages(out))


def test_it_fetches_nothing(out: Path) -> None:
    html, _ = _pages(out)
    assert not re.search(r"(src|href)\s*=|@import|url\(", html)


def test_missing_parts_are_named_with_their_command(out: Path) -> None:
    for name in ("metrics.jsonl", "scores.json", "rows/card.json", "run.json"):
        (out / name).unlink()
    found = report([str(out)])
    html = (out / "report.html").read_text()
    assert len(found["missing"]) == 4  # type: ignore[arg-type]
    assert "ecellm train RUN.toml" in html
    assert "ecellm evaluate RUN.toml" in html
    assert "Nothing to compare yet" in html


def test_several_runs_stand_side_by_side(out: Path, second: Path) -> None:
    report([str(out), str(second)])
    board = (out / "report.md").read_text().split("## Scoreboard")[1].split("\n## ")[0]
    for label in ("tuned · toy", "tuned · second", "best trivial rule · second"):
        assert f"| {label} |" in board
    assert not (second / "report.md").exists()


def test_a_report_can_be_written_elsewhere(out: Path, tmp_path: Path) -> None:
    report([str(out)], to=str(tmp_path / "there"))
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"report.html", "report.md", "report.tex"}
    assert not (out / "report.md").exists()


def test_tables_of_the_markdown_are_whole(out: Path) -> None:
    """Every line of a table has as many cells as its head."""
    report([str(out)])
    width = 0
    for line in (out / "report.md").read_text().splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not (width and cells) or cells == width, line
        width = cells


def test_an_empty_folder_and_a_broken_file_are_data_errors(out: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ecellm pipeline"):
        report([str(tmp_path / "nothing")])
    (out / "scores.json").write_text("{")
    with pytest.raises(DataError, match=r"scores\.json"):
        report([str(out)])
    for wrong in ({IND: {"PM": 0.9}}, {IND: {"PM": {"strict": {"f1": "high"}}}}, {"PM": []}):
        (out / "scores.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=r"scores\.json: cannot be read"):
            report([str(out)])
    with pytest.raises(ConfigError):
        report([])


def test_systems_that_were_not_asked_again_are_left_out(out: Path) -> None:
    """They may be of an older model; their files stay."""
    assert "tuned@choice" in load(str(out)).scores
    (out / "evaluation/COMPLETE").write_text(json.dumps({"fingerprint": "x", "systems": ["tuned", "untuned"]}))
    assert set(load(str(out)).scores) == {"tuned", "untuned"}


def test_the_papers_figures_are_the_published_ones() -> None:
    assert figures()["IND", "eCeLLM-M", "SR", "HR@1"] == 0.542
    assert dict(primary_rows("OOD", ["AVE", "PM"]))["GPT-4 Turbo"] == [0.397, None]


def test_the_scoreboard_has_a_table_for_each_setting_with_the_papers_rows(out: Path) -> None:
    found = {board.setting: board for board in boards([load(str(out))])}
    assert list(found) == [IND, UNSEEN, OOD]
    assert [row.label for row in found[IND].rows] == [
        "tuned", "tuned@choice", "untuned", "tfidf", "best lexical rule", "best trivial rule",
    ]  # fmt: skip
    assert len(found[IND].tasks) == 10
    assert found[OOD].tasks == ("AVE", "PRP", "SA", "SR", "AP", "AG")
    scores = json.loads((out / "baselines/tfidf/scores.json").read_text())[IND]
    row = next(row for row in found[IND].rows if row.label == "tfidf")
    for task, cell in zip(found[IND].tasks, row.cells, strict=True):
        assert cell is not None
        assert cell.value == scores[task]["strict"][scores[task]["primary"]]
    paper = dict(found[IND].paper)
    assert paper["eCeLLM-L"][found[IND].tasks.index("SR")] == 0.526
    assert all(bool(board.paper) == ("Diverse" in name) for name, board in found.items())  # none of other settings
    _, markdown = _pages(out)
    assert "| *eCeLLM-L (paper)* |" in markdown


def test_bold_is_what_the_test_of_significance_says(out: Path) -> None:
    outcome = load(str(out))
    marks = {"bold": 0, "tied": 0}
    for board in boards([outcome]):
        for i, task in enumerate(board.tasks):
            column = [row.cells[i] for row in board.rows if row.cells[i] is not None]
            top = max(column, key=lambda cell: cell.value)
            others = [cell for cell in column if cell is not top]
            p = {
                cell.system: difference(outcome, top.system, outcome, cell.system, board.setting, task)
                for cell in others
            }
            assert top.best == all(value is not None and value < 0.05 for value in p.values())
            assert {cell.system for cell in others if cell.tied} == {
                name for name, value in p.items() if value is not None and value >= 0.05
            }
            marks["bold"] += top.best
            marks["tied"] += sum(cell.tied for cell in others)
    assert marks["tied"] > 20
    html, markdown = _pages(out)
    assert markdown.count("**") >= 2 * marks["bold"]
    assert html.count(" tied") >= marks["tied"]


def test_systems_on_other_rows_are_not_compared(out: Path) -> None:
    outcome = load(str(out))
    assert difference(outcome, "tuned", outcome, "untuned", IND, "PM") is not None
    path = out / "baselines/untuned" / IND / "PM/items.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({"ids": kept["ids"][1:], "items": kept["items"][1:]}))
    fresh = load(str(out))
    assert difference(fresh, "tuned", fresh, "untuned", IND, "PM") is None
    path.write_text("{")
    broken = load(str(out))
    with pytest.raises(DataError, match=r"items\.json"):
        difference(broken, "tuned", broken, "untuned", IND, "PM")


def test_the_latex_tables_are_whole_and_escaped(out: Path) -> None:
    report([str(out)])
    text = (out / "report.tex").read_text()
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    width = 0
    for line in text.splitlines():
        if line.startswith(r"\begin{tabular}"):
            width = line.count("r") - "tabular begin".count("r")
        elif line.endswith(r"\\") and "multicolumn" not in line:
            assert line.count(" & ") == width, line
    assert "IND\\_Diverse" in text
    assert text.count("on made-up data") == 3
    assert "\\underline{" in text


def test_the_browser_holds_every_models_reply_and_no_markup(out: Path) -> None:
    html, _ = _pages(out)
    found = re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert found
    assert "<" not in found.group(1)
    entries = json.loads(found.group(1))
    assert {entry["setting"] for entry in entries} == {IND, UNSEEN, OOD}
    assert {reply["system"] for entry in entries for reply in entry["replies"]} == {
        "tuned", "tuned@choice", "untuned", "tfidf",
    }  # fmt: skip
    assert all(entry["kind"] in ("wrong", "unreadable") for entry in entries)
    assert any(NASTY in entry["prompt"] for entry in entries)


def test_confusion_calibration_and_probes_are_drawn(out: Path) -> None:
    html, _ = _pages(out)
    assert html.count('class="confusion"') >= 6
    assert "ECE" in html
    assert "while training" in html
    assert "By class" in html
    assert "made up 1" in html
