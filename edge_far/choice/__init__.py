"""How much of a model must learn: each rung of the ladder is tried on the user's data, and the cheapest good one taken.

Begin with search.py, which is the whole of it; trials.py trains one rung, verdict.py holds the rule. Never imports
compile/ or device/.
"""
