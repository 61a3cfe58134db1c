"""`python -m liftgate`."""

from .cli import main

main()
