"""What a process of ours lives in: streams, packages, privacy, the children it starts, and what it says when it fails.

Begin in failures.py. Never imports what the work is: bundles, texts, training.
"""
