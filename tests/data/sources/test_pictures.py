import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cnnjax.data.sources import pictures
from cnnjax.errors import InputError


def write(path, colour=(9, 9, 9), size=(40, 32)):
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tiff"])
def test_reads_the_usual_formats(tmp_path, suffix):
    path = write(tmp_path / f"x.{suffix}", (250, 128, 2))
    picture = pictures.read_picture(path, 32, "RGB")
    assert picture.shape == (32, 32, 3)
    assert picture.dtype == np.uint8
    assert abs(picture.astype(int) - (250, 128, 2)).max() <= 4


@pytest.mark.parametrize("size", [(32, 96), (96, 32), (33, 32), (512, 256), (1, 1)])
def test_cuts_out_the_middle_and_scales_it(tmp_path, size):
    # Brightness is the distance from the left and the top edge, in [0, 1], so a
    # central square shows up as the middle part of both ramps.
    width, height = size
    ramps = np.zeros((height, width, 3))
    ramps[..., 0] = (np.arange(width) + 0.5) / width * 255
    ramps[..., 1] = ((np.arange(height) + 0.5) / height * 255)[:, np.newaxis]
    Image.fromarray(ramps.round().astype(np.uint8)).save(tmp_path / "x.png")
    picture = pictures.read_picture(tmp_path / "x.png", 32, "RGB").astype(float)
    side = min(size)
    middle = (np.arange(32) + 0.5) / 32 * side - side / 2
    inner = slice(3, 29)  # Lanczos rings where a ramp ends.
    for channel, length, line in (
        (0, width, picture[16, :, 0]),
        (1, height, picture[:, 16, 1]),
    ):
        expected = (middle / length + 0.5) * 255
        if side == 1:
            expected = np.full(32, ramps[0, 0, channel].round())
        np.testing.assert_allclose(line[inner], expected[inner], atol=1.5)


def test_turns_a_picture_upright_as_its_exif_says(tmp_path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    picture = pictures.read_picture(tmp_path / "x.png", 32, "L")[..., 0]
    # Orientation 6: the stored top is the right-hand side.
    np.testing.assert_array_equal(picture, np.rot90(pixels[..., 0], -1))


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "CMYK", "LA"])
def test_converts_other_modes(tmp_path, mode):
    image = Image.new("RGB", (32, 32), (255, 255, 255)).convert(mode)
    options = {"transparency": bytes([0] * 256)} if mode == "P" else {}
    image.save(tmp_path / "x.tiff" if mode == "CMYK" else tmp_path / "x.png", **options)
    path = next(tmp_path.iterdir())
    assert (pictures.read_picture(path, 32, "RGB") == 255).all()


def test_refuses_what_is_no_whole_picture(tmp_path):
    whole = write(tmp_path / "x.png", size=(300, 300)).read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "y.jpg")
    jpeg = (tmp_path / "y.jpg").read_bytes()
    bad = tmp_path / "bad.png"
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    for content in (whole[:-60], jpeg[:-900], b"", b"words", whole[:20], postscript):
        bad.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.png cannot be read as a picture"):
            pictures.read_picture(bad, 32, "RGB")
    for missing in (tmp_path / "none.png", tmp_path):
        with pytest.raises(InputError, match="cannot be read as a picture"):
            pictures.read_picture(missing, 32, "RGB")


@pytest.mark.parametrize("size", [(8193, 8193), (11_000, 9_000), (60_000, 60_000)])
def test_refuses_decompression_bombs_by_their_header(tmp_path, size):
    # The last two are where Pillow itself warns, and where it refuses.
    def chunk(kind, body):
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    (tmp_path / "x.png").write_bytes(content + chunk(b"IDAT", zlib.compress(b"")))
    with pytest.raises(InputError, match=r"megapixels|decompression bomb"):
        pictures.read_picture(tmp_path / "x.png", 32, "RGB")


def test_a_long_thin_picture_takes_no_more_memory_than_its_pixels(tmp_path):
    write(tmp_path / "x.png", (7, 8, 9), size=(1_000_000, 1))
    picture = pictures.read_picture(tmp_path / "x.png", 32, "RGB")
    assert (picture == (7, 8, 9)).all()


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_scales_sixteen_bits_of_grey(tmp_path, suffix):
    values = np.array([0, 257, 40_000, 65_535], np.uint16)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(values.repeat(4).reshape(4, 4)).save(path)
    assert pictures.is_grey(path)
    picture = pictures.read_picture(path, 4, "L")[..., 0]
    np.testing.assert_array_equal(picture[:, 0], [0, 1, 156, 255])


def test_refuses_values_without_a_white(tmp_path):
    Image.fromarray(np.ones((32, 32), np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(InputError, match=r"mode F.*16 bits a channel"):
        pictures.read_picture(tmp_path / "x.tiff", 32, "L")


def test_reads_folders_and_names_what_is_bad(tmp_path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "none").mkdir()
    for name in ("b/deep/3.png", "b/1.png", "a.png", "b/.hidden.png"):
        write(tmp_path / name)
    write(tmp_path / "b" / "2.png", size=(7, 100))
    named = [tmp_path / name for name in ("a.png", "none", "b", "missing.png")]
    paths, images, problems = pictures.read_all(named, 16, "L")
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert names == ["a.png", "b/1.png", "b/deep/3.png"]
    assert images.shape == (3, 16, 16, 1)
    said = [str(problem) for problem in problems]
    for message, words in zip(
        said, ["none holds no file", "7x100 pixels", "missing.png"], strict=True
    ):
        assert words in message
    assert pictures.read_all(named[1:2], 16, "RGB")[1].shape == (0, 16, 16, 3)
