"""Makes three further styles: a mosaic, a woodcut and a watercolour.

    python examples/make_styles.py [FOLDER] [--only NAME]

Everything is drawn by this file, from fixed seeds, at twice the size of what is written, in about a minute. mosaic.jpg is
squarish stones that run along the shapes, woodcut.jpg carved lines that swell with the shade over two flat colours,
watercolour.jpg wet washes on rough paper.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from make_pictures import Array, mix, noise
from PIL import Image, ImageDraw, ImageFilter


def halved(picture: Array) -> Image.Image:
    """Return a picture (H, W, 3) in [0, 1] at half its size."""
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def blurred(x: Array, radius: float) -> Array:
    """Return a map (H, W) in [0, 1] after a Gaussian blur."""
    small = max(1, int(radius / 3))
    image = Image.fromarray((np.clip(x, 0, 1) * 255).astype(np.uint8))
    there = image.resize((max(2, image.width // small), max(2, image.height // small)), Image.Resampling.BOX)
    there = there.filter(ImageFilter.GaussianBlur(radius / small))
    return np.asarray(there.resize(image.size, Image.Resampling.BICUBIC)).astype(float) / 255


def filled(height: int, width: int, *polygons: Array) -> Array:
    """Return the map (height, width) that is 1 inside polygons of points (n, 2), in parts of the width."""
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    for polygon in polygons:
        draw.polygon([tuple(p) for p in np.asarray(polygon) * width], fill=255)
    return np.asarray(image).astype(float) / 255


def oval(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> Array:
    """Return the points of an ellipse."""
    t = np.linspace(0, 2 * np.pi, 120)
    x, y = rx * np.cos(t), ry * np.sin(t)
    return np.stack([cx + x * np.cos(turn) - y * np.sin(turn), cy + x * np.sin(turn) + y * np.cos(turn)], 1)


# the mosaic


def nearest(height: int, width: int, seeds: Array, angles: Array) -> tuple[Array, Array]:
    """Return for each pixel the seed whose turned square reaches it first, and how far that square reaches: jump flooding."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    sx, sy = seeds[:, 0].astype(np.float32), seeds[:, 1].astype(np.float32)

    def far(label: Array) -> Array:
        dx, dy = x - sx[label], y - sy[label]
        return np.maximum(np.abs(dx * cos[label] + dy * sin[label]), np.abs(dy * cos[label] - dx * sin[label]))

    label = np.zeros((height, width), np.int32)
    label[seeds[:, 1].astype(int).clip(0, height - 1), seeds[:, 0].astype(int).clip(0, width - 1)] = np.arange(len(seeds))
    best = far(label)
    jump = 1 << int(np.log2(max(height, width)) - 1)
    while jump:
        for dy in (-jump, 0, jump):
            for dx in (-jump, 0, jump):
                other = np.roll(label, (dy, dx), (0, 1))
                there = far(other)
                closer = there < best
                label, best = np.where(closer, other, label), np.where(closer, there, best)
        jump //= 2
    return label, best


