"""`python -m simulator.cli` is `moesim`."""

from simulator.cli import main

main()
