"""May it train now, with which child, is that child alive, and how did it end.

Begin in conditions.py and supervisor.py. Never imports the cycle or report/.
"""
