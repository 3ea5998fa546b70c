"""One training run: settings, loop, checkpoints, log, and the wishes of whoever watches it.

Begin in trainer.py. Knows no engine's insides, no command line and no daemon.
"""
