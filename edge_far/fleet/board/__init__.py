"""The device's end of a fleet: worker.py in its own environment, client_app.py in Flower's.

The two meet at a desk (desk.py) alone. The worker imports daemon/; the ClientApp knows no model and no example.
"""
