"""`python -m liftgate.bench.measure.peers [REPEATS] [SECONDS] [NEIGHBOUR...]`: the peers' half of the table, for a model of about 1 ms."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ....core.store import Store
from ..neighbour import KINDS
from ..ranker import model_and_requests
from . import optimum_benchmark, pytest_benchmark
from .pair import HEADING

repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 20.0
chosen = [kind for kind in (None, *KINDS) if (kind or "none") in sys.argv[3:]] or [None, *KINDS]
with tempfile.TemporaryDirectory() as name:
    model, requests = model_and_requests(Store(Path(name)))
    print("\n".join(HEADING), flush=True)
    for peer in (pytest_benchmark, optimum_benchmark):
        for delay_share in (0.0, 0.05):
            for kind in chosen:
                lines = peer.alarms(model.path, requests, delay_share=delay_share, repeats=repeats, seconds=seconds, neighbour=kind)
                print("\n".join(lines), flush=True)
