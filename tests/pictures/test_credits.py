"""Credits: read from EXIF, IPTC and XMP, written into every format, read there by other means, and no more than them."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.picture_files import chunks_of, noise, pil_bytes, put

from style_transfer import pictures
from style_transfer.pictures.credits import NAMESPACES, Credits, read_credits, xmp_packet

FULL = Credits(
    "Ana Núñez", "Flight <suit>", "A & B", "© 2024 Ana", "2024-05-06T07:08:09", "52,31.200000N", "13,24.300000E"
)  # fmt: skip
IMAGE = Image.fromarray(noise(8, 9, dtype=np.uint8))


def exif(**more: object) -> Image.Exif:
    block = Image.Exif()
    block[0x013B], block[0x8298], block[0x010E] = "Ana Núñez".encode(), "© 2024 Ana".encode(), "A & B"
    block[0x0112] = 6
    block.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    block.get_ifd(0x8825).update({1: "N", 2: (52, 31, 12), 3: "E", 4: (13, 24, 18)})
    for tag, value in more.items():
        block[int(tag[1:])] = value
    return block


def iptc(*sets: tuple[int, bytes]) -> bytes:
    """Return a Photoshop segment (APP13) with data sets of record 2."""
    data = b"".join(struct.pack(">BBBH", 0x1C, 2, number, len(text)) + text for number, text in sets)
    body = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(data)) + data + bytes(len(data) % 2)
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


def test_exif(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jpg", pil_bytes(IMAGE, "JPEG", exif=exif()))
    found = read_credits(path)
    assert found == Credits(FULL.author, "", FULL.description, FULL.copyright, FULL.date, FULL.latitude, FULL.longitude)
    assert found.without_place() == Credits(FULL.author, "", FULL.description, FULL.copyright, FULL.date)
    assert found.found == ["author", "description", "copyright", "date", "latitude", "longitude"]
    for text in ("OLYMPUS DIGITAL CAMERA         ", '{"Software": "style_transfer"}'):
        put(path, pil_bytes(IMAGE, "JPEG", exif=exif(_270=text)))
        assert read_credits(path).description == ""


def test_iptc_counts_before_exif_and_xmp_before_both(tmp_path: Path) -> None:
    data = pil_bytes(IMAGE, "JPEG", exif=exif())
    sets = iptc((80, b"Bo"), (80, b"Cy"), (5, "Tïtle".encode()), (116, "© Bo".encode("latin-1")), (55, b"20230102"))
    path = put(tmp_path / "a.jpg", data[:2] + sets + data[2:])
    found = read_credits(path)
    assert (found.author, found.title, found.copyright, found.date) == ("Bo, Cy", "Tïtle", "© Bo", "2023-01-02")
    assert (found.description, found.latitude) == ("A & B", FULL.latitude)
    packet = xmp_packet(72, Credits(author="Di", title="X", date="2022-03"))
    data = pil_bytes(IMAGE, "JPEG", exif=exif(), xmp=packet)
    found = read_credits(put(path, data[:2] + sets + data[2:]))
    assert (found.author, found.title, found.copyright, found.date) == ("Di", "X", "© Bo", "2022-03")


def test_xmp_of_other_programs(tmp_path: Path) -> None:
    """Attributes instead of elements, several creators, and several languages of which the first is the default."""
    spaces = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
    packet = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {spaces}>
    <rdf:Description rdf:about="" photoshop:DateCreated="2020-01-02"/>
    <rdf:Description rdf:about=""><dc:creator><rdf:Seq><rdf:li>A</rdf:li><rdf:li>B</rdf:li></rdf:Seq></dc:creator>
    <dc:rights><rdf:Alt><rdf:li xml:lang="x-default">ours</rdf:li><rdf:li xml:lang="de">unser</rdf:li></rdf:Alt></dc:rights>
    </rdf:Description></rdf:RDF></x:xmpmeta>"""
    path = put(tmp_path / "a.jpg", pil_bytes(IMAGE, "JPEG", xmp=packet.encode()))
    assert read_credits(path) == Credits(author="A, B", copyright="ours", date="2020-01-02")


@pytest.mark.parametrize(
    "packet",
    [b"<x", b"\xff\xfe\0", b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', b"<x>" + b" " * (2 << 20) + b"</x>"],
    ids=["cut", "bytes", "entities", "huge"],
)
def test_damaged_xmp_is_ignored(packet: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    put(path, pil_bytes(IMAGE, "WEBP", exif=exif(), xmp=packet))
    assert read_credits(path).author == FULL.author
    put(path, pil_bytes(IMAGE, "WEBP", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", xmp=packet))
    assert read_credits(path) == Credits()
    assert read_credits(put(path, b"no picture")) == read_credits(tmp_path / "none.jpg") == Credits()


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
def test_credits_come_back_and_nothing_else(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    pixels = noise(20, 20) / 65535
    metadata = {"Software": "test", "Recipe": "{}"}
    pictures.save(path, pixels, dpi=300, metadata=metadata, credits=FULL)
    assert read_credits(path) == FULL
    assert pictures.read_metadata(path) == metadata
    with Image.open(path) as image:
        tags = image.getexif()
        assert 0x0112 not in tags or suffix == ".tif"  # tifffile's orientation is 1
        assert 0x8825 not in tags and not tags.get_ifd(1)  # the place is in XMP alone, and there is no thumbnail
    pictures.save(path, pixels, credits=Credits(title="x"))
    assert read_credits(path) == Credits(title="x")
    pictures.save(path, pixels)
    assert read_credits(path) == Credits()


def test_other_readers_find_credits(tmp_path: Path) -> None:
    for suffix in (".tif", ".png", ".jpg", ".pdf"):
        pictures.save(tmp_path / f"a{suffix}", noise(20, 20) / 65535, dpi=300, credits=FULL)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages.first.tags
        assert tags["Artist"].value == FULL.author and tags["Copyright"].value == FULL.copyright
        packets = [tags[700].value]
    packets.append(chunks_of((tmp_path / "a.png").read_bytes())[b"iTXt"].partition(b"\0\0\0\0\0")[2])
    with Image.open(tmp_path / "a.jpg") as image:
        packets.append(image.info["xmp"])
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
    data = (tmp_path / "a.pdf").read_bytes()
    packets.append(data[data.index(b"<?xpacket b") : data.index(b'end="w"?>') + 9])
    for packet in packets:
        texts = [node.text for node in ElementTree.fromstring(packet).iter() if node.text and node.text.strip()]
        assert {*vars(FULL).values()} <= {*texts}
    author = re.search(rb"/Author <([0-9a-f]+)>", data)
    assert author is not None and bytes.fromhex(author[1].decode()).decode("utf-16") == FULL.author


def test_dates_without_a_time_are_no_exif_dates() -> None:
    assert Credits(date="2024-05").exif_date == Credits(date="2024-05-06").exif_date == Credits().exif_date == ""
    assert Credits(date="2024-05-06T07:08:09+02:00").exif_date == "2024:05:06 07:08:09"
