"""`python -m liftgate.serve`: the router alone, without the other rooms' doors."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
