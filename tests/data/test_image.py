"""Bytes -> pixels: formats and colour modes, damage, and the geometry of resizing."""

import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin
from references.tiff import tiff

from residua.config.schema import Preprocessing
from residua.data import image as images
from residua.data.dataset import Pixels, Unreadable

LIMIT = 100_000_000

# pytest removes the filter that image.py installs; one test below checks it in a process.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png_with(chunk: bytes) -> bytes:
    """A good 4x4 PNG with one more chunk behind its header."""
    plain = encoded(Image.new("RGB", (4, 4), "red"))
    return plain[:33] + chunk + plain[33:]


def png_header(width: int, height: int) -> bytes:
    start = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + png_chunk(b"IDAT", zlib.compress(b"\0" * 100))


# Colour modes and formats


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG", "JPEG2000"])
def test_each_format_is_read_and_named(format: str) -> None:
    pixels = np.full((6, 9, 3), (200, 100, 50), np.uint8)
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(Image.fromarray(pixels), format, **options)
    header = images.header(content, LIMIT)
    assert (header.width, header.height, header.format, header.mode) == (9, 6, format, "RGB")
    np.testing.assert_allclose(images.decode(content, 3, LIMIT), pixels, atol=3)


def test_channels_are_as_requested() -> None:
    colour = noise(5, 7)
    content = encoded(Image.fromarray(colour))
    grey = images.decode(content, 1, LIMIT)
    assert grey.shape == (5, 7, 1)
    np.testing.assert_allclose(grey[..., 0], colour @ [0.299, 0.587, 0.114], atol=0.51)
    content = encoded(Image.fromarray(grey[..., 0]))
    np.testing.assert_array_equal(images.decode(content, 3, LIMIT), np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_is_scaled_by_its_range(format: str) -> None:
    values = np.array([[0, 128, 257, 32896, 65535, 40000]], np.uint16)
    content = encoded(Image.fromarray(values), format)
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(images.decode(content, 1, LIMIT)[..., 0], expected)


def test_16_bit_big_endian_and_dark() -> None:
    values = np.array([[0, 256, 2570]], ">u2")
    tags = {256: 3, 257: 1, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 6}
    directory = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = struct.pack(">2sHI", b"MM", 42, 14) + values.tobytes()
    content = start + struct.pack(">H", len(tags)) + directory + bytes(4)
    assert images.header(content, LIMIT).mode == "I;16B"
    assert images.decode(content, 1, LIMIT).ravel().tolist() == [0, 1, 10]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 127.0, 255.0], [0, 127, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([1e30, 1e30, 1e30], [0, 0, 0]),
    ],
)
def test_floating_point_images_are_read_as_0_to_255(
    values: list[float], expected: list[int]
) -> None:
    content = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert images.decode(content, 1, LIMIT).ravel().tolist() == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    values = np.full((3, 4), 0.5, np.float32)
    values[1, 2] = value
    for value_range in (None, (0.0, 1.0)):
        with pytest.raises(Unreadable, match="not numbers"):
            images.decode(encoded(Image.fromarray(values), "TIFF"), 1, LIMIT, value_range)


def test_a_white_zero_tiff_of_16_bits_is_no_negative() -> None:
    values = np.arange(64, dtype="<u2") * 1000
    black, white = (
        tiff([data.tobytes()], size=(8, 8), bits=16, photometric=photometric)
        for photometric, data in ((1, values), (0, 65535 - values))
    )
    np.testing.assert_array_equal(
        images.decode(white, 1, LIMIT), images.decode(black, 1, LIMIT), strict=True
    )


def test_planes_of_8_bits_are_read_and_planes_of_16_refused() -> None:
    pixels = noise(8, 8).astype("<u2") * 257
    for kind, bits in (("u1", 8), ("<u2", 16)):
        values = (pixels >> 16 - bits).astype(kind)
        planes = [np.ascontiguousarray(values[..., channel]).tobytes() for channel in range(3)]
        form = {"size": (8, 8), "bits": bits, "samples": 3, "photometric": 2}
        together = images.decode(tiff([values.tobytes()], **form), 3, LIMIT)
        np.testing.assert_array_equal(together, noise(8, 8))
        if bits == 8:
            np.testing.assert_array_equal(images.decode(tiff(planes, **form), 3, LIMIT), together)
        else:
            with pytest.raises(Unreadable, match=r"separate 16-bit planes, .* convert it to PNG"):
                images.header(tiff(planes, **form), LIMIT)


