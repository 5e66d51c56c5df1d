"""Procedurally drawn training pictures; no photograph is used.

Each picture combines elements whose statistics are those of natural pictures and paintings: dead leaves with power-law sizes
(Lee, Mumford and Huang 2001, "Occlusion models for natural images"; Baradad et al. 2021, "Learning to see by looking at noise",
trained networks on such pictures), noise with spectral slopes from white to steep, warped gratings, brush strokes along a flow,
hatching, text-like marks, gradients, shadows, soft and hard edges. Palettes, scale, blur, light and noise are random.

    python -m training.pictures OUT.png [--seed N]     draw a sheet of 24 pictures
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Array = npt.NDArray[np.float32]
Random = np.random.Generator


def _grid(size: int) -> tuple[Array, Array]:
    """Return coordinates (y, x), each (size, size), from -1 to 1."""
    line = np.linspace(-1, 1, size, dtype=np.float32)
    return line[:, None] + 0 * line, line + 0 * line[:, None]


def field(random: Random, size: int, slope: float) -> Array:
    """Return noise (size, size) whose amplitude spectrum falls as frequency^-slope, with mean 0 and deviation 1."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    stretch = math.exp(random.normal(0, 0.4))
    frequency = np.sqrt((fy * stretch) ** 2 + (fx / stretch) ** 2)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((size, size))) * frequency**-slope
    noise: Array = np.fft.irfft2(spectrum, (size, size)).astype(np.float32)
    noise -= noise.mean()
    return noise / (noise.std() + 1e-6)


def palette(random: Random, colours: int) -> Array:
    """Return related colours (colours, 3) in [0, 1], a base and a spread along a few axes, or, sometimes, unrelated ones."""
    if random.random() < 0.3:
        return random.random((colours, 3)).astype(np.float32)
    base = random.random(3)
    axes = random.normal(0, 1, (3, 3)) * np.array([[0.35], [0.15], [0.05]]) * random.uniform(0.3, 1.6)
    axes[0] = axes[0].mean() * 1.5 + 0.3 * axes[0]  # mostly a difference in lightness
    mixed = base + random.normal(0, 1, (colours, 3)) @ axes
    return np.clip(mixed, 0, 1).astype(np.float32)


def _shade(random: Random, values: Array, colours: Array) -> Array:
    """Return a picture (size, size, 3) that maps a field's values to a ramp through `colours`."""
    ranks = (np.tanh(values * random.uniform(0.5, 1.2)) + 1) / 2 * (len(colours) - 1)
    low = np.clip(ranks.astype(int), 0, len(colours) - 2)
    part = (ranks - low)[..., None]
    shaded: Array = colours[low] * (1 - part) + colours[low + 1] * part
    return shaded


def flat(random: Random, size: int) -> Array:
    """Return a uniform colour, or a linear or radial gradient between two."""
    a, b = palette(random, 2)
    y, x = _grid(size)
    angle = random.uniform(0, 2 * math.pi)
    ramp = (math.cos(angle) * x + math.sin(angle) * y) / 2 + 0.5
    if random.random() < 0.3:
        ramp = np.hypot(x - random.uniform(-1, 1), y - random.uniform(-1, 1)) / 1.5
    ramp = np.clip(ramp, 0, 1)[..., None] * random.choice([0, 0.3, 1])
    picture: Array = a * (1 - ramp) + b * ramp
    return picture.astype(np.float32)


def noise(random: Random, size: int) -> Array:
    """Return coloured noise with a spectral slope from 0 (white) to 2.2: one field mapped to a palette, or a mixture of three."""
    slope = random.uniform(0, 2.2)
    if random.random() < 0.5:
        return _shade(random, field(random, size, slope), palette(random, int(random.integers(2, 6))))
    fields = np.stack([field(random, size, slope) for _ in range(3)], -1)
    mixed: Array = 0.5 + fields @ (random.normal(0, 0.15, (3, 3)) + 0.1).astype(np.float32)
    return np.clip(mixed, 0, 1)


