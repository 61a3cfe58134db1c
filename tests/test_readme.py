"""The README's Python example, run as it stands in a folder with the files it names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).resolve().parent.parent


class Ranker(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.items = torch.nn.Embedding(40, 16)
        self.users = torch.nn.Embedding(30, 16)
        self.top = torch.nn.Sequential(torch.nn.Linear(48, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))

    def forward(self, user: torch.Tensor, history: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        seen = self.items(history).mean(dim=1)
        score: torch.Tensor = self.top(torch.cat([self.users(user), seen, self.items(item)], dim=1))
        return score.squeeze(1)


def save(model: torch.nn.Module, path: Path) -> None:
    """As the README's `Save it` says."""
    example = (torch.zeros(4, dtype=torch.int64), torch.zeros((4, 5), dtype=torch.int64), torch.zeros(4, dtype=torch.int64))
    rows = torch.export.Dim("rows", min=1)
    torch.export.save(torch.export.export(model.eval(), example, dynamic_shapes=({0: rows}, {0: rows}, {0: rows})), path)


def write_requests(path: Path, requests: int = 60, candidates: int = 12) -> None:
    rng = np.random.default_rng(0)
    pd.DataFrame(
        {
            "request_id": [f"r{i}" for i in range(requests)],
            "user_id": [i % 30 for i in range(requests)],
            "segment": ["power" if i % 30 < 10 else "casual" for i in range(requests)],
            "user": [i % 30 for i in range(requests)],
            "history": list(rng.integers(0, 40, (requests, 5))),
            "item": list(rng.integers(0, 40, (requests, candidates))),
            "label": list((rng.random((requests, candidates)) < 0.3).astype(int)),
        }
    ).to_parquet(path)


def block_after(heading: str, language: str) -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8").split(heading, 1)[1]
    match = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert match is not None
    return re.sub(r"^   ", "", match[1], flags=re.MULTILINE)


def test_the_python_example_runs_and_prints_findings(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(Ranker(32), tmp_path / "v1.0.pt2")
    save(Ranker(128), tmp_path / "v1.1.pt2")
    write_requests(tmp_path / "holdout.parquet")
    (tmp_path / "budget.toml").write_text(block_after("**Say what you accept**", "toml"))
    env = {**os.environ, "LIFTGATE_STORE": str(tmp_path / "store")}
    (tmp_path / "example.py").write_text(block_after("## From Python", "python"))
    out = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    findings = [line.split()[0] for line in out.stdout.splitlines() if line.startswith(("PASS", "FAIL", "UNDECIDED", "INVALID"))]
    assert len(findings) == len(tomllib.loads((tmp_path / "budget.toml").read_text())["gate"])
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
