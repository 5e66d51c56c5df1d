"""Integers only: sizes and scales, boxes, tiles, windows and bands of rows."""
