"""Makes the example pictures: a rendered scene, and two paintings of brush strokes.

    python examples/make_pictures.py [FOLDER]

Everything is drawn by this file, from a fixed seed: scene.jpg is a lake at dusk, painting.jpg swirls of long bristly strokes, and
painting2.jpg short dabs in warm colours.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray


def noise(rng: np.random.Generator, height: int, width: int, cells: float, octaves: int = 1, falloff: float = 0.5) -> Array:
    """Return smooth noise in about [-1, 1]: `cells` of it across the width, each octave twice as fine and `falloff` as strong."""
    total, strength, norm = np.zeros((height, width)), 1.0, 0.0
    for octave in range(octaves):
        across = max(2, round(cells * 2**octave))
        grid = rng.uniform(-1, 1, (max(2, round(across * height / width)) + 1, across + 1)).astype(np.float32)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += strength * np.asarray(layer)
        norm += strength
        strength *= falloff
    return total / norm


def mix(a: Array, b: Array, t: Array) -> Array:
    """Return a blend of two pictures or colours, t in [0, 1] per pixel."""
    t = np.clip(t, 0, 1)[..., None]
    return np.asarray(a) * (1 - t) + np.asarray(b) * t


def sky(rng: np.random.Generator, height: int, width: int, horizon: int) -> Array:
    """Return a dusk sky with lit clouds and a low sun, (height, width, 3) in [0, 1]."""
    y, x = np.mgrid[:height, :width].astype(float)
    t = y / horizon
    picture = mix((0.16, 0.25, 0.47), (0.98, 0.72, 0.45), t**1.5)
    sun = np.hypot(x - 0.68 * width, (y - 0.86 * horizon) * 1.1)
    picture = mix(picture, (1.0, 0.86, 0.58), np.exp(-sun / (0.16 * width)))
    stretched = noise(rng, height * 3, width, 5, 6, 0.55)[: height * 3 : 3]
    depth = np.clip((stretched + 0.02 + 0.15 * (1 - t)) * 4, 0, 1) * np.clip(1.35 - t, 0, 1)
    lit = np.clip(0.5 + 3 * (np.roll(stretched, -9, 0) - stretched), 0, 1)
    picture = mix(picture, mix((0.42, 0.36, 0.50), (1.0, 0.76, 0.62), lit), 0.85 * depth)
    return mix(picture, (1.0, 0.97, 0.86), np.clip((0.032 * width - sun) / 3, 0, 1))


def ridge(rng: np.random.Generator, width: int, base: float, rise: float, cells: float) -> Array:
    """Return the height of a line of hills at each column."""
    return base - rise * (0.5 + 0.5 * noise(rng, 2, width, cells, 6, 0.48)[0])


def hills(rng: np.random.Generator, picture: Array, base: float, rise: float, cells: float, color: Array, haze: float) -> None:
    """Paint a range of hills over the picture, lit from the right and hazy."""
    height, width, _ = picture.shape
    y = np.mgrid[:height, :width][0]
    top = ridge(rng, width, base, rise, cells)
    texture = noise(rng, height, width, 60, 4, 0.6)
    slope = np.clip(0.5 + np.gradient(top)[None, :] * 0.45 + 0.35 * texture, 0, 1)
    shade = mix(np.array(color) * 0.55, np.array(color) * 1.35, slope)
    shade = mix(shade, (0.93, 0.70, 0.55), np.full((height, width), haze))
    inside = np.clip(y - top[None, :] + 0.5, 0, 1)
    picture[:] = mix(picture, shade, inside)


def house(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, wall: tuple[int, int, int]) -> None:
    """Draw a little house with a lit and a shaded side and bright windows; (x, y) is the foot of its near corner."""
    w, h = size, size * 0.72
    dark = tuple(int(c * 0.52) for c in wall)
    draw.polygon([(x - w, y), (x - w, y - h), (x, y - h), (x, y)], fill=dark)
    draw.polygon([(x, y), (x, y - h), (x + 0.6 * w, y - 0.92 * h), (x + 0.6 * w, y - 0.06 * h)], fill=wall)
    draw.polygon(
        [(x - 1.1 * w, y - h), (x - 0.75 * w, y - 1.7 * h), (x + 0.2 * w, y - 1.7 * h), (x + 0.05 * w, y - h)], fill=(74, 34, 30)
    )
    draw.polygon([(x + 0.05 * w, y - h), (x + 0.2 * w, y - 1.7 * h), (x + 0.7 * w, y - 0.9 * h)], fill=(150, 76, 52))
    for i in range(3):
        for j in range(2):
            left, top = x - w * (0.88 - 0.3 * i), y - h * (0.88 - 0.42 * j)
            draw.rectangle([left, top, left + 0.15 * w, top + 0.24 * h], fill=(255, 206, 112) if (i + j) % 3 else (60, 52, 66))


def tree(draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, size: float) -> None:
    """Draw a tree of many small leaves, lighter towards the right; (x, y) is its foot."""
    draw.polygon(
        [(x - size * 0.05, y), (x + size * 0.05, y), (x + size * 0.015, y - size * 0.6), (x - size * 0.015, y - size * 0.6)],
        fill=(44, 30, 26),
    )
    for _ in range(int(260 + size * 2)):
        angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform()) * 0.34 * size
        cx, cy = x + radius * np.cos(angle), y - 0.72 * size + 1.15 * radius * np.sin(angle)
        light = np.clip(0.42 + 0.9 * (cx - x) / size - 0.5 * (cy - y + 0.72 * size) / size + rng.normal(0, 0.12), 0, 1)
        r = size * rng.uniform(0.018, 0.045)
        draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=(int(26 + 150 * light), int(40 + 108 * light), int(34 + 26 * light)))


def scene(seed: int = 7, width: int = 768, height: int = 576) -> Image.Image:
    """Return a lake at dusk: sky, hills, a village with its reflection, trees and a boat."""
    rng = np.random.default_rng(seed)
    scale = 2
    w, h = width * scale, height * scale
    shore = int(0.60 * h)
    picture = sky(rng, h, w, shore)
    hills(rng, picture, 0.52 * h, 0.26 * h, 3, (0.35, 0.36, 0.52), 0.42)
    hills(rng, picture, 0.56 * h, 0.16 * h, 5, (0.28, 0.33, 0.36), 0.20)
    hills(rng, picture, 0.595 * h, 0.075 * h, 7, (0.24, 0.31, 0.20), 0.05)
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    walls = [(236, 208, 170), (214, 160, 124), (240, 226, 204), (196, 182, 164)]
    for i, x in enumerate(np.sort(rng.uniform(0.08, 0.62, 11)) * w):
        if i % 2:
            tree(draw, rng, x + 0.03 * w, shore + 2, h * rng.uniform(0.09, 0.15))
        house(draw, x, shore - rng.uniform(0, 0.016) * h, h * rng.uniform(0.05, 0.085), walls[i % 4])
    tower = 0.385 * w
    draw.polygon(
        [(tower - 0.016 * w, shore), (tower - 0.016 * w, 0.40 * h), (tower, 0.40 * h), (tower, shore)], fill=(120, 96, 88)
    )
    draw.polygon(
        [(tower, shore), (tower, 0.40 * h), (tower + 0.014 * w, 0.41 * h), (tower + 0.014 * w, shore)], fill=(232, 196, 158)
    )
    draw.polygon([(tower - 0.02 * w, 0.402 * h), (tower, 0.27 * h), (tower + 0.018 * w, 0.412 * h)], fill=(92, 42, 40))
    for x in (0.72, 0.80, 0.86):
        tree(draw, rng, x * w, shore + 3, h * rng.uniform(0.12, 0.20))
    picture = np.asarray(image).astype(float) / 255
    y, x = np.mgrid[:h, :w]
    depth = np.clip((y - shore) / (h - shore), 0, 1)
    ripple = noise(rng, h, w // 3, 40, 4, 0.6)
    ripple = np.asarray(Image.fromarray(ripple.astype(np.float32)).resize((w, h), Image.Resampling.BICUBIC))
    source = np.clip(shore - 1.25 * (y - shore) + 46 * depth * ripple, 0, shore - 1).astype(int)
    across = np.clip(x + 26 * depth * np.roll(ripple, 40, 1), 0, w - 1).astype(int)
    water = mix(picture[source, across] * 0.86, (0.10, 0.18, 0.28), 0.18 + 0.45 * depth + 0.16 * ripple)
    picture = mix(picture, water, np.clip(y - shore + 0.5, 0, 1))
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    bx, by, s = 0.60 * w, 0.80 * h, 0.075 * w
    draw.polygon(
        [(bx - s, by - 0.1 * s), (bx + 1.1 * s, by - 0.16 * s), (bx + 0.8 * s, by + 0.24 * s), (bx - 0.7 * s, by + 0.24 * s)],
        fill=(70, 32, 28),
    )
    draw.polygon(
        [(bx - 0.05 * s, by - 0.2 * s), (bx - 0.05 * s, by - 2.1 * s), (bx + 0.95 * s, by - 0.3 * s)], fill=(248, 226, 196)
    )
    draw.polygon(
        [(bx - 0.15 * s, by - 0.2 * s), (bx - 0.15 * s, by - 1.8 * s), (bx - 0.7 * s, by - 0.3 * s)], fill=(206, 166, 140)
    )
    draw.polygon(
        [
            (bx - 0.7 * s, by + 0.26 * s),
            (bx + 0.8 * s, by + 0.26 * s),
            (bx + 0.3 * s, by + 1.2 * s),
            (bx - 0.2 * s, by + 0.9 * s),
        ],
        fill=(58, 48, 60),
    )
    for x0, size in ((0.045, 0.62), (0.955, 0.50)):
        tree(draw, rng, x0 * w, h * 1.02, h * size)
    for _ in range(900):
        x0, y0 = rng.uniform(0, w), h - abs(rng.normal(0, 0.045 * h))
        tall, shade = rng.uniform(0.02, 0.07) * h, rng.uniform(0.3, 1)
        draw.line(
            [(x0, y0 + 8), (x0 + rng.normal(0, 6), y0 - tall)], fill=(int(96 * shade), int(104 * shade), int(46 * shade)), width=3
        )
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    grain = rng.normal(0, 1.6, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def stroke(canvas: Array, relief: Array, path: Array, color: Array, width: float, bristles: Array) -> None:
    """Lay one stroke: parallel bristles along a path of points (n, 2), each of its own shade, thick in the middle."""
    step = np.gradient(path, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    count = len(bristles)
    offsets = np.linspace(-0.5, 0.5, count) * width
    pressure = np.sin(np.linspace(0.12, np.pi - 0.03, len(path))) ** 0.35
    points = path[:, None] + normal[:, None] * (offsets[None, :, None] * pressure[:, None, None])
    x, y = np.rint(points[..., 0]).astype(int), np.rint(points[..., 1]).astype(int)
    ok = (x >= 0) & (x < canvas.shape[1]) & (y >= 0) & (y < canvas.shape[0])
    dry = np.linspace(0, 1, len(path))[:, None] < 1.15 - np.abs(bristles)[None, :] * 0.7
    ok &= dry
    shade = color[None, None] * (1 + 0.22 * bristles[None, :, None]) + 0.03 * bristles[None, :, None]
    canvas[y[ok], x[ok]] = np.broadcast_to(shade, (*x.shape, 3))[ok]
    body = (1 - (2 * np.linspace(-0.5, 0.5, count)) ** 4) * (0.75 + 0.5 * bristles)
    relief[y[ok], x[ok]] = np.broadcast_to(body[None, :], x.shape)[ok] * width


def paint(rng: np.random.Generator, under: Array, angle: Array, layers: list[tuple[float, float, float]],
          choose: Callable[[Array], Array]) -> Image.Image:  # fmt: skip
    """Return a painting: strokes (width, length, how many times they cover the canvas) along `angle`, coarse to fine, then light.

    `under` gives the colours, (H, W, 3) in [0, 1]; `choose` varies the colour of one stroke.
    """
    height, width, _ = under.shape
    canvas, relief = under.copy(), np.zeros((height, width))
    for broad, length, cover in layers:
        for _ in range(int(cover * width * height / (broad * length))):
            at = rng.uniform((-20, -20), (width + 20, height + 20))
            path = []
            here = at.copy()
            for _ in range(int(length * rng.uniform(0.6, 1.3))):
                i, j = int(np.clip(here[1], 0, height - 1)), int(np.clip(here[0], 0, width - 1))
                here = here + np.array([np.cos(angle[i, j]), np.sin(angle[i, j])])
                path.append(here)
            i, j = int(np.clip(at[1], 0, height - 1)), int(np.clip(at[0], 0, width - 1))
            bristles = np.convolve(rng.normal(0, 1, int(broad * 2.2) + 2), (0.3, 0.4, 0.3), "same").clip(-1, 1)
            stroke(canvas, relief, np.array(path), choose(under[i, j]), broad * rng.uniform(0.75, 1.25), bristles)
    for axis in (0, 1):
        relief = 0.25 * np.roll(relief, 1, axis) + 0.5 * relief + 0.25 * np.roll(relief, -1, axis)
    light = np.clip(np.gradient(relief, axis=1) + np.gradient(relief, axis=0), -4, 4)
    painted = np.clip(canvas, 0, 1) * (1 - 0.05 * light[..., None]) - 0.012 * light[..., None]
    soft = Image.fromarray((np.clip(painted, 0, 1) * 255).astype(np.uint8))
    return soft.resize((width // 2, height // 2), Image.Resampling.LANCZOS)


def varied(rng: np.random.Generator, palette: Array, stray: float) -> Callable[[Array], Array]:
    """Return a chooser of stroke colours: near the one below, pulled to the palette, now and then another of it."""

    def choose(color: Array) -> Array:
        nearest = palette[np.argmin(((palette - color) ** 2).sum(1))]
        if rng.uniform() < stray:
            nearest = palette[rng.integers(len(palette))]
        return np.clip(0.35 * color + 0.65 * nearest + rng.normal(0, 0.035, 3), 0, 1)

    return choose


def swirls(seed: int = 3, width: int = 768, height: int = 640) -> Image.Image:
    """Return a painting of long strokes that swirl, in blues, ochres, vermilion and cream."""
    rng = np.random.default_rng(seed)
    w, h = 2 * width, 2 * height
    y, x = np.mgrid[:h, :w].astype(float)
    field = 0.9 * noise(rng, h, w, 3, 3) * w * 0.16
    tone = noise(rng, h, w, 4, 4)
    glow = np.zeros((h, w))
    for _ in range(9):
        cx, cy, r = rng.uniform(0, w), rng.uniform(0, 0.85 * h), rng.uniform(0.07, 0.2) * w
        distance = np.hypot(x - cx, y - cy)
        field += rng.choice((-1, 1)) * 0.9 * r * np.exp(-((distance / r) ** 2))
        glow = np.maximum(glow, np.exp(-((distance / (0.42 * r)) ** 2)))
    dy, dx = np.gradient(field)
    angle = np.arctan2(-dx, dy + 0.02)
    palette = np.array([(0.05, 0.10, 0.28), (0.09, 0.23, 0.50), (0.20, 0.42, 0.68), (0.50, 0.68, 0.78), (0.93, 0.88, 0.70),
                        (0.88, 0.62, 0.16), (0.78, 0.28, 0.12), (0.24, 0.30, 0.20)])  # fmt: skip
    under = mix(palette[0], palette[2], 0.5 + 0.9 * tone)
    under = mix(under, palette[3], np.clip(1.6 * np.sin(field / (0.012 * w)) - 0.7, 0, 1) * 0.8)
    under = mix(mix(under, palette[5], np.clip(1.7 * glow, 0, 1)), palette[4], np.clip(2.2 * glow - 1.1, 0, 1))
    ground = np.clip((y / h - 0.80 - 0.07 * noise(rng, h, w, 3)) * 14, 0, 1)
    under = mix(under, mix(palette[7], palette[6], np.clip(0.35 + 1.2 * np.roll(tone, w // 3, 1), 0, 1)), ground)
    return paint(rng, under, angle, [(34, 190, 2.2), (22, 150, 2.0), (13, 110, 1.6), (8, 70, 0.8)], varied(rng, palette, 0.05))


def dabs(seed: int = 11, width: int = 640, height: int = 512) -> Image.Image:
    """Return a painting of short dabs in warm colours, an orchard of circles."""
    rng = np.random.default_rng(seed)
    w, h = 2 * width, 2 * height
    tone = noise(rng, h, w, 3, 3)
    y, x = np.mgrid[:h, :w].astype(float)
    palette = np.array([(0.55, 0.10, 0.16), (0.86, 0.30, 0.18), (0.95, 0.60, 0.25), (0.98, 0.85, 0.55), (0.30, 0.42, 0.30),
                        (0.16, 0.32, 0.42), (0.70, 0.45, 0.60)])  # fmt: skip
    under = mix(palette[1], palette[2], 0.5 + tone)
    under = mix(under, palette[5], np.clip((y / h - 0.55 + 0.25 * tone) * 5, 0, 1))
    for _ in range(16):
        cx, cy, r = rng.uniform(0, w), rng.uniform(0, h), rng.uniform(0.04, 0.12) * w
        inside = np.clip((r - np.hypot(x - cx, y - cy)) / 4, 0, 1)
        under = mix(under, palette[rng.integers(len(palette))], inside)
    angle = 0.9 + 1.2 * noise(rng, h, w, 2, 2)
    return paint(rng, under, angle, [(26, 44, 2.0), (18, 30, 2.4), (12, 20, 1.6)], varied(rng, palette, 0.16))


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().folder
    for name, make in (("scene.jpg", scene), ("painting.jpg", swirls), ("painting2.jpg", dabs)):
        make().save(folder / name, quality=88, subsampling=0)
        print(folder / name)


if __name__ == "__main__":
    main()
