"""All rows by name, in the order of the table."""

from chapter import (
    cifar_rows,
    counted_rows,
    data_rows,
    mnist_rows,
    penalty_rows,
    timed_rows,
)
from chapter.row import Row

_FOUND = (
    *mnist_rows.ROWS,
    *cifar_rows.ROWS,
    *penalty_rows.ROWS,
    *data_rows.ROWS,
    *counted_rows.ROWS,
    *timed_rows.ROWS,
)
ROWS: dict[str, Row] = {row.name: row for row in _FOUND}
