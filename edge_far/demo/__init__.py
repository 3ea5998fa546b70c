"""The demo's sentences, made by a small grammar, and a bag-of-words classifier to beat.

Begin in generate.py. Knows no model; imports texts/ alone.
"""
