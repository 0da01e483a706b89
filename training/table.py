"""Tables on a terminal."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH = 200  # of what goes into a file or a pipe


def show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output, the first column to the left and all others to the right."""
    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(head):
        table.add_column(Text(title), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(Text, row))  # as text: brackets in a name are no markup
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)
