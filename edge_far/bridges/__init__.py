"""What connects the service with a home: MQTT (mqtt_bridge.py) and Wyoming (wyoming_service.py).

Each needs an extra of its own, imported when it starts (extras.py). Imports application/; of daemon/ the spool and the
requests alone. Never opens the store.
"""
