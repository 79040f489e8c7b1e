"""The scoreboard as LaTeX tables, for a paper: booktabs, one table for each setting.

Bold is the best of a column's figures on the same rows where the difference is significant; underlined are those that
may be the best. A decoding that is not greedy, and a metric of another encoder than the paper's, keep their names.
"""

from __future__ import annotations

from collections.abc import Sequence

from ecellm.report.board import Board, Figure, Row

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "·": r"$\cdot$", "–": "--",
}  # fmt: skip


def tables(boards: Sequence[Board], site: str, *, made_up: bool = False) -> str:
    """report.tex: tables to \\input into a document that uses booktabs. `made_up`: the rows are, and it is said."""
    head = "% Made by: ecellm report. Needs \\usepackage{booktabs}.\n"
    return head + "\n".join(_table(board, site, made_up) for board in boards)


def escaped(text: str) -> str:
    """A text that LaTeX prints as it is."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


def _table(board: Board, site: str, made_up: bool) -> str:
    columns = "l" + "r" * len(board.tasks)
    data = ", on made-up data" if made_up else ""
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escaped(board.setting)}: primary metrics, strict rule{data}."
        r" Bold: significantly better than all others on the same rows (paired approximate randomisation, $p < 0.05$);"
        r" underlined: not significantly worse than the best of those. Decoding is greedy where none is named.}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(["system", *map(escaped, board.tasks)]) + r" \\",
        r" & ".join(["", *(rf"\footnotesize {escaped(_metric(name))}" for name in board.metrics)]) + r" \\",
        r"\midrule",
        *(_row(row) for row in board.rows),
    ]
    if board.paper:
        note = (
            rf"\multicolumn{{{1 + len(board.tasks)}}}{{l}}{{\footnotesize on the paper's own data ({escaped(site)})}}"
        )
        lines += [r"\midrule", note + r" \\"]
        lines += [
            " & ".join([escaped(name), *(_number(one) for one in values)]) + r" \\" for name, values in board.paper
        ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _row(row: Row) -> str:
    return " & ".join([escaped(row.title), *map(_cell, row.cells)]) + r" \\"


def _cell(cell: Figure | None) -> str:
    if cell is None:
        return "--"
    text = f"{cell.value:.3f}"
    shown = rf"\textbf{{{text}}}" if cell.best else rf"\underline{{{text}}}" if cell.tied else text
    return rf"{shown} {{\footnotesize ({escaped(_metric(cell.other_metric))})}}" if cell.other_metric else shown


def _number(value: float | None) -> str:
    return "--" if value is None else f"{value:.3f}"


def _metric(name: str) -> str:
    return name.replace("bertscore_f1", "BERTScore F1").replace("recall@1", "HR@1")
