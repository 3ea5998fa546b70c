"""Processes that the daemon starts: bound to it, looked after while they run, and how they ended.

Begin in supervisor.py. Knows no cycle and no store.
"""
