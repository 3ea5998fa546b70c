"""Pictures of a run, from its log.

Begin in runlog.py. Knows no training, and imports matplotlib only when it draws.
"""