@pytest.mark.parametrize(
    "form",
    [
        {"bits": 10},
        {"bits": 24},
        {"bits": 16, "number": 3},
        {"bits": 64, "number": 3},
        {"bits": 32, "number": 3, "samples": 3, "photometric": 2},
        {"bits": 8, "samples": 5},
        {"bits": 32, "number": 3, "photometric": 0},
    ],
)
def test_a_kind_that_is_not_supported_is_not_called_damaged(form: dict[str, int]) -> None:
    content = tiff([bytes(64 * 24)], size=(8, 8), **form)
    with pytest.raises(Unreadable, match=r"not supported.*: convert it to PNG") as caught:
        images.decode(content, 3, LIMIT)
    assert "damaged" not in str(caught.value)


def test_jpeg_of_12_bits_and_bmp_bit_fields_are_not_called_damaged() -> None:
    jpeg = bytearray(encoded(Image.fromarray(noise(8, 8)), "JPEG"))
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12
    fields = struct.pack("<IiiHHIIiiII4I", 56, 1, 1, 1, 16, 3, 4, 0, 0, 0, 0, 3840, 240, 15, 61440)
    bmp = b"BM" + struct.pack("<IHHI", 74, 0, 0, 70) + fields + bytes(4)
    for content in (bytes(jpeg), bmp):
        with pytest.raises(Unreadable, match="of a kind that is not supported"):
            images.header(content, LIMIT)


def test_a_value_range_is_applied_and_clipped() -> None:
    content = encoded(Image.fromarray(np.array([[0, 1000, 2000, 3000, 9000]], np.uint16)))
    pixels = images.decode(content, 1, LIMIT, (1000.0, 3000.0))
    assert pixels.ravel().tolist() == [0, 0, 128, 255, 255]


def test_the_largest_value_of_a_tiff_is_its_white() -> None:
    values = np.array([0, 2048, 4095], "<u2").tobytes()
    content = tiff([values], size=(3, 1), bits=16, largest=4095)
    assert images.decode(content, 1, LIMIT).ravel().tolist() == [0, 128, 255]


