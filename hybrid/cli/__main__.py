"""`python -m kfp_hybrid.cli`."""

from kfp_hybrid.cli import main

main()
