"""PDF: the picture, boxes and crop marks by other programs' readings and by a small reader of our own; PDF/X-4; damage."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageCms
from support.picture_files import noise, put
from support.profiles import ADOBE_TO_D50, Array, cmyk_profile, rgb_profile

from style_transfer import pictures
from style_transfer.errors import OutputError
from style_transfer.geometry import Sheet
from style_transfer.pictures.encode import pdf
from style_transfer.pictures.encode.saving import Encoding
from style_transfer.pictures.press import Press
from style_transfer.pictures.working import read_space

PRESS = Press(cmyk_profile(0.1), "cmyk", "test press")
SHEET = Sheet(60, 40, 3, 25.4)
PIXELS = noise(46, 66, dtype=np.uint8).astype(np.float32) / np.float32(255)
MM = 72 / 25.4


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def objects_of(path: Path) -> dict[int, tuple[str, bytes]]:
    """Return each object of a file by its number: its dictionary and its data, found by the table at the end."""
    data = path.read_bytes()
    table = data[int(data.split(b"startxref\n")[1].split()[0]) :]
    found = {}
    for number, place in enumerate(re.findall(rb"(\d{10}) 00000 n", table), 1):
        body = data[int(place) :]
        assert body.startswith(b"%d 0 obj\n" % number)
        head, _, rest = body.partition(b"\nstream\n")
        head = head.partition(b"\nendobj")[0] if b"endobj" in head else head
        length = re.search(rb"/Length (\d+)( 0 R)?", head)
        size = 0
        if length is not None:
            size = int(length[1])
            if length[2]:
                at = data.index(b"\n%d 0 obj\n" % size)
                size = int(data[at:].split(b"\n")[2])
        found[number] = head.split(b" obj\n", 1)[1].decode("latin-1"), rest[:size]
    return found


def unfiltered(data: bytes, width: int, channels: int) -> Array:
    """Return 8-bit samples from PNG's scanlines of the filters 0, 1 and 2."""
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(-1, 1 + width * channels)
    result = np.zeros((len(rows) + 1, width, channels), np.uint8)
    for number, (kind, *_) in enumerate(rows, 1):
        row = rows[number - 1, 1:].reshape(width, channels)
        result[number] = row if kind == 0 else np.cumsum(row, 0, dtype=np.uint8) if kind == 1 else row + result[number - 1]
    return result[1:]


def boxes(page: str) -> dict[str, list[float]]:
    return {name: [float(x) for x in box.split()] for name, box in re.findall(r"/(\w+Box) \[([^]]*)\]", page)}


@pytest.mark.parametrize("marks", [False, True])
def test_boxes(marks: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    pictures.save(path, PIXELS, sheet=SHEET, crop_marks=marks)
    page, content = (objects_of(path)[number] for number in (pdf.PAGE, pdf.CONTENT))
    edge = 8 if marks else 3
    expected = {
        "MediaBox": [0, 0, 60 + 2 * edge, 40 + 2 * edge],
        "BleedBox": [edge - 3, edge - 3, edge + 63, edge + 43],
        "TrimBox": [edge, edge, edge + 60, edge + 40],
    }
    for name, box in boxes(page[0]).items():
        assert box == pytest.approx([MM * side for side in expected.pop(name)], abs=1e-4)
    assert not expected and b"UserUnit" not in page[0].encode()
    matrix = [float(x) for x in content[1].split()[1:7]]
    assert matrix == pytest.approx([66 * MM, 0, 0, 46 * MM, (edge - 3) * MM, (edge - 3) * MM], abs=1e-4)
    lines = re.findall(rb"([\d.]+) ([\d.]+) m ([\d.]+) ([\d.]+) l", content[1])
    assert len(lines) == 8 * marks
    for line in lines:  # each mark is 5 mm long, on a line of the trimmed print, and outside of the bleed
        x1, y1, x2, y2 = (float(value) / MM for value in line)
        assert np.hypot(x2 - x1, y2 - y1) == pytest.approx(5, abs=1e-3)
        on_trim = (x1 in (pytest.approx(8, abs=1e-3), pytest.approx(68, abs=1e-3)) and x1 == x2) or (
            y1 in (pytest.approx(8, abs=1e-3), pytest.approx(48, abs=1e-3)) and y1 == y2
        )
        assert on_trim and not any(5.01 < x < 70.99 and 5.01 < y < 50.99 for x, y in ((x1, y1), (x2, y2)))


def test_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    pictures.save(path, PIXELS, dpi=254, metadata={"Software": "test 1", "Recipe": '{"a": "(é\\)"}'})
    found = objects_of(path)
    assert boxes(found[pdf.PAGE][0])["TrimBox"] == pytest.approx([0, 0, 6.6 * MM, 4.6 * MM], abs=1e-4)
    np.testing.assert_array_equal(unfiltered(found[pdf.PICTURE][1], 66, 3), np.rint(PIXELS * 255))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(zlib.decompress(found[pdf.PROFILE][1])))
    assert "sRGB" in ImageCms.getProfileDescription(profile) and "/N 3" in found[pdf.PROFILE][0]
    assert "OutputIntents" not in found[pdf.CATALOG][0] and b"PDFX" not in found[pdf.METADATA][1]
    assert "/Producer (test 1)" in found[pdf.INFO][0]
    recipe = re.search(r"/Recipe <([0-9a-f]+)>", found[pdf.INFO][0])
    assert recipe is not None and bytes.fromhex(recipe[1]).decode("utf-16") == '{"a": "(é\\)"}'
    pictures.save(path, PIXELS, space=read_space("--output-space", "display-p3"))
    assert b"Display P3" in zlib.decompress(objects_of(path)[pdf.PROFILE][1])


