"""The subcommands of `blvnet` that need no training code, one per module."""

INTERRUPTED = 130  # the exit status that shells report for Ctrl-C
