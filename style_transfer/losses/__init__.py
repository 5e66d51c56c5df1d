"""Losses as additive statistics and scores of their totals, and guidance by masks."""

from __future__ import annotations

from .content.base import ContentLoss
from .guidance import Region, StageRegion, coverage, regions_of
from .loss import Loss
from .statistics import Stats, moments
from .style.base import StyleLoss

__all__ = ["ContentLoss", "Loss", "Region", "StageRegion", "Stats", "StyleLoss", "coverage", "moments", "regions_of"]