def test_tiles_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 7
    alpha = Image.fromarray(noise(13, 21, 4), "RGBA")
    deep = Image.fromarray(noise(13, 21, 1)[..., 0].astype(np.uint16) * 250)
    floats = Image.fromarray(noise(13, 21, 1)[..., 0].astype(np.float32) / 200)
    contents = [encoded(alpha, exif=exif), encoded(deep, exif=exif), encoded(floats, "TIFF")]
    whole = [images.decode(content, 3, LIMIT) for content in contents]
    monkeypatch.setattr(images, "_TILE", 5)
    for content, expected in zip(contents, whole, strict=True):
        np.testing.assert_array_equal(images.decode(content, 3, LIMIT), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_prepared_as_its_decoded_pixels_are(channels: int) -> None:
    colour = Image.fromarray(noise(19, 33))
    turned = Image.Exif()
    turned[0x0112] = 6
    contents = [
        encoded(colour),
        encoded(colour, "JPEG"),
        encoded(colour, "JPEG", exif=turned),
        encoded(colour, transparency=tuple(noise(19, 33)[0, 0].tolist())),
        encoded(colour.convert("CMYK"), "JPEG"),
        *(encoded(colour.convert(mode)) for mode in ("L", "1", "P", "LA")),
    ]
    for resize in ("crop", "pad", "squash"):
        for interpolation in ("bicubic", "bilinear"):
            rule = Preprocessing(
                size=16,
                channels=channels,
                resize=resize,
                crop=1.0,
                interpolation=interpolation,
            )
            for content in contents:
                decoded = images.decode(content, channels, LIMIT)
                expected = images.resize(decoded, rule)
                np.testing.assert_array_equal(images.prepared(content, rule, LIMIT), expected)


def test_decoding_needs_little_memory_besides_the_result() -> None:
    content = encoded(Image.new("I;16", (3000, 3000)))
    tracemalloc.start()
    try:
        pixels = images.decode(content, 3, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < pixels.nbytes + 60e6  # all in float64: 72e6
    finally:
        tracemalloc.stop()


def test_a_digest_is_that_of_the_pixels() -> None:
    grey = noise(6, 4, 1)
    assert images.digest(grey) == images.digest(np.repeat(grey, 3, axis=2))
    others = [noise(6, 4, 1, seed=1), grey.reshape(4, 6, 1), noise(6, 4), grey[::-1]]
    assert len({images.digest(pixels) for pixels in [grey, *others]}) == 5


def transparent_images() -> dict[str, bytes]:
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    rgb = Image.fromarray(np.array([[[9, 9, 9], [0, 0, 255]]], np.uint8))
    rgba = Image.fromarray(np.array([[[9, 9, 9, 0], [0, 0, 255, 255]]], np.uint8))
    return {
        "RGBA": encoded(rgba),
        "WEBP": encoded(rgba, "WEBP", lossless=True),
        "tRNS": encoded(rgb, transparency=(9, 9, 9)),
        "palette": encoded(palette, transparency=0),
        "palette bytes": encoded(palette, transparency=b"\0\xff"),
        "GIF": encoded(palette, "GIF", transparency=0),
    }


@pytest.mark.parametrize("kind", transparent_images())
def test_transparent_pixels_are_white(kind: str) -> None:
    pixels = images.decode(transparent_images()[kind], 3, LIMIT)
    assert pixels.tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_half_transparent_grey_is_mixed_with_white() -> None:
    image = Image.new("LA", (1, 1), (0, 128))
    assert images.decode(encoded(image), 1, LIMIT).item() == 127


def test_cmyk_is_not_inverted() -> None:
    for ink, colour in (((0, 0, 0, 0), (255, 255, 255)), ((0, 255, 255, 0), (255, 0, 0))):
        for format in ("JPEG", "TIFF"):
            content = encoded(Image.new("CMYK", (8, 8), ink), format)
            pixels = images.decode(content, 3, LIMIT)
            np.testing.assert_allclose(pixels[4, 4], colour, atol=4)


def test_lab_bilevel_and_hsv_like_modes() -> None:
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (2, 2), (255, 255, 255)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert images.decode(encoded(lab, "TIFF"), 3, LIMIT).min() >= 253
    bilevel = Image.new("1", (2, 1))
    bilevel.putpixel((1, 0), 1)
    assert images.decode(encoded(bilevel), 1, LIMIT).ravel().tolist() == [0, 255]


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for format in ("GIF", "PNG", "WEBP", "TIFF", "MPO"):
        options = {"lossless": True} if format == "WEBP" else {}
        content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_allclose(images.decode(content, 3, LIMIT)[0, 0], (255, 0, 0), atol=3)


# Orientation


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_decoded_upright(format: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[:8, 16:], upright[8:, :16] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    # What a camera stores: undo what a viewer does with this tag (EXIF 2.32, table 4.6.4).
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    if format == "JPEG":
        options = {"subsampling": 0, "quality": 100}
    image = Image.fromarray(np.ascontiguousarray(stored))
    content = encoded(image, format, exif=exif, **options)
    np.testing.assert_allclose(images.decode(content, 3, LIMIT), upright, atol=4)
    header = images.header(content, LIMIT)
    assert (header.width, header.height) == (32, 16)


def test_a_png_with_a_changed_byte_is_called_damaged() -> None:
    """Its checksum or its compressed data are wrong."""
    whole, reasons = encoded(Image.fromarray(noise(16, 16)), "PNG"), []
    for index in range(whole.index(b"IHDR"), whole.index(b"IEND") - 8):
        content = bytearray(whole)
        content[index] ^= 0xFF
        try:
            images.decode(bytes(content), 3, LIMIT)
        except Unreadable as error:
            reasons.append(str(error))
    expected = ("is a damaged PNG file: ", "is truncated")
    assert [reason for reason in reasons if not reason.startswith(expected)] == []
    assert len(reasons) > 30


def test_damaged_exif_loses_the_orientation_not_the_image() -> None:
    words = struct.pack(">2sHIHHHI4sI", b"MM", 42, 8, 1, 0x0112, 2, 4, b"up!\0", 0)
    for exif in (b"rubbish", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", words):
        content = encoded(Image.new("RGB", (8, 4), "red"), "JPEG", exif=b"Exif\0\0" + exif)
        assert images.decode(content, 3, LIMIT).shape == (4, 8, 3)


def test_a_header_is_read_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: loads.append(image))
    images.header(encoded(Image.new("RGB", (4, 4))), LIMIT)
    assert not loads


def test_the_same_scene_stored_in_three_orientations(shared_data: Path) -> None:
    folder = shared_data / "messy/puffin"
    files = [folder / f"exif_orientation_{n}.jpg" for n in (3, 6, 8)]
    shots = [images.decode(file.read_bytes(), 3, LIMIT) for file in files]
    for shot in shots[1:]:
        difference = np.abs(shot.astype(int) - shots[0]).mean()
        turned = np.abs(shot.astype(int) - shots[0][::-1, ::-1]).mean()
        assert difference < 8 < 30 < turned


# Damage


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page, perhaps of an error: download the image again"),
        (b"\0\0\0\x18ftypheic", "is a HEIC photo, which is not supported: convert it to JPEG"),
        (b"%PDF-1.7", "is a PDF document"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a pointer of Git LFS, not the image: run git lfs pull",
        ),
        (b"\n<HTML><head>", "is a web page, perhaps of an error: download the image again"),
        (b"html", "is not an image: starts with 'html'"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "is a PostScript drawing: export it as PNG"),
        (b"<svg xmlns=''>", "is an SVG drawing: export it as PNG"),
        (b"    ", "is not an image: starts with ' '"),
        (b"\0\0\1\0\2\0\x10\x10", "is an icon file: export it as PNG"),
        (
            b"\0\0\2" + bytes(9) + b"\x08\0\x08\0\x18\0",
            "is a TGA image, which is not supported: convert it to PNG",
        ),
        (bytes(128) + b"DICM", "is a DICOM file, which is not supported: export it as PNG"),
        (png_header(40000, 40000), "40000 x 40000 pixels are more than the limit of 100,000,000"),
        (b"BMW and other cars, in alphabetical order", "is not an image: starts with 'BMW'"),
    ],
)
def test_unusable_content_has_a_reason(content: bytes, reason: str) -> None:
    for read in (images.header, lambda *args: images.decode(args[0], 3, args[1])):
        with pytest.raises(Unreadable) as caught:
            read(content, LIMIT)
        assert str(caught.value) == reason


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_never_half_an_image(format: str, kept: float) -> None:
    content = encoded(Image.fromarray(noise(64, 64)), format)
    with pytest.raises(Unreadable, match=r"is truncated after|is a damaged"):
        images.decode(content[: int(len(content) * kept)], 3, LIMIT)


def test_a_truncated_file_reports_its_length() -> None:
    content = encoded(Image.fromarray(noise(200, 200)), "JPEG", quality=90)[:12000]
    with pytest.raises(Unreadable, match=r"^is truncated after 12,000 bytes$"):
        images.decode(content, 3, LIMIT)


def test_the_limit_is_ours_not_that_of_pillow() -> None:
    content = png_header(20_000, 10_000)  # more than Pillow's own limit
    assert images.header(content, 200_000_000).width == 20_000
    with pytest.raises(Unreadable, match=r"20000 x 10000 pixels .* 199,999,999"):
        images.header(content, 199_999_999)


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 50_000_000)),
        png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"a" * 50_000_000)),
        png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"a" * 50_000_000)),
    ],
)
def test_decompression_bombs_in_metadata_take_no_memory(chunk: bytes) -> None:
    tracemalloc.start()
    try:
        images.header(png_with(chunk), LIMIT)
        images.decode(png_with(chunk), 3, LIMIT)
    except Unreadable:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10_000_000


