"""What applications hand over: spool files are claimed, read line by line, and stored once.

Begin in spool.py (the application's side), then ingest.py. Imports store/ and context.py alone of the daemon.
"""
