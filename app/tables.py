"""Plain text for a terminal: aligned tables and lists of facts."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

SCORE_NOTE = "MSE and MAE on scaled data, the rest in original units; skill and CRPS skill against seasonal naive"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """An aligned table; the first ``left`` columns are set left, numbers right, by what each column holds."""
    cells = [list(head), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    to_left = [
        column < left or not any(row[column][:1].isdigit() or row[column][:1] in "-+." for row in rows)
        for column in range(len(head))
    ]

    def line(row: Sequence[str]) -> str:
        columns = zip(row, widths, to_left, strict=True)
        return "  ".join(cell.ljust(width) if flush else cell.rjust(width) for cell, width, flush in columns).rstrip()

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
    columns = {
        "mse": "MSE",
        "mae": "MAE",
        "mase": "MASE",
        "smape": "sMAPE %",
        "crps": "CRPS",
        "coverage_80": "80 % covers",
        "coverage_95": "95 % covers",
        "skill_mae": "skill",
        "skill_crps": "CRPS skill",
    }
    used = {key: title for key, title in columns.items() if any(key in row for row in scores.values())}
    rows = [[titles.get(name, name), *[_score(key, row.get(key)) for key in used]] for name, row in scores.items()]
    return text_table(["model", *used.values()], rows)


def difference_table(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """Differences of scores, each with the ends of its 95 % interval and what it says; a negative one is better."""
    head = ["model", "against", "score", "difference", "from", "to", "verdict"]
    body = [
        [
            *(titles.get(row[part], row[part]) for part in ("model", "baseline")),
            row["metric"].upper(),
            *(f"{row[part]:+.4f}" for part in ("difference", "lower", "upper")),
            row["verdict"],
        ]
        for row in rows
    ]
    return text_table(head, body, left=3)


def decimals(values: Sequence[float], digits: int = 4) -> int:
    """How many decimals show the largest of some numbers with so many digits, so that they line up."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return max(0, digits - 1 - math.floor(math.log10(largest))) if largest else digits - 1


def plain_time(stamp: Any) -> str:
    """A time stamp for a person: no T in the middle, nothing below a second."""
    return str(stamp)[:19].replace("T", " ")


def _score(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key.startswith("coverage"):
        return f"{100 * value:.1f} %"
    if key.startswith("skill"):
        return f"{100 * value:+.1f} %"
    return f"{value:.2f}" if key == "smape" else f"{value:.4f}"
