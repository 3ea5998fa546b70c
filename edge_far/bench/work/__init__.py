"""What the bench times: a task, a model of random weights, and one engine's steps.

Begin in task.py. A child process imports one of torch_steps.py and bundle_steps.py alone.
"""