def grating(random: Random, size: int) -> Array:
    """Return warped stripes with soft or hard edges, sometimes crossed or circular."""
    y, x = _grid(size)
    warp = random.choice([0, 0.02, 0.1, 0.3])
    x = x + warp * field(random, size, 2.0)
    y = y + warp * field(random, size, 2.0)
    angle = random.uniform(0, math.pi)
    waves = math.exp(random.uniform(math.log(3), math.log(size / 5)))
    along = math.cos(angle) * x + math.sin(angle) * y
    if random.random() < 0.2:
        along = np.hypot(x - random.uniform(-1, 1), y - random.uniform(-1, 1))
    value = np.sin(math.pi * waves * along + random.uniform(0, 6.3))
    if random.random() < 0.3:
        across = math.cos(angle) * y - math.sin(angle) * x
        value = value * np.sin(math.pi * waves * random.uniform(0.5, 2) * across)
    hardness = math.exp(random.uniform(-0.5, 3))
    return _shade(random, np.tanh(value * hardness) * 1.5, palette(random, int(random.integers(2, 4))))


def leaves(random: Random, size: int) -> Array:
    """Return dead leaves: overlapping discs, boxes and polygons of power-law sizes, some with shadows, some textured."""
    picture = base(random, size)
    textures = [base(random, size) for _ in range(2)]
    colours = palette(random, int(random.integers(3, 24)))
    y, x = (((g + 1) / 2 * size) for g in _grid(size))
    smallest, largest = random.uniform(1.5, 5), size * random.uniform(0.1, 0.45)
    exponent = random.uniform(1.5, 3.2)
    shape = random.choice(["disc", "box", "polygon", "mixed"])
    softness = math.exp(random.uniform(-1, 1.0))
    count = int(random.integers(40, 350))
    shadows = random.random() < 0.4
    for _ in range(count):
        u = random.random()
        low, high = smallest ** (1 - exponent), largest ** (1 - exponent)
        radius = (low + u * (high - low)) ** (1 / (1 - exponent))
        cy, cx = random.uniform(-0.1, 1.1, 2) * size
        margin = 1.5 * radius + 3 * softness + 2
        top, left = max(0, int(cy - margin)), max(0, int(cx - margin))
        bottom, right = min(size, int(cy + margin) + 2), min(size, int(cx + margin) + 2)
        if bottom <= top or right <= left:
            continue
        box = np.s_[top:bottom, left:right]
        dy, dx = y[box] - cy, x[box] - cx
        distance = _distance(random, dy, dx, radius, str(shape))
        if shadows:
            dark = 1 / (1 + np.exp(np.clip(_shift(distance, 2) / (2 + 0.1 * radius), -30, 30)))
            picture[box] *= 1 - 0.5 * dark[..., None]
        mask = np.clip(0.5 - distance / softness, 0, 1)[..., None]
        if random.random() < 0.25:
            fill = textures[int(random.integers(2))][box]
        else:
            fill = colours[int(random.integers(len(colours)))] * (1 + random.uniform(0, 0.3) * (dy / radius))[..., None]
        picture[box] += mask * (fill - picture[box])
    return np.clip(picture, 0, 1)


def _shift(distance: Array, pixels: int) -> Array:
    return np.roll(distance, (pixels, pixels), (0, 1))


def _distance(random: Random, dy: Array, dx: Array, radius: float, shape: str) -> Array:
    """Return the signed distance in pixels to a random shape's edge, negative inside."""
    if shape == "mixed":
        shape = str(random.choice(["disc", "box", "polygon"]))
    angle = random.uniform(0, 2 * math.pi)
    u, v = math.cos(angle) * dx + math.sin(angle) * dy, math.cos(angle) * dy - math.sin(angle) * dx
    squeeze = random.uniform(0.3, 1)
    if shape == "disc":
        ellipse: Array = (np.hypot(u, v / squeeze) - radius) * squeeze
        return ellipse
    if shape == "box":
        inside: Array = np.maximum(np.abs(u) - radius, np.abs(v) - radius * squeeze)
        return inside
    sides = int(random.integers(3, 8))
    far = np.full_like(u, -np.inf)
    for i in range(sides):
        a = 2 * math.pi * (i + random.uniform(-0.2, 0.2)) / sides
        far = np.maximum(far, math.cos(a) * u + math.sin(a) * v - radius * random.uniform(0.5, 1))
    return far


