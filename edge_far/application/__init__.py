"""What an application imports: `from edge_far import Model`; the packages of a device are enough.

Begin in model.py, then loaded_release.py. Imports device/, tasks/ and texts/; of daemon/ the release's files and the
application's side of the spool alone.
"""
