"""How lines, JSON objects and tables become records, and how what is wrong with them is told.

Begin in lines.py. Knows no label and no model, and imports nothing above.
"""