def test_cmyk_is_pdf_x(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    pictures.save(path, PIXELS, press=PRESS, sheet=SHEET, crop_marks=True)
    found = objects_of(path)
    np.testing.assert_array_equal(unfiltered(found[pdf.PICTURE][1], 66, 4), np.rint(PRESS.convert(PIXELS) * 255))
    catalog = found[pdf.CATALOG][0]
    assert f"/S /GTS_PDFX /OutputConditionIdentifier (test) /Info (test) /DestOutputProfile {pdf.PROFILE} 0 R" in catalog
    assert zlib.decompress(found[pdf.PROFILE][1]) == PRESS.icc and "/N 4" in found[pdf.PROFILE][0]
    assert "/ColorSpace /DeviceCMYK" in found[pdf.PICTURE][0] and "/Separation /All /DeviceCMYK" in found[pdf.PAGE][0]
    texts = {node.tag.partition("}")[2]: node.text for node in ElementTree.fromstring(found[pdf.METADATA][1]).iter()}
    assert texts["GTS_PDFXVersion"] == "PDF/X-4" and texts["Trapped"] == "False" and texts["VersionID"] == "1"
    date = re.search(r"/CreationDate \(D:(\d{14})Z\)", found[pdf.INFO][0])
    assert date is not None and re.sub(r"\D", "", texts["CreateDate"] or "") == date[1]
    assert re.search(rb"trailer\n.*/ID \[<[0-9a-f]{32}>", path.read_bytes())
    printer = Press(rgb_profile(ADOBE_TO_D50, 2.2), "rgb", "printer")
    pictures.save(path, PIXELS, press=printer)
    assert "OutputIntents" not in objects_of(path)[pdf.CATALOG][0]


def test_a_page_above_five_metres_has_larger_units(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    pictures.save(path, PIXELS, sheet=Sheet(12000, 900, 0, 1))
    page = objects_of(path)[pdf.PAGE][0]
    assert "/UserUnit 3 " in page and boxes(page)["TrimBox"] == pytest.approx([0, 0, 12000 * MM / 3, 900 * MM / 3], abs=1e-4)


def test_other_programs_read_the_same(tmp_path: Path) -> None:
    needs("qpdf")
    needs("pdfinfo")
    for name, about in {"rgb": {}, "cmyk": {"press": PRESS}}.items():
        path = tmp_path / f"{name}.pdf"
        pictures.save(path, PIXELS, sheet=SHEET, crop_marks=True, metadata={"Software": "test 1"}, **about)
        assert "No syntax or stream encoding errors found" in run("qpdf", "--check", path)
        info = run("pdfinfo", "-box", path)
        assert re.search(r"TrimBox: +22\.68 +22\.68 +192\.76 +136\.06\n", info) and "test 1" in info
        assert re.search(r"BleedBox: +14\.17 +14\.17 +201\.26 +144\.57\n", info)
        image = run("pdfimages", "-list", path).splitlines()[2].split()
        assert image[3:8] == (["66", "46", "cmyk", "4", "8"] if about else ["66", "46", "icc", "3", "8"])
        assert image[12:14] == ["25", "25"]


def test_a_rendered_page_shows_the_picture_and_its_marks(tmp_path: Path) -> None:
    needs("pdftoppm")
    smooth = np.stack(np.broadcast_arrays(*np.ogrid[0:1:46j, 0:1:66j], 0.5), -1).astype(np.float32)
    pictures.save(tmp_path / "a.pdf", smooth, sheet=SHEET, crop_marks=True)
    run("pdftoppm", "-r", "127", "-png", "-singlefile", tmp_path / "a.pdf", tmp_path / "a")  # 5 pixels a millimetre
    with Image.open(tmp_path / "a.png") as image:
        page = np.asarray(image.convert("RGB")) / 255
    assert page.shape[0] in (280, 281) and page.shape[1] in (380, 381)  # poppler rounds up
    page = page[-280:, :380]
    inside = page[25:-25, 25:-25].reshape(46, 5, 66, 5, 3).mean((1, 3))
    assert np.abs(inside - smooth).mean() < 0.01
    assert page[38:43, 5:20].min() < 0.5 and (page[15:35, 5:20] == 1).all()  # a mark at the upper edge of the trimmed print
    assert page[5:20, 38:43].min() < 0.5 and (page[:22, 45:-45] == 1).all()


@pytest.mark.parametrize("damage", ["end", "table", "picture"])
def test_damage_is_noticed_before_the_old_file_is_replaced(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.pdf", b"old")
    pictures.save(tmp_path / "good.pdf", PIXELS)
    data = bytearray((tmp_path / "good.pdf").read_bytes())
    at = {"end": len(data) - 3, "table": data.rindex(b"00000 n") - 3, "picture": data.index(b"stream\nx") + 2000}[damage]
    data[at] ^= 1
    with pytest.raises(Exception, match=r"read back|invalid|incorrect|Error -3"):
        pdf.check(io.BytesIO(bytes(data)), PIXELS, Encoding())
    broken = pdf.OutputFormat("PDF", bits=8, alpha=False, encode=lambda stream, *_: stream.write(bytes(data)), check=pdf.check)
    monkeypatch.setattr("style_transfer.pictures.encode.saving.format_of", lambda _: broken)
    with pytest.raises(OutputError, match=r"a\.pdf: cannot be written"):
        pictures.save(path, PIXELS)
    assert path.read_bytes() == b"old"
