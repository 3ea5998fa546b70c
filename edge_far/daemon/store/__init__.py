"""What the device remembers, durable at every commit, with a second copy and a way back from damage.

Begin in examples.py. Never imports intake/ or anything above.
"""
