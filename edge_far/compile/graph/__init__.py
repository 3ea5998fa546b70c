"""What every pass uses: building nodes, small edits, symbolic sizes, notes, the file of weights.

Begin in builder.py. Knows no pass and imports none.
"""
