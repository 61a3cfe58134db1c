from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_control_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests leave the machine's control groups alone; those of confinement have a kernel of their own."""
    monkeypatch.setenv("LIFTGATE_CGROUP", "off")
