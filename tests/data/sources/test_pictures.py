import io
import os
import struct
import zlib
from pathlib import Path

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


@pytest.mark.parametrize("size", [(32, 96), (96, 32), (33, 32), (512, 256)])
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
    for length, line in (
        (width, picture[16, :, 0]),
        (height, picture[:, 16, 1]),
    ):
        expected = (middle / length + 0.5) * 255
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


@pytest.mark.parametrize("size", [(40, 32), (1024, 768)])
def test_other_tags_of_exif_may_be_wrong(tmp_path, size):
    """Cameras and programs write what Pillow cannot write again."""
    tags = ((0x0112, 3, 1, 6), (0x011A, 2, 4, 0x00434241))  # XResolution is "ABC"
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags))
    exif = head + entries + bytes(4)
    blocks = np.random.default_rng(0).integers(0, 256, (2, 2, 3), np.uint8)
    image = Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)
    found = []
    for name, given in (("a.jpg", exif), ("b.jpg", b"")):
        image.save(tmp_path / name, quality=95, exif=given)
        found.append(pictures.read_picture(tmp_path / name, 16, "RGB"))
    np.testing.assert_allclose(found[0], np.rot90(found[1].astype(int), -1), atol=1)


def test_what_is_broken_in_exif_is_not_the_reader_s_concern(tmp_path, recwarn):
    tags = struct.pack("<IHHHII", 8, 1, 0x010F, 2, 999, 5000)  # longer than the file
    exif = b"Exif\0\0II*\0" + tags + bytes(4)
    Image.new("RGB", (32, 32)).save(tmp_path / "x.jpg", exif=exif)
    assert pictures.read_picture(tmp_path / "x.jpg", 16, "RGB").shape == (16, 16, 3)
    assert not recwarn


def levels(bits):
    """64 values of so many bits, from black to white, [8, 8]."""
    return (np.arange(64).reshape(8, 8) * (2**bits - 1) + 31) // 63


def to_bytes(values, bits, order=">"):
    """Packs rows of values of less than 8 bits, 12 bits, or 8 and 16."""
    if bits in (8, 16):
        return values.astype(f"{order}u{bits // 8}").tobytes()
    digits = (values[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8)
    return np.packbits(digits.reshape(len(values), -1), axis=1).tobytes()


def tiff(data, photometric, bits, *, order=">", **tags):
    """A TIFF of 8x8 pixels in one strip; `tags` are tNUMBER=VALUE or tuples."""
    numbers = {int(name[1:]): value for name, value in tags.items()}
    numbers |= {256: 8, 257: 8, 258: bits, 259: 1, 262: photometric, 273: 8}
    numbers |= {277: len(bits), 278: 8, 279: len(data)}
    planes = len(bits) if numbers.get(284) == 2 else 1
    size = len(data) // planes
    numbers |= {273: tuple(8 + i * size for i in range(planes)), 279: (size,) * planes}
    at, more, entries = 8 + len(data) + len(data) % 2, b"", b""
    after = at + 2 + 12 * len(numbers) + 4
    for number, value in sorted(numbers.items()):
        values = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"{order}{len(values)}H", *values)
        if len(packed) > 4:
            packed, more = struct.pack(f"{order}I", after + len(more)), more + packed
        entries += struct.pack(f"{order}HHI", number, 3, len(values))
        entries += packed.ljust(4, b"\0")
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", at)
    count = struct.pack(f"{order}H", len(numbers))
    return start + data + b"\0" * (len(data) % 2) + count + entries + bytes(4) + more


def png(data, kind, bits, *, transparent=b"", palette=b""):
    """A PNG of 8x8 pixels, of the rows in `data`."""

    def chunk(name, body):
        crc = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + crc

    width = len(data) // 8
    rows = b"".join(b"\0" + data[i * width : (i + 1) * width] for i in range(8))
    parts = {b"IHDR": struct.pack(">IIBBBBB", 8, 8, bits, kind, 0, 0, 0)}
    parts |= {b"PLTE": palette, b"tRNS": transparent, b"IDAT": zlib.compress(rows)}
    body = b"".join(chunk(name, part) for name, part in parts.items() if part)
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def scaled(values, bits):
    return np.floor(values * 255 / (2**bits - 1) + 0.5)


