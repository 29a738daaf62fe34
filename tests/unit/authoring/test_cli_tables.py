"""Tables of the command line."""

import pytest

from kfp_hybrid.cli.tables import print_table


@pytest.mark.parametrize("columns", ["40", "400"])
def test_a_row_is_a_line_however_narrow_the_terminal_is(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    run, pipeline = "train-and-publish-20261121-205644-165e31", "a pipeline with a [bold] name"
    print_table(("run", "pipeline"), [(run, pipeline)])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [f"{'run':40}  pipeline", f"{run}  {pipeline}"]