def mosaic(seed: int = 5, width: int = 768, height: int = 640) -> Image.Image:
    """Return a mosaic of stones: a fish between waves under a sun, in a border."""
    rng = np.random.default_rng(seed)
    w, h = 2 * width, 2 * height
    y, x = np.mgrid[:h, :w].astype(float) / w
    ratio = h / w
    wave = 0.017 * np.sin(2 * np.pi * (x * 3.1 + 1.4 * y)) + 0.02 * noise(rng, h, w, 3, 2)
    level = y + wave
    palette = np.array([(0.07, 0.16, 0.36), (0.10, 0.34, 0.56), (0.22, 0.56, 0.66), (0.62, 0.80, 0.76), (0.95, 0.92, 0.82),
                        (0.90, 0.68, 0.22), (0.76, 0.32, 0.16), (0.36, 0.12, 0.12), (0.13, 0.12, 0.14)])  # fmt: skip
    stripes = 0.5 + 0.5 * np.sin(2 * np.pi * level * 15)
    under = mix(mix(palette[0], palette[1], np.clip(2 * stripes, 0, 1)), palette[2], np.clip(3 * stripes - 1.7, 0, 1))
    under = mix(under, palette[4], np.clip(18 * stripes - 17, 0, 1) * (noise(rng, h, w, 6) > 0.1))
    sun_at, sun_r = (0.19, 0.19), 0.115
    sun = np.hypot(x - sun_at[0], y - sun_at[1])
    rays = np.arctan2(y - sun_at[1], x - sun_at[0])
    air = np.clip((0.42 + 0.6 * wave - y) * 200, 0, 1)
    heaven = mix(palette[4], palette[3], 0.5 + 0.5 * np.sin(2 * np.pi * sun * 13))
    heaven = mix(heaven, palette[5], ((np.sin(rays * 14) > 0.15) & (sun > 0.135) & (sun < 0.20)).astype(float))
    under = mix(under, heaven, air)
    disc = mix(palette[6], palette[5], 0.5 + 0.5 * np.sin(2 * np.pi * sun * 26))
    under = mix(under, disc, (sun < sun_r).astype(float))
    body = oval(0.56, 0.50, 0.245, 0.115, -0.12)
    tail = np.array([(0.76, 0.46), (0.92, 0.335), (0.885, 0.46), (0.935, 0.60)])
    fins = (
        np.array([(0.50, 0.41), (0.62, 0.30), (0.72, 0.37), (0.70, 0.43)]),
        np.array([(0.52, 0.60), (0.60, 0.68), (0.65, 0.58)]),
    )
    fish = filled(h, w, body, tail, *fins)
    scales = 0.5 + 0.5 * np.sin(2 * np.pi * (np.hypot(x - 0.36, (y - 0.52) * 1.3) * 22))
    skin = mix(palette[6], palette[5], scales)
    skin = mix(skin, palette[4], np.clip((y - 0.545 + 0.12 * (x - 0.56)) * 60, 0, 1))
    skin = mix(skin, palette[7], filled(h, w, tail, *fins) * (1 - filled(h, w, body)) * (0.4 + 0.6 * (scales > 0.55)))
    under = mix(under, palette[8], blurred(fish, 10) * 2.2)
    under = mix(under, skin, fish)
    gill = np.abs(np.hypot(x - 0.33, y - 0.53) - 0.105) < 0.007
    under = mix(under, palette[7], gill * fish)
    eye = np.hypot(x - 0.375, y - 0.495)
    under = mix(mix(under, palette[4], (eye < 0.026) * 1.0), palette[8], (eye < 0.014) * 1.0)
    frame = np.minimum(np.minimum(x, 1 - x), np.minimum(y, ratio - y))
    blocks = (np.floor((x + y) * 22) + np.floor((x - y) * 22)) % 2
    under = mix(under, mix(palette[7], palette[4], blocks), (frame < 0.05) * 1.0)
    under = mix(under, palette[8], ((frame > 0.038) & (frame < 0.05)) * 1.0)
    # rows of stones run along the nearest shape, and along the waves far from it
    field = 3.0 * blurred(fish, 0.03 * w) + 1.5 * blurred((sun < sun_r) * 1.0, 0.03 * w)
    field = np.where((sun < 0.22) & (air > 0.5), -sun * 20, field + level * 6)
    field = np.where(frame < 0.06, frame * 30, field)
    dy, dx = np.gradient(field)
    angle = np.arctan2(dy, dx)
    side = 20.0
    count = int(1.04 * h * w / side**2)
    small = 3
    seeds = rng.uniform((0, 0), (w, h), (count, 2))
    for _ in range(14):
        turns = angle[seeds[:, 1].astype(int).clip(0, h - 1), seeds[:, 0].astype(int).clip(0, w - 1)]
        label, _ = nearest(h // small, w // small, seeds / small, turns)
        there = np.bincount(label.ravel(), minlength=count).clip(1)
        yy, xx = np.mgrid[: h // small, : w // small]
        middle = np.stack([np.bincount(label.ravel(), m.ravel(), count) / there for m in (xx, yy)], 1) * small + small / 2
        seeds = np.where(middle > small / 2, middle, seeds)
    turns = angle[seeds[:, 1].astype(int).clip(0, h - 1), seeds[:, 0].astype(int).clip(0, w - 1)]
    label, reach = nearest(h, w, seeds, turns)
    border = np.zeros((h, w), bool)
    for axis in (0, 1):
        border |= (label != np.roll(label, 1, axis)) | (label != np.roll(label, -1, axis))
    border = blurred(border * 1.0, 1.6)
    tint = under[seeds[:, 1].astype(int).clip(0, h - 1), seeds[:, 0].astype(int).clip(0, w - 1)]
    tint = tint * rng.normal(1, 0.10, (count, 1)) + rng.normal(0, 0.028, (count, 3))
    tilt = rng.normal(0, 0.011, (count, 2))
    glint = rng.uniform(size=count) > 0.93
    px, py = np.mgrid[:h, :w][1] - seeds[label, 0], np.mgrid[:h, :w][0] - seeds[label, 1]
    stone = tint[label] * (1 + (tilt[label, 0] * px + tilt[label, 1] * py))[..., None]
    stone += (0.05 * noise(rng, h, w, 260, 2) + 0.035 * noise(rng, h, w, 90))[..., None]
    stone += (0.16 * glint[label] * np.clip(1 - np.hypot(px + 3, py + 3) / 7, 0, 1))[..., None]
    rough = 0.9 * noise(rng, h, w, 220)
    body_of = np.clip((side * 0.53 + rough - reach) / 1.5, 0, 1) * np.clip(1.35 - 2.6 * border, 0, 1)
    bevel = blurred(body_of, 2.5)
    lit = np.gradient(bevel, axis=0) + np.gradient(bevel, axis=1)
    grout = np.array((0.45, 0.41, 0.36)) * (1 + 0.25 * noise(rng, h, w, 200, 2))[..., None]
    return halved(mix(grout, stone, body_of) + 0.9 * lit[..., None])


# the woodcut


def carved(rng: np.random.Generator, tone: Array, phase: Array, wander: float = 0.55) -> Array:
    """Return ink (H, W) in [0, 1] of lines of equal `phase`, as broad as `tone` is dark, with the wedges that a gouge leaves."""
    height, width = tone.shape
    shake = wander * noise(rng, height, width, 26, 3, 0.6)
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * phase + shake)
    need = np.clip(tone + 0.11 * noise(rng, height, width, 48, 2), 0, 1)
    return np.clip((need - wave) * 6 + 0.5, 0, 1)


def woodcut(seed: int = 8, width: int = 768, height: int = 640) -> Image.Image:
    """Return a woodcut in black over red and blue: a mountain with its moon, pines and a rough sea."""
    rng = np.random.default_rng(seed)
    w, h = 2 * width, 2 * height
    y, x = np.mgrid[:h, :w].astype(float) / w
    # sky: rings about the moon, bent by the wind
    moon = np.hypot(x - 0.72, y - 0.19)
    wind = noise(rng, h, w, 2.4, 3)
    tone = np.clip(0.80 - 0.95 * np.exp(-moon / 0.16) + 0.28 * wind - 0.35 * np.clip(y - 0.2, 0, 1), 0.05, 0.95)
    ink = carved(rng, 1 - tone, 26 * moon + 2.6 * wind)
    ink = 1 - carved(rng, 1 - tone, 34 * (moon + 0.05 * wind))
    blue = np.clip(1.2 - 2.2 * np.exp(-moon / 0.11), 0, 1) * 0.85
    red = (moon < 0.074) * 1.0
    ink = np.where(moon < 0.082, (moon > 0.076) * 1.0, ink)
    # the mountain: gullies that fan out from its top, dark on the left
    top = np.array((0.34, 0.12))
    line = top[1] + 0.62 * np.abs(x - top[0]) ** 0.82 + 0.012 * noise(rng, h, w, 24, 3)[0]
    inside = y > line
    fan = (x - top[0]) / (y - top[1] + 0.10)
    gully = noise(rng, h, w, 5, 4)
    light = np.clip(0.55 + 0.75 * np.sin(9 * fan + 2.5 * gully) + 0.9 * fan, 0.05, 1.25)
    snow = y < 0.30 + 0.045 * noise(rng, h, w, 9, 3)
    light = np.where(snow, light + 0.45, light)
    rock = 1 - carved(rng, np.clip(light, 0, 1.1), 16 * fan + 30 * (y - line) * (0.25 + 0.1 * gully))
    ink, blue = np.where(inside, rock, ink), np.where(inside, np.where(snow, 0.0, 0.75), blue)
    red = np.where(inside, np.where(snow, 0, (light > 0.85) * 0.75), red)
    ink = np.where(np.abs(y - line) < 0.0035 + 0.002 * gully, 1, ink)
    # the sea: crests, each hatched along its own slope
    for k, base in enumerate(np.linspace(0.535, 0.80, 5)):
        size = 0.012 + 0.014 * k
        shift = rng.uniform(0, 6)
        run = x * (19 - 2.8 * k) + shift
        crest = base - size * (np.abs(np.sin(run)) ** 0.7 * 1.5 - 0.7) + 0.006 * noise(rng, h, w, 12, 3)[0]
        deep = y - crest
        inside = deep > 0
        shade = np.clip(1.05 - deep / (0.055 + 0.02 * k) + 0.25 * np.cos(2 * run), 0.06, 1)
        lines = 1 - carved(rng, shade, (deep * (62 - 6 * k) + 0.35 * np.sin(2 * run)) * 1.0)
        ink = np.where(inside, lines, ink)
        blue = np.where(inside, np.clip(deep * 24 - 0.25, 0, 1) * 0.9, blue)
        red = np.where(inside, 0, red)
        ink = np.where(np.abs(deep) < 0.003 + 0.0012 * k, 1, ink)
        foam = inside & (deep < 0.016 + 0.004 * k) & (noise(rng, h, w, 70, 2) > 0.12)
        ink = np.where(foam, 0, ink)
    # pines on both sides, with branches as strokes
    image = Image.fromarray((ink * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for foot, tall in ((0.06, 0.52), (0.15, 0.34), (0.93, 0.44), (0.985, 0.58), (0.86, 0.25)):
        ground = 0.70 + 0.05 * rng.uniform()
        draw.line([(foot * w, ground * w), (foot * w, (ground - tall) * w)], fill=255, width=int(0.012 * w))
        for step in np.linspace(0.06, 1, int(60 * tall)):
            reach = (0.015 + 0.115 * step * (0.8 + 0.4 * rng.uniform())) * (tall / 0.5) ** 0.7
            at = ground - tall + step * tall * 0.88
            for way in (-1, 1):
                points = [(foot * w, (at - 0.008) * w), ((foot + way * reach * 0.6) * w, (at + 0.004) * w),
                          ((foot + way * reach) * w, (at + 0.032 + 0.01 * rng.uniform()) * w),
                          ((foot + way * reach * 0.5) * w, (at + 0.022) * w), (foot * w, (at + 0.010) * w)]  # fmt: skip
                draw.polygon(points, fill=255)
                for _ in range(3):
                    t = rng.uniform(0.2, 0.8)
                    a = (foot + way * reach * t) * w, (at + 0.012 * t) * w
                    draw.line([a, (a[0] + way * 0.016 * w, a[1] + 0.010 * w)], fill=0, width=3)
    ink = np.asarray(image).astype(float) / 255
    grain = noise(rng, h * 6, w, 60, 3)[: h * 6 : 6]
    ink = np.clip(blurred(ink, 1.6) * 2.4 - 0.7, 0, 1)
    ink *= np.clip(1.15 - 0.55 * np.clip(grain + 0.5 * noise(rng, h, w, 300, 2) - 0.28, 0, 1) * 4, 0.25, 1)
    paper = np.array((0.93, 0.88, 0.76)) * (1 + 0.045 * noise(rng, h, w, 160, 3))[..., None]
    worn = np.clip(0.92 + 0.35 * grain + 0.2 * noise(rng, h, w, 240, 2), 0, 1)
    picture = mix(paper, paper * np.array((0.30, 0.50, 0.62)), np.roll(blurred(blue, 2), (3, -4), (0, 1)) * worn)
    picture = mix(picture, np.array((0.78, 0.22, 0.13)), np.roll(blurred(red, 2), (-3, 3), (0, 1)) * worn)
    return halved(mix(picture, np.array((0.09, 0.08, 0.09)), ink))


# the watercolour


def stain(rng: np.random.Generator, height: int, width: int, centre: Array, size: float, layers: int = 26) -> Array:
    """Return the pigment (height, width) of one wet wash: many deformed polygons over each other, dark along their edges."""

    def deformed(points: Array, amount: Array, rounds: int) -> tuple[Array, Array]:
        for _ in range(rounds):
            after = np.roll(points, -1, 0)
            length = np.linalg.norm(after - points, axis=1, keepdims=True)
            middle = (points + after) / 2 + rng.normal(0, 1, points.shape) * length * amount[:, None] * 0.42
            points = np.stack([points, middle], 1).reshape(-1, 2)
            amount = np.repeat(amount * 0.86, 2)
        return points, amount

    t = np.linspace(0, 2 * np.pi, 11)[:-1] + rng.uniform(0, 6)
    round_ = np.stack([np.cos(t), np.sin(t) * rng.uniform(0.6, 1)], 1) * size * rng.uniform(0.75, 1.25, (10, 1))
    base, amount = deformed(centre + round_, rng.uniform(0.25, 1.1, 10), 3)
    total = np.zeros((height, width), np.float32)
    for _ in range(layers):
        points, _ = deformed(base, amount, 3)
        image = Image.new("L", (width, height))
        ImageDraw.Draw(image).polygon([tuple(p) for p in points], fill=255)
        total += np.asarray(image, np.float32) / 255
    total /= layers
    edge = np.clip(blurred(total, 2.2) - blurred(total, 11), 0, 1)
    return total * 0.72 + 2.0 * edge * (total > 0.3)


def watercolour(seed: int = 21, width: int = 768, height: int = 640) -> Image.Image:
    """Return a watercolour of flowers: wet washes that run into each other on rough paper, stems, splashes."""
    rng = np.random.default_rng(seed)
    w, h = 2 * width, 2 * height
    tooth = noise(rng, h, w, 330, 3, 0.7)
    density = np.zeros((h, w, 3))
    pigments = {"rose": (0.05, 1.15, 0.55), "violet": (0.62, 0.95, 0.12), "blue": (1.25, 0.55, 0.10), "teal": (1.05, 0.28, 0.42),
                "green": (0.85, 0.22, 0.95), "yellow": (0.02, 0.22, 1.25), "orange": (0.03, 0.62, 1.25),
                "indigo": (1.5, 1.15, 0.5)}  # fmt: skip

    def wash(name: str, cx: float, cy: float, size: float, strength: float) -> None:
        pool = stain(rng, h, w, np.array((cx * w, cy * w)), size * w)
        pool *= 1 + 0.5 * noise(rng, h, w, 7, 4) + 0.42 * tooth * strength
        # a backrun: water that came later has pushed the pigment outwards
        bx, by, r = cx + rng.normal(0, 0.5) * size, cy + rng.normal(0, 0.5) * size, size * rng.uniform(0.25, 0.5)
        y, x = np.mgrid[:h, :w] / w
        away = np.hypot(x - bx, y - by) / r + 0.35 * noise(rng, h, w, 16, 4)
        pool *= 1 - 0.55 * np.clip(1 - away, 0, 1) + 0.5 * np.exp(-(((away - 1.02) / 0.05) ** 2))
        density[:] += strength * np.clip(pool, 0, None)[..., None] * np.array(pigments[name])

    for name, cx, cy, size in (("blue", 0.15, 0.15, 0.24), ("teal", 0.85, 0.12, 0.26), ("violet", 0.52, 0.06, 0.22),
                               ("yellow", 0.55, 0.45, 0.30), ("teal", 0.1, 0.62, 0.22), ("green", 0.62, 0.78, 0.30),
                               ("green", 0.2, 0.80, 0.26), ("blue", 0.95, 0.66, 0.22)):  # fmt: skip
        wash(name, cx, cy, size, 0.34)
    flowers = [(0.30, 0.34, 0.125), (0.66, 0.30, 0.14), (0.47, 0.56, 0.115), (0.82, 0.52, 0.10), (0.13, 0.48, 0.085)]
    for number, (cx, cy, size) in enumerate(flowers):
        names = (("rose", "violet"), ("orange", "rose"), ("violet", "blue"), ("rose", "orange"), ("orange", "yellow"))[number]
        for k in range(7):
            turn = 2 * np.pi * k / 7 + rng.uniform(0, 0.5)
            at = cx + 0.62 * size * np.cos(turn), cy + 0.62 * size * np.sin(turn)
            wash(names[k % 2], *at, size * rng.uniform(0.45, 0.62), 0.42)
        wash("indigo", cx, cy, size * 0.24, 0.75)
    image = Image.new("L", (w, h))
    draw = ImageDraw.Draw(image)
    for cx, cy, size in flowers:
        points = [(cx + 0.04 * np.sin(5 * t) * t, cy + size * 0.9 + t * (h / w - cy)) for t in np.linspace(0, 1, 30)]
        for (ax, ay), (bx, by) in pairwise(points):
            draw.line([(ax * w, ay * w), (bx * w, by * w)], fill=255, width=int(rng.uniform(5, 14)))
        for t in (0.25, 0.5, 0.75):
            ax, ay = points[int(29 * t)]
            way = rng.choice((-1, 1))
            leaf = [(ax, ay), (ax + way * 0.05, ay - 0.035), (ax + way * 0.11, ay - 0.03), (ax + way * 0.055, ay + 0.004)]
            draw.polygon([(px * w, py * w) for px, py in leaf], fill=200)
    stems = blurred(np.asarray(image) / 255, 2.0)
    stems = stems * 0.6 + 1.6 * np.clip(stems - blurred(stems, 8), 0, 1)
    density += (stems * (1 + 0.6 * noise(rng, h, w, 20, 3)))[..., None] * np.array(pigments["green"]) * 0.9
    image = Image.new("L", (w, h))
    draw = ImageDraw.Draw(image)
    for _ in range(170):
        cx, cy, r = rng.uniform(0, w), rng.uniform(0, h), 2 + rng.exponential(5)
        draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=int(rng.uniform(60, 210)))
    drops = blurred(np.asarray(image) / 255, 1.4)
    kinds = np.clip(noise(rng, h, w, 4) * 3, -1, 1)
    density += drops[..., None] * mix(pigments["rose"], pigments["blue"], 0.5 + 0.5 * kinds) * 0.55
    dry = np.clip(1 + 0.22 * tooth, 0.4, None)[..., None]
    picture = np.array((0.975, 0.965, 0.93)) * np.exp(-density * dry)
    light = np.gradient(tooth, axis=0) + np.gradient(tooth, axis=1)
    return halved(picture * (1 - 0.10 * light[..., None]))


STYLES = {"mosaic": mosaic, "woodcut": woodcut, "watercolour": watercolour}


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--only", choices=tuple(STYLES), help="make this one alone")
    args = parser.parse_args()
    for name, make in STYLES.items():
        if args.only in (None, name):
            path = args.folder / f"{name}.jpg"
            make().save(path, quality=85, subsampling=0)
            print(path)


if __name__ == "__main__":
    main()
