"""Reverse mode: from a forward graph to loss and gradients of the learners, in stock operators.

Begin in reverse_mode.py; rules.py has one function an operator. Imports graph/ alone.
"""
