"""A report as one HTML page that needs nothing else: no script, no network, no other file; drawings are SVG.

Begin in document.py; a section is a room. Knows the standard library and figures that others read; refuses to know
where these come from.
"""
