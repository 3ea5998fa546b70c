"""The training compiler: a torch model and its learners become ONNX graphs that a stock runtime trains.

Begin in pipeline.py (`export`, top to bottom), then graph_passes.py (the order of passes). Never imports device/
or daemon/.
"""
