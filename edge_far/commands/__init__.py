"""One module a command: its options, the call, and its output for people.

cli.py names them all; common.py has what several share. The work itself is elsewhere; none imports another.
"""
