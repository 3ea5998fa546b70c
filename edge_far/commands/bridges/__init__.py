"""The commands that connect the service with a home; each runs until it is asked to end.

A module declares its options and calls edge_far/bridges/. Imports no other command but common.py and arguments.py.
"""
