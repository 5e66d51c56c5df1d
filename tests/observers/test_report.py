"""The report: a page that loads nothing, is complete, and is accessible."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.report_page import Page
from support.runs import Asked, progress, result, run_info

from style_transfer.errors import NumericError, SettingsError
from style_transfer.files import Task
from style_transfer.observers.animation.frames import load_fitted
from style_transfer.observers.history import History
from style_transfer.observers.report import Report, ReportOptions, elements
from style_transfer.observers.report import page as report_page
from style_transfer.observers.report.page import RunRecord, command
from style_transfer.pictures import tensors
from style_transfer.registry import OBSERVERS
from style_transfer.settings import Settings

HOSTILE = '"><script>alert(1)<\\script>\u202egnp.jpg'
SCALES = ((24, 32, 6), (48, 64, 4))


def recipe(**settings: Any) -> dict[str, Any]:
    return {
        "program": "style_transfer 9.9", "command": "style_transfer /home/somebody/x", "dpi": 72,
        "settings": Settings(**settings).resolve().as_dict(),
        "content": {"name": HOSTILE, "sha256": "0" * 64}, "styles": [{"name": "s.png", "sha256": "1" * 64}],
        "network": {"name": "compact", "weights": "built-in sha256:ab", "note": ""}, "precision": "fp32",
        "devices": ["cpu"], "threads": 2, "versions": {"python": "3.11.0", "torch": "2.15"},
        "scales": [{"width": w, "height": h, "steps": steps} for h, w, steps in SCALES],
    }  # fmt: skip


def iterate(step: int, index: int, seconds: float) -> Any:
    height, width, steps = SCALES[index]
    value = 1 / (1 + step + 6 * index)
    return SimpleNamespace(
        index=index, step=step, steps=steps, size=(height, width), seconds=seconds, memory=(index + 1) * 10**8, tiles=(1,),
        loss=torch.tensor(2 * value), parts={"content relu4_2": torch.tensor(value), "tv <b>": torch.tensor(value / 3)},
        ends_scale=step == steps, ends_run=step == steps and index == len(SCALES) - 1, w=width, h=height,
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in (HOSTILE, "s.png", "result.png"):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def follow(place: Path, upto: int = 10, resumed: int = 0, paused: float = 0.0, **settings: Any) -> tuple[Report, Any]:
    """Return a report that has followed some steps of a run, of 1 s each, and the last of them."""
    report = Report(ReportOptions(report=str(place / "r.html")))
    inputs = [("content", str(place / HOSTILE)), ("style", str(place / "s.png"))]
    report.begin(run_info(
        place / "result.png", recipe=recipe(**settings), inputs=inputs, history=History(steps=resumed), seconds=float(resumed),
        resumed=(1, resumed - 6) if resumed else None,
    ))  # fmt: skip
    done, last = 0, None
    for index, (height, width, steps) in enumerate(SCALES):
        for step in range(1, steps + 1):
            done += 1
            if done > upto or done <= resumed:
                continue
            last = iterate(step, index, done + paused)
            report.step(progress(last, paused=paused))
            if last.ends_scale:
                report.saved(progress(last, paused=paused), np.full((height, width, 3), 0.5, np.float32))
    return report, last


def write(place: Path, *, name: str = "result.png", status: str = "finished", **about: Any) -> Page:
    report, last = follow(place, **about)
    assert report.end(result(last, place / name, status)) == {"report": place / "r.html"}
    return Page((place / "r.html").read_text("utf-8"))


def record(**about: Any) -> RunRecord:
    return RunRecord(run_info(recipe=recipe(), **about))


def test_the_page_loads_nothing_and_its_policy_is_strict(place: Path) -> None:
    page = write(place)
    text = (place / "r.html").read_text("utf-8")
    rest = re.sub(r'"data:image/(png|jpeg);base64,[\w+/=]*"|sha256-[\w+/=]*', "", text)
    assert not re.search(r"https?:|//|url\(|@import|javascript:|data:image/", rest)
    assert {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "embed", "form", "a", "base"} == set()
    assert not any(name.startswith("on") or name == "style" for _, found in page.elements for name in found)
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy and "unsafe" not in policy
    assert all(image["src"].startswith(("data:image/jpeg;base64,", "data:image/png;base64,")) for image in page.all("img"))


def test_names_of_files_are_only_text(place: Path) -> None:
    page = write(place)
    text = "".join(page.texts)
    assert "<script>alert(1)" in text and "\u202e" not in (place / "r.html").read_text("utf-8")
    assert "\\u202e" in text
    assert "tv <b>" in text and not page.all("b")
    assert str(place) not in (place / "r.html").read_text("utf-8")
    assert "/home/somebody" not in (place / "r.html").read_text("utf-8")


def test_pictures_are_whole_bounded_and_described(place: Path) -> None:
    big = np.random.default_rng(1).integers(0, 255, (1200, 3000, 3), dtype=np.uint8)
    Image.fromarray(big).save(place / "result.png")
    page = write(place)
    found = []
    for image in page.all("img"):
        data = base64.b64decode(image["src"].partition(",")[2], validate=True)
        opened = Image.open(io.BytesIO(data))
        opened.load()
        assert (str(opened.width), str(opened.height)) == (image["width"], image["height"])
        assert image["alt"]
        found.append(max(opened.size))
    assert found == [report_page.RESULT_SIDE, 64, 64, 32, 64]  # the result, content and style, two scales


def test_transparency_stays() -> None:
    pixels = np.dstack([np.full((900, 1000, 3), 0.5, np.float32), np.tile(np.linspace(0, 1, 1000, dtype=np.float32), (900, 1))])
    (found,) = Page(elements.make_figure(pixels, 1600, "a", "b")).all("img")
    assert found["src"].startswith("data:image/png") and int(found["width"]) == elements.TRANSPARENT_SIDE
    assert "data:image/jpeg" in elements.make_figure(pixels[..., :3], 1600, "a", "b")


def test_every_loss_term_has_a_curve_and_a_row(place: Path) -> None:
    page = write(place)
    paths = [found["d"] for found in page.all("path")]
    assert len(paths) == 3
    for path in paths:
        points = [tuple(map(float, point.split())) for point in re.split("[ML]", path)[1:]]
        assert len(points) == 10
        assert [x for x, _ in points] == sorted(x for x, _ in points) and (points[0][0], points[-1][0]) == (0, 1000)
        assert all(0 <= y <= 1000 for _, y in points)
        assert [y for _, y in points] == sorted(y for _, y in points)  # losses fall, and down is more
    ends = [line for line in page.all("line") if line.get("class") == "scale"]
    assert [line["x1"] for line in ends] == [f"{100 * 5 / 9:.2f}%"]
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["sum"] == ["0.2857", "0.1818"]
    assert rows["content relu4_2"] == ["0.1429", "0.09091"]
    labels = {found.get("aria-label", "") for _, found in page.elements}
    assert any("Curves of 3 loss terms over iterations 1 to 10" in label for label in labels)


def test_values_that_are_not_finite_or_zero_leave_gaps() -> None:
    rows: list[list[float | None]] = [[1, 1.0], [2, None], [3, 0.0], [4, 0.5], [5, 0.4]]
    drawn = Page(elements.chart(rows, ("loss",), [(5, "64")], 0))
    (path,) = [found["d"] for found in drawn.all("path")]
    assert path.count("M") == 2 and path.count("L") == 1
    assert "No loss was positive" in elements.chart([[1, None]], ("loss",), [(1, "64")], 0)
    assert Page(elements.chart([[1, 2.0]], ("loss",), [(1, "64")], 0)).all("path")


def test_long_runs_have_bounded_curves() -> None:
    rows: list[list[float | None]] = [[step, 1 / step] for step in range(1, 2001)]
    (path,) = [found["d"] for found in Page(elements.chart(rows, ("loss",), [(2000, "64")], 0)).all("path")]
    assert path.count("L") < elements.MAX_POINTS + 2 and path.startswith("M0.0 ") and "L1000.0 1000.0" in path


def test_tables_have_heads_and_captions(place: Path) -> None:
    page = write(place)
    assert len(page.all("table")) == len(page.all("caption")) >= 5
    assert all(found.get("scope") in ("col", "row") for found in page.all("th"))
    assert page.all("html")[0]["lang"] == "en" and any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert len(page.all("h1")) == 1 and len(page.all("main")) == 1
    svgs = page.all("svg")
    assert all("role" in found or found.get("aria-hidden") == "true" or "viewbox" in found for found in svgs)


def test_times_and_memory_by_scale(place: Path) -> None:
    rows = {row[0]: row[1:] for row in write(place).rows if len(row) == 6}
    times = "\u00d7"
    assert rows[f"32 {times} 24"] == ["6", "0:06", "1 s", "1", "100 MB"]
    assert rows[f"64 {times} 48"] == ["4", "0:04", "1 s", "1", "200 MB"]


def test_settings_that_differ_are_listed_and_all_are_in_a_table_of_their_own(place: Path) -> None:
    page = write(place, network="compact", content_weight=0.123456789, weights="/home/x/w.safetensors", normalize_gradients=True)
    rows = [row for row in page.rows if len(row) == 3 and row[0].startswith("--")]
    default = str(Settings().resolve().content_weight)
    assert [row for row in rows if row[0] == "--content-weight"] == [["--content-weight", "0.123457", default]]
    assert ["--weights", "w.safetensors", "none"] in rows
    assert {row[0] for row in rows} == {"--network", "--content-weight", "--weights", "--normalize-gradients"}
    assert {row[0] for row in page.rows if len(row) == 2 and row[0].startswith("--")} >= {"--pooling", "--alpha", "--network"}
    assert page.all("details")
    command = shlex.split(next(text for text in page.texts if text.startswith("style_transfer '")))
    settings = "--content-weight 0.123456789 --normalize-gradients --network compact --weights w.safetensors"
    assert command[2:] == ["s.png", *settings.split()]


def test_the_command_names_masks_and_the_proof(place: Path) -> None:
    more = {"style_masks": [{"name": "m.png"}], "proof": {"name": "p.icc"}}
    assert shlex.split(command(recipe() | more))[3:] == ["--style-mask", "m.png", "--proof", "p.icc"]


def test_with_defaults_nothing_differs(place: Path) -> None:
    assert "All settings have their default values." in write(place).texts


def test_hashes_versions_and_device_are_there(place: Path) -> None:
    page = write(place)
    rows = {tuple(row[:2]): row[2] for row in page.rows if len(row) == 3}
    assert rows["result", "result.png"] == hashlib.sha256((place / "result.png").read_bytes()).hexdigest()
    assert rows["style", "s.png"] == hashlib.sha256((place / "s.png").read_bytes()).hexdigest()
    facts = {row[0]: row[1] for row in page.rows if len(row) == 2}
    assert (facts["torch"], facts["devices"], facts["program"]) == ("2.15", "cpu", "style_transfer 9.9")


def test_a_report_of_a_stopped_run_has_its_last_iteration(place: Path) -> None:
    page = write(place, upto=8, status="stopped")
    assert any(text.startswith("stopped at 64x48, iteration 2 of 4") for text in page.texts)
    rows = {row[0]: row[1:] for row in page.rows if len(row) == 6}
    assert rows["64 \u00d7 48"][0] == "2 of 4"
    assert {row[0]: row[1:] for row in page.rows}["sum"] == ["0.2857", "0.2222"]


def test_a_report_of_a_resumed_run_has_the_iteration_it_continued_from(place: Path) -> None:
    page = write(place, resumed=7)
    assert any("after iteration 7" in text for text in page.texts)
    points = re.split("[ML]", page.all("path")[0]["d"])[1:]
    assert len(points) == 3 and points[0].startswith("0.0 ")
    assert {row[0]: row[1:] for row in page.rows if len(row) == 6 and row[0] != "Scale"} == {
        "64 \u00d7 48": ["4", "0:03", "0.75 s", "1", "200 MB"]
    }


def test_pauses_are_not_part_of_the_time(place: Path) -> None:
    page = write(place, paused=1000.0)
    rows = {row[0]: row[1:] for row in page.rows if len(row) == 6}
    assert rows["32 \u00d7 24"][1] == "0:06" and "Total: 0:10" in page.texts


def test_without_a_result_or_iterations_there_is_a_page(place: Path) -> None:
    page = write(place, upto=0, name="missing.png")
    assert any("cannot be shown" in text for text in page.texts)
    assert "No iteration was completed; there are no curves." in page.texts


def test_a_run_that_fails_has_a_report_once_there_is_a_picture(place: Path) -> None:
    report, _ = follow(place, upto=3)
    report.fail(NumericError("<not finite>"), None)
    assert not (place / "r.html").exists()
    report, _ = follow(place, upto=7)
    report.fail(NumericError("<not finite>"), place / "result.png")
    page = Page((place / "r.html").read_text("utf-8"))
    assert any(text.startswith("failed: <not finite>") for text in page.texts) and len(page.all("img")) == 4


def test_each_scale_shows_the_last_picture_that_was_saved(place: Path) -> None:
    report, last = follow(place, upto=8)
    report.saved(progress(last), np.zeros((48, 64, 4), np.float32))
    report.end(result(last, place / "result.png", "stopped"))
    page = Page((place / "r.html").read_text("utf-8"))
    assert "64 \u00d7 48, iteration 2" in page.texts
    data = base64.b64decode(page.all("img")[-1]["src"].partition(",")[2])
    found = np.asarray(Image.open(io.BytesIO(data)))
    assert found.shape == (48, 64, 4) and found.max() == 0  # it keeps its transparency


def test_many_inputs_are_named_and_some_shown(place: Path) -> None:
    inputs = [("style", str(place / "s.png"))] * 40 + [("weights", str(place / "result.png")), ("profile", str(place / "none"))]
    made = record(inputs=inputs)
    assert len(made.inputs) == report_page.MAX_INPUTS and len(made.files) == 42
    assert made.files[-1][2] == "cannot be read"


def test_a_report_has_the_suffix_html_and_is_written_by_rank_0() -> None:
    kind = OBSERVERS["report"]
    task = Task("c.png", ("s.png",), Path("o.png"))
    assert list(kind.create(Asked({"report": "{output}.html"})).files(task)) == [("--report", Path("o.html"))]
    with pytest.raises(SettingsError, match=r"--report r.pdf must end in .html"):
        kind.create(Asked({"report": "r.pdf"})).files(task)
    assert kind.create(Asked()) is None and kind.create(Asked({"report": "r.html"}, rank=1)) is None


def test_the_history_counts_an_iterate_once() -> None:
    history = History(steps=100)
    one = iterate(1, 0, 1.0)
    history.add(one)
    history.add(one)
    history.add(iterate(2, 0, 2.0))
    history.read(wait=True)
    assert [row[0] for row in history.rows] == [101, 102]


def test_large_inputs_are_reduced_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 4), dtype=np.uint8)).resize((320, 240))
    image.convert("RGB").save(tmp_path / "a.png")
    image.save(tmp_path / "alpha.png")
    whole, _ = load_fitted(tmp_path / "a.png", 64, 10**6)
    monkeypatch.setattr(tensors, "WHOLE_PIXELS", 0)
    small, size = load_fitted(tmp_path / "a.png", 64, 10**6)
    assert whole.shape == (240, 320, 3) and small.shape == (48, 64, 3) and size == (240, 320)
    assert np.abs(elements.thumbnail(small, 64) - elements.thumbnail(whole, 64).astype(float)).mean() < 2
    assert load_fitted(tmp_path / "alpha.png", 64, 10**6)[0].shape == (240, 320, 4)
