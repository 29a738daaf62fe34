"""Tables that a person reads and `grep` can search."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 10_000  # whatever the terminal's is: a name that is broken cannot be copied or found


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below the names of their columns, each on a line; nothing in them is taken for markup."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(escape, row))
    Console(soft_wrap=True, width=WIDTH).print(table)