def samples() -> list[bytes]:
    image = Image.fromarray(noise(24, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = [encoded(image, name) for name in ("PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF")]
    more = [
        encoded(image, "JPEG", exif=exif),
        encoded(image, "JPEG", progressive=True),
        encoded(image, "JPEG2000"),
        encoded(image, "TIFF", compression="tiff_lzw"),
        encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        encoded(image.convert("P"), "PNG", transparency=3),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "PNG", exif=exif),
    ]
    return plain + more


def assert_only_unreadable(content: bytes) -> None:
    """Header and pixels have one size, or Unreadable is raised and nothing else."""
    for channels in (1, 3):
        try:
            found = images.header(content, 1_000_000)
            pixels = images.decode(content, channels, 1_000_000)
        except Unreadable:
            pass
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == channels
            assert pixels.shape[0] * pixels.shape[1] == found.width * found.height


@given(st.binary(max_size=300), st.sampled_from([b"", *(content[:40] for content in samples())]))
@settings(max_examples=60, deadline=None)
def test_random_bytes_never_crash(content: bytes, start: bytes) -> None:
    assert_only_unreadable(start + content)


@given(
    st.sampled_from(samples()),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0.2, 1),
)
@settings(max_examples=150, deadline=None)
def test_mutated_images_never_crash(
    content: bytes, changes: list[tuple[float, int]], kept: float
) -> None:
    mutated = bytearray(content)
    for place, value in changes:
        # Half of the changes fall into the first 64 bytes, where formats keep what matters.
        span = len(mutated) if value % 2 else min(64, len(mutated))
        mutated[int(place * span)] = value
    assert_only_unreadable(bytes(mutated[: int(len(mutated) * kept)]))


