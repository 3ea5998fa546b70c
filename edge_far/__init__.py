"""edge-far: fine-tune BERT-like models on edge devices, inside a memory budget."""

__version__ = "0.1.0"
