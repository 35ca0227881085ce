import pytest

from cnnjax.errors import one_line


@pytest.mark.parametrize(
    ("text", "most", "line"),
    [
        ("one line", None, "one line"),
        ("two\n  lines,\ta tab\r\n", None, "two lines, a tab"),
        ("cut  off here", 7, "cut off"),
        (" \n ", 7, "OSError"),
        ("", None, "OSError"),
    ],
)
def test_one_line(text, most, line):
    assert one_line(OSError(text), most) == line
