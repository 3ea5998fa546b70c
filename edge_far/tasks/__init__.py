"""What is learned: how labels become targets, which loss, what is measured, what `predict` tells. For both sides.

Begin in interface.py, which says what a task answers; everything else asks a task and knows no kind by name. Refuses to
know tokens, graphs and files; never imports torch. Losses go by name: compile/gradient/losses.py, far/above_cut.py.
"""
