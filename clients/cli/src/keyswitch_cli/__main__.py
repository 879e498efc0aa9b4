"""`python -m keyswitch_cli` is `keyswitch`."""

from keyswitch_cli.main import run

run()
