"""The report shows the numbers of scores.json, escapes what data says, and names what is missing."""

import json
import re
from pathlib import Path

import pytest

from ecellm.errors import ConfigError, DataError
from ecellm.report.compare import lines, verdict
from ecellm.report.load import load
from ecellm.report.paper import figures, primary_rows
from ecellm.report.run import report
from tests.report.fake import IND, fake_out


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return fake_out(tmp_path / "out")


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
                part = markdown.split(f"## {setting} (")[1].split("By the paper's rule")[0]
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
    assert "<script" not in html
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


def test_several_runs_stand_side_by_side(out: Path, tmp_path: Path) -> None:
    other = fake_out(tmp_path / "other", seed=2, name="second")
    report([str(out), str(other)])
    assert "| task | toy | second |" in (out / "report.md").read_text()
    assert not (other / "report.md").exists()


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
    with pytest.raises(ConfigError):
        report([])


def test_the_papers_figures_are_the_published_ones() -> None:
    assert figures()["IND", "eCeLLM-M", "SR", "HR@1"] == 0.542
    assert dict(primary_rows("OOD", ["AVE", "PM"]))["GPT-4 Turbo"] == [0.397, None]