def over_white(colours, alpha):
    return colours * (alpha / 255) + 255 - alpha


RGB = np.stack([levels(8), levels(8).T, levels(8)[::-1]], axis=-1)
WIDE = np.stack([levels(16), levels(16).T, levels(16)[::-1]], axis=-1)
ALPHA = levels(8)[::-1, ::-1, None]
PREMULTIPLIED = (RGB * ALPHA + 127) // 255


def reversed_bits(data):
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)


def known_pictures():
    """Yields (name, content, what it shows, tolerance): grey [8, 8] or [8, 8, 3]."""
    for order in "<>":
        for bits in (1, 2, 4, 8, 16):
            values, grey = levels(bits), scaled(levels(bits), bits)
            data = to_bytes(values, bits, order)
            yield f"tiff{order}{bits}", tiff(data, 1, (bits,), order=order), grey, 0
            if (order, bits) != (">", 16):  # which Pillow does not open
                content = tiff(data, 0, (bits,), order=order)
                yield f"tiff{order}{bits} white is 0", content, 255 - grey, 0
        data, eight = to_bytes(RGB, 8), (8, 8, 8)
        yield f"tiff{order} RGB", tiff(data, 2, eight, order=order), RGB, 0
        planes = to_bytes(RGB.transpose(2, 0, 1), 8)
        content = tiff(planes, 2, eight, order=order, t284=2)
        yield f"tiff{order} RGB planes", content, RGB, 0
        content = tiff(to_bytes(WIDE, 16, order), 2, (16,) * 3, order=order)
        yield f"tiff{order} RGB16", content, scaled(WIDE, 16), 1
        table = np.stack([np.arange(256)[::-1] * 257] * 3)
        content = tiff(
            to_bytes(levels(8), 8), 3, (8,), order=order, t320=tuple(table.ravel())
        )
        yield f"tiff{order} palette", content, 255 - levels(8), 0
    content = tiff(to_bytes(levels(12), 12), 1, (12,), order="<")
    yield "tiff 12", content, scaled(levels(12), 12), 0
    for bits in (1, 8):
        data = reversed_bits(to_bytes(levels(bits), bits))
        yield (
            f"tiff {bits} R",
            tiff(data, 1, (bits,), t266=2),
            scaled(levels(bits), bits),
            0,
        )
    four, rgba = (8,) * 4, np.concatenate([RGB, ALPHA], axis=-1)
    shown = over_white(RGB, ALPHA)
    yield "tiff RGBA", tiff(to_bytes(rgba, 8), 2, four, t338=2), shown, 1
    data = to_bytes(np.concatenate([PREMULTIPLIED, ALPHA], axis=-1), 8)
    yield "tiff RGBa", tiff(data, 2, four, t338=1), shown, 2
    yield "tiff RGBX", tiff(to_bytes(rgba, 8), 2, four, t338=0), RGB, 0
    grey = levels(8)[..., None]
    both = np.concatenate([grey, ALPHA], axis=-1)
    grey_shown = over_white(grey, ALPHA)[..., 0]
    yield "tiff LA", tiff(to_bytes(both, 8), 1, (8, 8), t338=2), grey_shown, 1
    data = to_bytes(np.concatenate([(grey * ALPHA + 127) // 255, ALPHA], -1), 8)
    yield "tiff La", tiff(data, 1, (8, 8), t338=1), grey_shown, 2
    ink = np.concatenate([255 - RGB, 0 * grey], axis=-1)
    yield "tiff CMYK", tiff(to_bytes(ink, 8), 5, four), RGB, 0
    flat = np.concatenate([grey, 0 * grey + 128, 0 * grey + 128], axis=-1)
    content = tiff(to_bytes(flat, 8), 6, (8,) * 3, t530=(1, 1))
    yield "tiff YCbCr", content, levels(8), 0

    for bits in (1, 2, 4, 8, 16):
        values, grey = levels(bits), scaled(levels(bits), bits)
        data, key = to_bytes(values, bits), int(values[3, 3])
        yield f"png {bits}", png(data, 0, bits), grey, 0
        content = png(data, 0, bits, transparent=struct.pack(">H", key))
        yield f"png {bits} key", content, np.where(values == key, 255, grey), 0
        if bits < 16:
            palette = bytes(i // 3 for i in range(3 * 2**bits))
            yield f"png P{bits}", png(data, 3, bits, palette=palette), values, 0
            content = png(data, 3, bits, palette=palette, transparent=b"\0\x80")
            faint = np.where(values == 1, over_white(1, 128), values)
            yield f"png P{bits} alpha", content, np.where(values == 0, 255, faint), 1
    yield "png RGB", png(to_bytes(RGB, 8), 2, 8), RGB, 0
    key = struct.pack(">HHH", *RGB[2, 5])
    keyed = np.where((RGB[2, 5] == RGB).all(-1, keepdims=True), 255, RGB)
    yield "png RGB key", png(to_bytes(RGB, 8), 2, 8, transparent=key), keyed, 0
    yield "png RGB16", png(to_bytes(WIDE, 16), 2, 16), scaled(WIDE, 16), 1
    yield "png LA", png(to_bytes(both, 8), 4, 8), grey_shown, 1
    yield "png LA16", png(to_bytes(both * 257, 16), 4, 16), grey_shown, 1
    yield "png RGBA", png(to_bytes(rgba, 8), 6, 8), shown, 1
    yield "png RGBA16", png(to_bytes(rgba * 257, 16), 6, 16), shown, 1

    for most, bits in ((255, 8), (1023, 10), (65_535, 16)):
        data = levels(bits).astype(">u2" if most > 255 else "u1").tobytes()
        grey = scaled(levels(bits), bits)
        yield f"pgm {most}", f"P5 8 8 {most}\n".encode() + data, grey, 0
        text = " ".join(map(str, levels(bits).ravel()))
        yield f"plain pgm {most}", f"P2 8 8 {most}\n{text}\n".encode(), grey, 0
    for name, options in (("webp", {"lossless": True, "exact": True}), ("tiff", {})):
        file = io.BytesIO()
        Image.fromarray(rgba.astype(np.uint8)).save(file, name, **options)
        yield f"{name} of Pillow", file.getvalue(), shown, 1
    for name in ("bmp", "gif"):
        file = io.BytesIO()
        Image.fromarray(levels(8).astype(np.uint8)).save(file, name)
        yield f"{name} of Pillow", file.getvalue(), levels(8), 0


KNOWN = {name: rest for name, *rest in known_pictures()}


@pytest.mark.parametrize("name", KNOWN)
def test_every_kind_of_pixel_is_what_it_was(tmp_path, name):
    content, shown, tolerance = KNOWN[name]
    path = tmp_path / "x"
    path.write_bytes(content)
    picture = pictures.read_picture(path, 8, "RGB").astype(float)
    expected = shown if shown.ndim == 3 else np.stack([shown] * 3, axis=-1)
    np.testing.assert_allclose(picture, expected, rtol=0, atol=tolerance)
    greys = ("tiff<16", "tiff>8", "tiff La", "png 2", "png LA", "pgm 65535")
    assert pictures.is_grey(path) or name not in greys
    if shown.ndim == 2:
        grey = pictures.read_picture(path, 8, "L")[..., 0].astype(float)
        np.testing.assert_allclose(grey, shown, rtol=0, atol=tolerance)


UNKNOWN = {
    "signed 8": tiff(to_bytes(levels(8), 8), 1, (8,), t339=2),
    "signed 16": tiff(to_bytes(levels(16), 16), 1, (16,), t339=2),
    "32 bits": tiff(bytes(256), 1, (32,)),
    "16 bits, white is 0": tiff(to_bytes(levels(16), 16), 0, (16,)),
    "float": tiff(bytes(256), 1, (32,), t339=3),
    "12 bits, white is 0": tiff(to_bytes(levels(12), 12), 0, (12,)),
    "LAB": tiff(to_bytes(RGB, 8), 8, (8,) * 3),
    "YCbCr, subsampled": tiff(to_bytes(RGB, 8), 6, (8,) * 3, t530=(2, 2)),
    "RGB 16 with a transparent colour": png(
        to_bytes(WIDE, 16), 2, 16, transparent=bytes(6)
    ),
    "pfm": b"Pf\n8 8\n-1.0\n" + bytes(256),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_pixels_of_an_unknown_scale_are_refused(tmp_path, name):
    path = tmp_path / "x"
    path.write_bytes(UNKNOWN[name])
    for mode in ("RGB", "L"):
        with pytest.raises(InputError, match=r"convert it or|cannot be read as a pic"):
            pictures.read_picture(path, 8, mode)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("size", [(1024, 768), (515, 771), (511, 900)])
def test_a_large_jpeg_is_decoded_at_part_of_its_size(
    tmp_path, monkeypatch, size, orientation
):
    blocks = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x.jpg"
    image = Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)
    image.save(path, quality=90, exif=exif)
    decoded = []
    flatten = pictures._flatten
    monkeypatch.setattr(
        pictures,
        "_flatten",
        lambda image, mode, **how: (
            decoded.append(image.size) or flatten(image, mode, **how)
        ),
    )
    quick = pictures.read_picture(path, 32, "RGB").astype(int)
    monkeypatch.setattr(pictures, "REDUCED", 1000)
    exact = pictures.read_picture(path, 32, "RGB").astype(int)
    assert decoded[1] == size
    assert (decoded[0] != size) == (min(size) >= 512)
    assert np.abs(quick - exact).max() <= (8 if min(size) >= 512 else 0)
    assert np.abs(quick - exact).mean() < 1


def test_ink_on_transparency_lies_on_white():
    path = Path("../shared/cases/one_black_on_transparent.png")
    if not path.exists():
        pytest.skip(f"{path} is not here")
    drawn = pictures.read_picture(path, 28, "L")
    assert drawn[0, 0] == 255 and drawn.min() < 30
    assert 0 < (drawn < 128).mean() < 0.3


def test_refuses_what_is_no_whole_picture(tmp_path):
    whole = write(tmp_path / "x.png", size=(300, 300)).read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "y.jpg")
    jpeg = (tmp_path / "y.jpg").read_bytes()
    bad = tmp_path / "bad.png"
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    heic = b"\0\0\0\x18ftypheic" + bytes(99)
    cut = whole[:-60], whole[:20], jpeg[:-900]
    for content in (*cut, b"", b"words", postscript, heic):
        bad.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.png cannot be read as a picture"):
            pictures.read_picture(bad, 32, "RGB")
    with pytest.raises(InputError, match=r"none of BMP, GIF, .*; convert it, replace"):
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
    write(tmp_path / "x.png", (7, 8, 9), size=(1_000_000, 8))
    picture = pictures.read_picture(tmp_path / "x.png", 32, "RGB")
    assert (picture == (7, 8, 9)).all()


def test_reads_folders_and_names_what_is_bad(tmp_path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "none").mkdir()
    for name in ("b/deep/3.png", "b/1.png", "a.png", "b/.hidden.png"):
        write(tmp_path / name)
    write(tmp_path / "b" / "2.png", size=(7, 100))
    for name in ("b/notes.txt", "b/photo.HEIC"):  # as telephones write them
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    named = [tmp_path / name for name in ("a.png", "none", "b", "missing.png")]
    paths, images, problems = pictures.read_all(named, 16, "L")
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert names == ["a.png", "b/1.png", "b/deep/3.png"]
    assert images.shape == (3, 16, 16, 1)
    said = [str(problem) for problem in problems]
    words = ["none holds no file", "7x100 pixels", "notes.txt", "photo.HEIC"]
    for message, part in zip(said, [*words, "missing.png"], strict=True):
        assert part in message
    passed_over = [isinstance(one, pictures.PassedOverError) for one in problems]
    assert passed_over == [False, False, True, False, False]
    assert pictures.read_all(named[1:2], 16, "RGB")[1].shape == (0, 16, 16, 3)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    for name in ("a.png", "shut/b.png", "c/Thumbs.db", "c/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name) if name.endswith("png") else (tmp_path / name).touch()
    (tmp_path / "c" / "up").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to("/nowhere")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    paths, _, problems = pictures.read_all([tmp_path], 16, "L")
    assert paths == [tmp_path / "a.png", tmp_path / "c" / "d.png"]
    assert [str(problem).split(" can")[0] for problem in problems] == [
        f"{tmp_path}/gone.png",
        f"{tmp_path}/shut",
    ]
