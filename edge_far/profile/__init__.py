"""Device profiles: what a board can spare for training, and when.

Begin in document.py; the dataclasses of the sections are the schema. Imports errors.py alone of the project.
"""