@pytest.mark.slow
def test_nothing_is_printed_about_damage(tmp_path: Path) -> None:
    """In a process of its own, because pytest collects warnings; C libraries print there too."""
    random = np.random.default_rng(0)
    for number, content in enumerate(samples() * 8):
        mutated = bytearray(content)
        for place in random.integers(8, len(mutated), 6):
            mutated[place] = random.integers(256)
        (tmp_path / f"{number}.bin").write_bytes(mutated)
    program = """if True:
        import pathlib, sys
        from residua.data import image as images
        for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
            try:
                images.header(path.read_bytes(), 10**6)
                images.decode(path.read_bytes(), 3, 10**6)
            except images.Unreadable:
                pass
    """
    command = [sys.executable, "-W", "default", "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_every_image_of_messy_is_read_or_refused(shared_data: Path) -> None:
    for row in json.loads((shared_data / "messy.json").read_text("utf-8")):
        if row["expect"] in ("read", "reject"):
            preprocessing = Preprocessing(size=32, channels=3, crop=1.0, interpolation="antialias")
            path = shared_data / "messy" / row["file"]
            try:
                pixels = images.read_image(path, preprocessing, LIMIT)
            except Unreadable:
                assert row["expect"] == "reject", row
            else:
                assert row["expect"] == "read", row
                assert pixels.shape == (32, 32, 3)


def test_grey16_of_messy_is_neither_black_nor_white(shared_data: Path) -> None:
    content = (shared_data / "messy/owl/grey16.png").read_bytes()
    assert 30 < images.decode(content, 1, LIMIT).mean() < 100


# Files


def test_unreadable_files_have_a_reason(tmp_path: Path) -> None:
    preprocessing = Preprocessing(size=8, channels=3, crop=1.0, interpolation="antialias")
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, reason in {
        tmp_path / "missing.jpg": "cannot be read: No such file or directory",
        tmp_path: "is a folder, not an image",
        tmp_path / "pipe.jpg": "is not a regular file",
        Path("/dev/zero"): "is not a regular file",
        tmp_path / "null\0name.jpg": "cannot be read: ",
    }.items():
        with pytest.raises(Unreadable) as caught:
            images.read_image(path, preprocessing, LIMIT)
        assert str(caught.value).startswith(reason)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.write(png_header(4, 4))
        file.truncate(2**40)
    with pytest.raises(Unreadable, match="is larger than 1,073,741,824 bytes"):
        images.read_image(
            tmp_path / "huge.png",
            Preprocessing(size=8, channels=3, crop=1.0, interpolation="antialias"),
            LIMIT,
        )


# Geometry


def resized(pixels: Pixels, size: int, resize: str, interpolation: str) -> Pixels:
    settings = Preprocessing(
        size=size, channels=pixels.shape[2], resize=resize, interpolation=interpolation, crop=1.0
    )
    return images.resize(pixels, settings)


def torch_bilinear(pixels: Pixels, height: int, width: int) -> np.ndarray:
    tensor = torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        tensor, (height, width), mode="bilinear", align_corners=False, antialias=False
    )
    return resized[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(50, 70), (7, 300), (224, 223), (3, 2), (1, 1)])