def strokes(random: Random, size: int) -> Array:
    """Return another picture covered with brush strokes along a flow, each of several bristles."""
    under = base(random, size) if random.random() < 0.7 else leaves(random, size)
    image = Image.fromarray((under * 255).astype(np.uint8)).resize((2 * size, 2 * size), Image.Resampling.BILINEAR)
    canvas = ImageDraw.Draw(image)
    flow = field(random, size, random.uniform(1.5, 2.5)) * random.uniform(0.2, 1.5) + random.uniform(0, 6.3)
    extra = palette(random, 6)
    own = random.uniform(0, 1)
    width, length = math.exp(random.uniform(0.7, 3)), math.exp(random.uniform(2, 4))
    wobble, bristles = random.uniform(0, 0.12), int(random.integers(1, 6))
    for _ in range(int(min(600, 2.5 * size * size / (width * length)))):
        y, x = random.uniform(0, size - 1, 2)
        colour = under[int(y), int(x)] if random.random() < own else extra[int(random.integers(6))]
        colour = colour + random.normal(0, wobble, 3)
        points = []
        for _ in range(8):
            points.append((y, x))
            angle = flow[int(np.clip(y, 0, size - 1)), int(np.clip(x, 0, size - 1))]
            y, x = y + math.sin(angle) * length / 8, x + math.cos(angle) * length / 8
        normal = flow[int(points[0][0]), int(points[0][1])] + math.pi / 2
        for bristle in range(bristles):
            offset = (bristle - (bristles - 1) / 2) * width / bristles
            line = [(2 * (px + offset * math.cos(normal)), 2 * (py + offset * math.sin(normal))) for py, px in points]
            shade = np.clip((colour + random.normal(0, wobble / 2, 3)) * 255, 0, 255).astype(int)
            canvas.line(line, tuple(int(c) for c in shade), max(1, round(2.3 * width / bristles)), joint="curve")
    return _from_image(image.resize((size, size), Image.Resampling.BOX))


def marks(random: Random, size: int) -> Array:
    """Return another picture with hatching, scribbles, lines or text-like marks."""
    under = base(random, size)
    image = Image.fromarray((under * 255).astype(np.uint8)).resize((2 * size, 2 * size), Image.Resampling.BILINEAR)
    canvas = ImageDraw.Draw(image)
    colours = [tuple(int(255 * c) for c in colour) for colour in palette(random, 4)]
    kind = random.choice(["hatching", "scribble", "text", "wires"])
    angle = random.uniform(0, math.pi)
    for _ in range(int(random.integers(15, 160))):
        colour = colours[int(random.integers(4))]
        width = int(random.integers(1, 7))
        y, x = random.uniform(0, 2 * size, 2)
        if kind == "text":
            letters = "".join(chr(int(c)) for c in random.integers(33, 127, int(random.integers(1, 9))))
            canvas.text((x, y), letters, fill=colour, font=ImageFont.load_default(float(random.integers(12, 90))))
        elif kind == "scribble":
            steps = random.normal(0, random.uniform(4, 40), (12, 2)).cumsum(0)
            canvas.line([(x + float(a), y + float(b)) for a, b in steps], colour, width, joint="curve")
        else:
            turn = angle + random.normal(0, 0.1) + (math.pi / 2 if random.random() < 0.3 else 0)
            half = random.uniform(10, 120) if kind == "hatching" else 4 * size
            dx, dy = half * math.cos(turn), half * math.sin(turn)
            canvas.line([(x - dx, y - dy), (x + dx, y + dy)], colour, width)
    return _from_image(image.resize((size, size), Image.Resampling.BOX))


