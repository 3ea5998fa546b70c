"""Sub-commands of a fleet: command.py reads the options, work.py serves the desk, view.py and doctor.py look.

doctor and status run in both environments, the device's and Flower's, so each imports what it needs when it is asked.
"""