@pytest.mark.parametrize("size", [1, 8, 33, 224])
def test_bilinear_is_that_of_an_independent_reference(
    shape: tuple[int, int], size: int, channels: int
) -> None:
    pixels = noise(*shape, channels)
    difference = resized(pixels, size, "squash", "bilinear") - torch_bilinear(pixels, size, size)
    assert np.abs(difference).max() <= 0.501


@pytest.mark.parametrize("shape", [(50, 70), (7, 300), (224, 223), (3, 2)])
@pytest.mark.parametrize("size", [1, 8, 32, 224])  # no ties, where Pillow's own sums are inexact
def test_nearest_and_antialias_are_those_of_pillow(shape: tuple[int, int], size: int) -> None:
    pixels = noise(*shape)
    for name, filter in (
        ("nearest", Image.Resampling.NEAREST),
        ("antialias", Image.Resampling.BILINEAR),
    ):
        expected = np.asarray(Image.fromarray(pixels).resize((size, size), filter))
        np.testing.assert_array_equal(resized(pixels, size, "squash", name), expected)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "antialias"])
@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (60, 60)])
def test_crop_is_shorter_side_then_centre(shape: tuple[int, int], interpolation: str) -> None:
    """Compared with resizing the whole image by a factor that divides, then cutting."""
    pixels = noise(*shape)
    height, width = (n // 2 for n in shape)
    filter = Image.Resampling.NEAREST if interpolation == "nearest" else Image.Resampling.BILINEAR
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), filter))
    if interpolation == "bilinear":
        whole = torch_bilinear(pixels, height, width)
    top, left = (height - 30) // 2, (width - 30) // 2
    expected = whole[top : top + 30, left : left + 30]
    difference = resized(pixels, 30, "crop", interpolation) - expected.astype(float)
    assert np.abs(difference).max() <= (1 if interpolation == "antialias" else 0.501)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "antialias"])
def test_pad_keeps_the_whole_image_on_black(interpolation: str) -> None:
    pixels = np.full((20, 40, 3), 200, np.uint8)
    padded = resized(pixels, 16, "pad", interpolation)
    expected = np.zeros((16, 16, 3), np.uint8)
    expected[4:12] = 200
    np.testing.assert_array_equal(padded, expected)
    np.testing.assert_array_equal(
        resized(pixels.swapaxes(0, 1), 16, "pad", interpolation), expected.swapaxes(0, 1)
    )


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "antialias"])
@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_a_long_thin_image_takes_no_memory(resize: str, interpolation: str) -> None:
    for shape in ((1, 100_000, 3), (100_000, 1, 3)):
        pixels = np.full(shape, 77, np.uint8)
        tracemalloc.start()
        result = resized(pixels, 224, resize, interpolation)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert result.shape == (224, 224, 3)
        assert result.max() == 77
        assert peak < 12_000_000


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "antialias"])
def test_an_image_of_the_right_size_is_returned_as_it_is(resize: str, interpolation: str) -> None:
    pixels = noise(32, 32)
    assert resized(pixels, 32, resize, interpolation) is pixels
    wider = np.concatenate([pixels, pixels[:, :1]], axis=1)  # odd rest: still no half pixel
    np.testing.assert_array_equal(resized(wider, 32, "crop", interpolation), pixels)
