"""edge-far: fine-tune BERT-like models on edge devices, inside a memory budget."""

from edge_far.process.privacy import forbid_reports

__version__ = "0.1.0"

forbid_reports()  # here, because nothing of ours runs earlier: see edge_far/process/privacy.py
