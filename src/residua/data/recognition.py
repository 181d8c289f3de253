"""A path or the first bytes of a file -> the format of an image, or why it is none."""

from __future__ import annotations

import os
import re
from pathlib import Path

from residua.data.dataset import Unreadable
from residua.system.files import reason_of

START = 256  # bytes that identify the format of a file
_MAX_BYTES = 2**30  # of a file; 100 megapixels of 16-bit RGBA are 0.8e9
_MAX_COMPRESSED = 2**28  # of one that is always compressed
_COMPRESSED = ("JPEG", "GIF", "WEBP", "JPEG2000", "AVIF")

# First bytes of the raster formats that Pillow decodes itself, without running other programs.
_FORMATS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "WEBP": rb"RIFF.{4}WEBP",
    "PPM": rb"P[1-6]\s+(#|\d)|P[Ff]\s+\d",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "AVIF": rb".{4}ftypavi[fs]",
}
_BLANKS = re.compile(rb"\s{1,16}(?=\xff\xd8\xff|\x89PNG|GIF8)")  # as faulty web servers send them
# Suffixes of image files, including formats that are not read here.
_SUFFIX = re.compile(
    r"\.(jpe?g|jpe|jfif|a?png|gif|bmp|dib|tiff?|webp|p[pgbnf]m|jp2|j2k|jpx|avif|hei[cf]|"
    r"ico|svg|psd|eps|raw|cr[23w]|nef|nrw|arw|dng|raf|orf|rw2|pef|srw|x3f|jxl|tga|dcm|npy|npz|"
    r"exr|dds|hdr|pcx|mat|nii|h5|hdf5?|fits?)",
    re.IGNORECASE,
)
PACKED = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|gz|bz2|xz)", re.IGNORECASE)  # `archive` reads these
_OTHER_ARCHIVES = (".rar", ".7z")
_BACKUP = re.compile(r".*(_original|\.bak|\.orig|\.old|~)", re.IGNORECASE | re.DOTALL)
_FOREIGN = {
    "a HEIC photo, which is not supported: convert it to JPEG": rb".{4}ftyp(hei|hev|mif1|msf1)",
    "a camera's raw file: export it as JPEG": rb".{4}ftypcrx|FUJIFILMCCD-RAW|II(RO|RS|U\0)",
    "a JPEG XL image, which is not supported: convert it to JPEG": rb"\xff\n|\0{3}\x0cJXL ",
    "a Photoshop file: export it as PNG": rb"8BPS",
    "a PDF document": rb"%PDF",
    "a PostScript drawing: export it as PNG": rb"%!PS|\xc5\xd0\xd3\xc6",
    "an SVG drawing: export it as PNG": rb"(<\?xml[^>]*>\s*)?<svg",
    "an icon file: export it as PNG": rb"\0\0[\1\2]\0[^\0]\0",
    "a DICOM file, which is not supported: export it as PNG": rb".{128}DICM",
    "a NumPy array: save it as PNG": rb"\x93NUMPY",
    "an OpenEXR image, which is not supported: convert it to TIFF": rb"v/1\x01",
    "a DirectDraw texture, which is not supported: convert it to PNG": rb"DDS ",
    "a Radiance image, which is not supported: convert it to TIFF": rb"#\?(RADIANCE|RGBE)",
    "an HDF5 file: export its images as PNG": rb"\x89HDF\r\n\x1a\n",
    "a FITS file: export it as TIFF": rb"SIMPLE  =",
    "a zip archive": rb"PK\x03\x04",
    "a pointer of Git LFS, not the image: run git lfs pull": rb"version https://git-lfs",
    "a web page, perhaps of an error: download the image again": rb"\s*<(?i:!doctype )?(?i:html)\b",
    # after the icons, which begin alike; without a palette, bytes 3 to 7 of the header are 0
    "a TGA image, which is not supported: convert it to PNG": (
        rb".\0[\2\3\x0a\x0b]\0{5}|.\x01[\1\x09]"
    ),
}


def is_claimed(path: Path) -> bool:
    """Whether a file has the suffix of an image."""
    return _SUFFIX.fullmatch(path.suffix) is not None


def has_archive_suffix(path: Path) -> bool:
    """Whether a file has the suffix of an archive; files of images and tables may be inside."""
    return PACKED.fullmatch(path.suffix) is not None or path.suffix.lower() in _OTHER_ARCHIVES


def is_backup(path: Path) -> bool:
    """Whether the name is that of a copy that a program made before it changed a file."""
    return _BACKUP.fullmatch(path.name) is not None


def objection(path: Path) -> str | None:
    """Why a file is not an image, by its type and first bytes alone; None if it may be one."""
    try:
        if not path.is_file():  # reading a pipe would block, a device might never end
            path.stat()
            return "is a folder, not an image" if path.is_dir() else "is not a regular file"
        with path.open("rb") as file:
            start = file.read(START)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        return f"cannot be read: {reason_of(error)}"
    return objection_to(start)


def objection_to(content: bytes) -> str | None:
    """Why content with these first bytes is not an image; None if it may be one."""
    start = content[:START]
    if not start or format_of(without_blanks(start)):
        return None if start else "is empty"
    for description, signature in _FOREIGN.items():
        if re.match(signature, start, re.DOTALL):
            return f"is {description}"
    first_word = (start.split(maxsplit=1) or [b" "])[0][:16]
    return f"is not an image: starts with {repr(first_word)[1:]}"


def format_of(content: bytes) -> str | None:
    """The format, such as "JPEG", by the first bytes; None if they are not an image's."""
    for name, signature in _FORMATS.items():
        if re.match(signature, content[:START], re.DOTALL):
            return name
    return None


def without_blanks(content: bytes) -> bytes:
    """The content without blank bytes before an image."""
    blanks = _BLANKS.match(content[:START])
    return content[blanks.end() :] if blanks else content


def read_file(path: Path) -> bytes:
    """The content of a regular file of at most 1 GiB, of a JPEG 256 MiB. Raises Unreadable."""
    try:
        if not path.is_file():
            raise Unreadable(objection(path) or "is not a regular file")
        with path.open("rb") as file:
            start = without_blanks(file.read(START))
            limit = _MAX_COMPRESSED if format_of(start) in _COMPRESSED else _MAX_BYTES
            if os.fstat(file.fileno()).st_size > limit:
                raise Unreadable(objection_to(start) or f"is larger than {limit:,} bytes")
            file.seek(0)
            return file.read()
    except (OSError, ValueError) as error:
        raise Unreadable(f"cannot be read: {reason_of(error)}") from error
