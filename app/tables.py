"""Plain text for a terminal: aligned tables and lists of facts."""

import textwrap
from collections.abc import Mapping, Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """An aligned table; the first ``left`` columns are set left, numbers right, by what each column holds."""
    cells = [list(head), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    to_left = [column < left or not any(row[column][:1].isdigit() or row[column][:1] in "-+." for row in rows)
               for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        made = (cell.ljust(width) if flush else cell.rjust(width) for cell, width, flush in zip(row, widths, to_left, strict=True))
        return "  ".join(made).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])


def text_facts(facts: Mapping[str, str], width: int = 110) -> str:
    """Names and values in two columns; long values are wrapped under themselves."""
    lead = max(map(len, facts)) + 2
    lines = []
    for name, value in facts.items():
        wrapped = textwrap.wrap(value, width - lead) or [""]
        lines += [name.ljust(lead) + wrapped[0], *[" " * lead + more for more in wrapped[1:]]]
    return "\n".join(line.rstrip() for line in lines)


def score_table(scores: Mapping[str, Mapping[str, float]], titles: Mapping[str, str]) -> str:
    """Scores of several models: MSE and MAE on scaled data, the rest in original units."""
    columns = {"mse": "MSE", "mae": "MAE", "mase": "MASE", "smape": "sMAPE %", "crps": "CRPS", "coverage_80": "80 % covers",
               "coverage_95": "95 % covers", "skill_mae": "skill", "skill_crps": "CRPS skill"}
    used = {key: title for key, title in columns.items() if any(key in row for row in scores.values())}
    rows = [[titles.get(name, name), *[_score(key, row.get(key)) for key in used]] for name, row in scores.items()]
    return text_table(["model", *used.values()], rows)


def _score(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key.startswith("coverage"):
        return f"{100 * value:.1f} %"
    if key.startswith("skill"):
        return f"{100 * value:+.1f} %"
    return f"{value:.2f}" if key == "smape" else f"{value:.4f}"
