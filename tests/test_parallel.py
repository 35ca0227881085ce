import jax
import pytest

from cnnjax import parallel


def test_there_are_eight_devices() -> None:
    assert jax.device_count() == 8
    assert all(device.platform == "cpu" for device in jax.devices())


@pytest.mark.parametrize(
    ("batch_size", "available", "expected"),
    [
        (128, 1, 1),
        (128, 2, 2),
        (128, 8, 4),  # 16 pictures on each of eight would be too few
        (50, 2, 2),
        (50, 3, 2),
        (49, 2, 1),
        (99, 4, 3),
        (1, 8, 1),
        (1024, 8, 8),
    ],
)
def test_choose_num_devices(batch_size: int, available: int, expected: int) -> None:
    assert parallel.choose_num_devices(batch_size, available) == expected


def test_indivisible_batches_name_the_nearest_that_would_do() -> None:
    with pytest.raises(ValueError, match="multiple of 3: take 126 or 129"):
        parallel.check_divisible(128, 3)
    with pytest.raises(ValueError, match="multiple of 8: take 8,"):
        parallel.check_divisible(5, 8)
    parallel.check_divisible(128, 4)


def test_more_devices_than_there_are() -> None:
    with pytest.raises(ValueError, match="got 9 devices, need 1 to 8"):
        parallel.make_mesh(9)