def _from_image(image: Image.Image) -> Array:
    return np.asarray(image, np.float32) / 255


def base(random: Random, size: int) -> Array:
    """Return a uniform colour, a gradient, noise or a grating."""
    kinds: list[Callable[[Random, int], Array]] = [flat, noise, grating]
    return kinds[int(random.choice(3, p=[0.4, 0.35, 0.25]))](random, size)


def _combined(random: Random, size: int) -> Array:
    """Return a picture of one kind, or of two kinds with a hard or soft border along a random field."""
    kinds: list[Callable[[Random, int], Array]] = [base, leaves, strokes, marks]
    chosen = [kinds[int(random.choice(4, p=[0.15, 0.4, 0.3, 0.15]))](random, size) for _ in range(1 + (random.random() < 0.5))]
    if len(chosen) == 1:
        return chosen[0]
    edge = field(random, size, random.uniform(1.2, 2.5)) - random.normal(0, 0.5)
    mask = np.clip(0.5 + edge * math.exp(random.uniform(-1, 3)), 0, 1)[..., None]
    if random.random() < 0.2:
        mask = np.full_like(mask, random.uniform(0.2, 0.8))  # a transparent overlay
    mixed: Array = chosen[0] * mask + chosen[1] * (1 - mask)
    return mixed


def _relief(random: Random, picture: Array) -> Array:
    """Return a picture shaded from one side, with its lightness as the height of the paint."""
    height = picture.mean(-1) + random.uniform(0, 0.3) * field(random, len(picture), random.uniform(0.3, 1.2)) * 0.3
    angle = random.uniform(0, 2 * math.pi)
    dy, dx = np.gradient(height)
    light = 1 + random.uniform(0.5, 4) * (math.cos(angle) * dx + math.sin(angle) * dy)
    return np.clip(picture * light[..., None], 0, 1)


def draw(random: Random, size: int = 256) -> Array:
    """Return one picture (size, size, 3) in [0, 1], float32."""
    picture = _combined(random, size)
    if random.random() < 0.2:
        picture = _relief(random, picture)
    if random.random() < 0.3:  # uneven light
        picture = picture * (1 + 0.3 * random.random() * field(random, size, 2.2))[..., None]
    if random.random() < 0.3:
        picture = picture @ np.clip(np.eye(3) + random.normal(0, 0.15, (3, 3)), -0.3, 1.3).astype(np.float32)
    grey = picture.mean(-1, keepdims=True)
    picture = grey + (picture - grey) * random.choice([0.0, 0.3, 0.7, 1.0, 1.0, 1.0, 1.5])
    contrast = math.exp(random.normal(0, 0.35))
    picture = np.clip(0.5 + (picture - 0.5) * contrast + random.normal(0, 0.08), 0, 1) ** math.exp(random.normal(0, 0.3))
    if random.random() < 0.5:
        image = Image.fromarray((picture * 255).astype(np.uint8))
        blurred = _from_image(image.filter(ImageFilter.GaussianBlur(math.exp(random.uniform(-1, 1.2)))))
        picture = blurred * 1.0 if random.random() < 0.6 else picture + random.uniform(0.3, 1.5) * (picture - blurred)
    if random.random() < 0.4:
        grain = random.standard_normal((size, size, 1 if random.random() < 0.5 else 3)).astype(np.float32)
        picture = picture + grain * math.exp(random.uniform(math.log(0.005), math.log(0.12)))
    return np.clip(picture, 0, 1).astype(np.float32)


def main() -> None:
    """Draw a sheet of pictures."""
    parser = argparse.ArgumentParser(description="Draw a sheet of 24 training pictures.")
    parser.add_argument("output")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    rows = [np.concatenate([draw(random) for _ in range(6)], 1) for _ in range(4)]
    Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8)).save(args.output)


if __name__ == "__main__":
    main()
