"""What the daemon tells: a status document, its text, and figures for Prometheus.

Begin in status.py. Changes nothing, and is imported by the service and the commands alone.
"""
