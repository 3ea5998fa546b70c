"""What storage.py is built of: durability.py makes writes survive a power cut, directory_moves.py renames and removes.

Both know the file systems that refuse: network and shared folders, and overlays. Never imports anything of a model.
"""
