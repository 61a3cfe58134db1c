"""What can go wrong, as one tree.

LiftgateError            every error liftgate raises on purpose; the command line shows it and exits 2
├── InputError           a file, value or flag the user gave is not what it must be
│   ├── UnknownName      a name that nothing answers to (model, instance, key, metric, column)
│   └── UntrustedError   a file that would have to execute code to be read
├── RefusedStep          a technique that cannot be applied, or that changed nothing
└── RunFailed            a process liftgate started (measuring worker, router) died or answered nonsense
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LiftgateError(Exception):
    """An error whose message says where it happened, what was expected, what was found and what to do."""

    def __init__(self, where: str, problem: str, *, fix: str = "") -> None:
        self.where = where
        self.problem = problem
        self.fix = fix
        super().__init__(f"{where}: {problem}" + (f"; {fix}" if fix else ""))


class InputError(LiftgateError):
    """Something the user gave is not what it must be."""

    @classmethod
    def mismatch(cls, where: str, *, expected: str, found: str, fix: str = "") -> InputError:
        """The usual case: one thing was expected and another was found."""
        return cls(where, f"expected {expected}, found {found}", fix=fix)


class UnknownName(InputError):
    """A name that nothing answers to; the message suggests the nearest known one."""

    def __init__(self, where: str, kind: str, name: str, known: Iterable[str], *, fix: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names[:20]) or 'none yet'}"
        super().__init__(where, f"unknown {kind} '{name}'", fix=f"{hint}; {fix}" if fix else hint)


class UntrustedError(InputError):
    """Reading this file would execute code it contains."""


class RefusedStep(LiftgateError):
    """A technique cannot be applied to this model, or changed nothing."""


class RunFailed(LiftgateError):
    """A process that liftgate started died or answered nonsense."""
