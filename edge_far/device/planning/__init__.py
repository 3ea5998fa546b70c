"""Will it fit, in which pieces, and how long does it take on this machine.

Begin in plan.py; machine_speed.py and probe.py measure, step_times.py predicts. Never imports run/.
"""
