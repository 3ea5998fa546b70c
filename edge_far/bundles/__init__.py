"""The bundle, which carries a model from the workstation to the device: its schema, its opening, its arrays.

Begin in bundle.py, then manifest.py. Both sides use it; it imports the shared floor alone.
"""
