"""The server's end of a fleet: plan.py is what its owner asks for, rounds.py what is on disk, server_app.py the loop.

strategies.py and server_app.py import flwr; plan.py, central.py and rounds.py do not.
"""
