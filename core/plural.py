"""Counting in words."""

from __future__ import annotations


def plural(number: int, noun: str) -> str:
    """`1 gate`, `2 gates`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
