"""Transformers as Hugging Face saves them, converted by optimum; nothing is fetched and no code of the folder is run."""

from __future__ import annotations

from pathlib import Path


def check_folder(folder: Path) -> None:
    """Raise UntrustedError where converting the folder would run code it holds, InputError where it cannot be converted."""
