"""What the board says: heat, power, memory, disk.

Begin in sensors.py. Standard library alone, so that the daemon's parent process stays small.
"""
