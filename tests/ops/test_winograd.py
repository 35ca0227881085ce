"""Which convolutions take Winograd's way; its results: test_conv.py."""

import pytest

from cnnjax.ops import winograd


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "want"),
    [
        ((128, 12, 12, 64), (5, 5, 64, 64), True),
        ((64, 12, 12, 64), (5, 5, 64, 64), True),
        ((25, 14, 14, 32), (5, 5, 32, 64), True),
        ((25, 14, 14, 64), (5, 5, 64, 32), True),
        ((61, 12, 12, 64), (5, 5, 64, 64), True),
        # Few channels; another kernel; mostly padding; chunks of one small image; none.
        ((128, 24, 24, 3), (5, 5, 3, 64), False),
        ((128, 12, 12, 64), (3, 3, 64, 64), False),
        ((128, 6, 5, 64), (5, 5, 64, 64), False),
        ((64, 12, 12, 512), (5, 5, 512, 512), False),
        ((0, 12, 12, 64), (5, 5, 64, 64), False),
    ],
)
def test_is_worthwhile(
    x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], want: bool
) -> None:
    assert winograd.is_worthwhile(x_shape, kernel_shape) == want
