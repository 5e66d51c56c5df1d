"""Line search by the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping

Point = tuple[float, float, float]
"""A step length, and the loss and its slope there: the derivative along the line."""


class LineSearch:
    """A search for a step length that meets the strong Wolfe conditions (Nocedal and Wright 2006, algorithms 3.5 and 3.6).

    The caller evaluates the loss: at `tried`, the first length, then at each length that `next` returns. When `next` returns
    None, `best` is the length to take. The search starts at a point with `loss` and a negative `slope`; it interpolates by
    cubics, takes at most `limit` evaluations, and never tries more than the length `most`.
    """

    DECREASE, CURVATURE = 1e-4, 0.9

    def __init__(self, loss: float, slope: float, *, first: float = 1.0, most: float | None = None, limit: int = 12) -> None:
        self.loss, self.slope, self.most, self.limit = loss, slope, most, limit
        self.low: Point = (0.0, loss, slope)
        self.high: Point | None = None
        self.best, self.best_loss = 0.0, loss
        self.count = 0
        self.tried = first if most is None else min(first, most)

    def state(self) -> dict[str, float]:
        """Return the state of the search, by name."""
        state: dict[str, float] = {name: getattr(self, name) for name in ("loss", "slope", "best", "best_loss", "count", "tried")}
        if self.most is not None:
            state["most"] = self.most
        for end, point in (("low", self.low), ("high", self.high)):
            if point is not None:
                state[f"{end}_length"], state[f"{end}_loss"], state[f"{end}_slope"] = point
        return state

    @classmethod
    def from_state(cls, numbers: Mapping[str, float]) -> LineSearch:
        """Return the search whose `state` is among `numbers`. Raises KeyError if something is missing."""
        search = cls(numbers["loss"], numbers["slope"], most=numbers.get("most"))
        search.best, search.best_loss = numbers["best"], numbers["best_loss"]
        search.count, search.tried = int(numbers["count"]), numbers["tried"]
        search.low = numbers["low_length"], numbers["low_loss"], numbers["low_slope"]
        if "high_length" in numbers:
            search.high = numbers["high_length"], numbers["high_loss"], numbers["high_slope"]
        return search

    def next(self, loss: float, slope: float) -> float | None:
        """Return the next length to try after the loss and slope at the last one, or None at the end of the search."""
        here = (self.tried, loss, slope)
        self.count += 1
        enough = math.isfinite(loss) and loss <= self.loss + self.DECREASE * self.tried * self.slope
        if enough and loss < self.best_loss:
            self.best, self.best_loss = self.tried, loss
        flat = abs(slope) <= -self.CURVATURE * self.slope
        if enough and flat and loss <= self.low[1]:
            self.best = self.tried
            return None
        if self.count >= self.limit:
            return None
        if not enough or loss >= self.low[1]:
            self.high = here
        elif self.high is None:
            if slope >= 0:
                self.low, self.high = here, self.low
            elif self.most is not None and self.tried >= self.most:
                return None
            else:
                self.low = here
        else:
            if slope * (self.high[0] - self.low[0]) >= 0:
                self.high = self.low
            self.low = here
        if self.high is None:
            self.tried = 2 * self.tried if self.most is None else min(2 * self.tried, self.most)
        else:
            self.tried = _between(self.low, self.high)
            if abs(self.high[0] - self.low[0]) * abs(self.slope) < 1e-9 * abs(self.loss):
                return None
        return self.tried


def _between(low: Point, high: Point) -> float:
    """Return the minimum of the cubic through two points, at least a tenth of their distance away from both."""
    (a, f, df), (b, g, dg) = low, high
    width = b - a
    middle = a + width / 2
    if not (math.isfinite(g) and math.isfinite(dg)):
        return a + width / 10
    d = df + dg - 3 * (f - g) / (a - b)
    square = d * d - df * dg
    if square < 0:
        return middle
    root = math.copysign(math.sqrt(square), width)
    denominator = dg - df + 2 * root
    if not denominator:
        return middle
    found = b - width * (dg + root - d) / denominator
    ends = sorted((a + 0.1 * width, b - 0.1 * width))
    return min(max(found, ends[0]), ends[1])
