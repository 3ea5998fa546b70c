"""The activation cache: what the frozen blocks make of a text is computed once, kept on disk, and read again.

Begin in hidden.py, then rows.py and database.py. Knows no training loop, and imports engine/ and texts/ alone.
"""
