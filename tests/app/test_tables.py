"""Plain text for a terminal: columns line up."""

import pytest

from app.tables import decimals, difference_table, plain_time, score_table, text_facts, text_table


class TestTextTable:
    """Tables."""

    def test_numbers_stand_right_and_words_left(self) -> None:
        lines = text_table(["name", "rows", "licence"], [["a", "5", "free"], ["longer", "17,420", "none"]]).splitlines()
        assert lines == [
            "name      rows  licence",
            "------  ------  -------",
            "a            5  free",
            "longer  17,420  none",
        ]

    def test_no_rows(self) -> None:
        assert text_table(["run", "mse"], []) == "run  mse\n---  ---"

    def test_a_signed_column_and_a_dash_are_numbers(self) -> None:
        lines = text_table(["run", "skill"], [["a", "+19.4 %"], ["b", "-"]]).splitlines()
        assert lines[2:] == ["a    +19.4 %", "b          -"]

    def test_no_line_ends_in_blanks(self) -> None:
        table = text_table(["a", "alias"], [["1", ""], ["2", "champion"]])
        assert all(line == line.rstrip() for line in table.splitlines())


class TestTextFacts:
    """Facts."""

    def test_long_values_are_wrapped_under_themselves(self) -> None:
        lines = text_facts({"a": "one two three four", "longest": "5"}, width=20).splitlines()
        assert lines == ["a        one two", "         three four", "longest  5"]

    def test_an_empty_value_keeps_its_line(self) -> None:
        assert text_facts({"name": "", "b": "c"}) == "name\nb     c"


class TestScores:
    """Scores and their differences."""

    def test_only_scores_that_are_there_have_a_column(self) -> None:
        table = score_table({"m": {"mse": 0.5, "coverage_80": 0.801}, "n": {"mse": 12.25}}, {"m": "Model"})
        assert table.splitlines() == [
            "model      MSE  80 % covers",
            "-----  -------  -----------",
            "Model   0.5000       80.1 %",
            "n      12.2500            -",
        ]

    def test_skill_is_signed(self) -> None:
        assert "+19.4 %" in score_table({"m": {"skill_crps": 0.194}}, {})

    def test_differences_show_the_interval(self) -> None:
        row = {"model": "m", "baseline": "n", "metric": "mse", "difference": -0.25, "lower": -0.5, "upper": 0.125}
        lines = difference_table([{**row, "verdict": "no clear difference"}], {"n": "Naive"}).splitlines()
        assert lines[-1].split() == ["m", "Naive", "MSE", "-0.2500", "-0.5000", "+0.1250", "no", "clear", "difference"]


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ((0.0,), 3),
        ((1.5, -2.0), 3),
        ((10.0, 1.0), 2),
        ((99999.0,), 0),
        ((0.001234,), 6),
        ((float("nan"), 250.0), 1),
        ((), 3),
    ],
)
def test_decimals_show_four_digits_of_the_largest(values: tuple[float, ...], places: int) -> None:
    assert decimals(values) == places


def test_times_are_for_people() -> None:
    assert plain_time("2024-01-25T23:00:00.000000000") == "2024-01-25 23:00:00"
