"""Commands about the board itself: what it is, and whether all is well. Begin in doctor.py.

None of them imports NumPy or ONNX Runtime before it must.
"""
