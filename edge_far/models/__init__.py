"""From a name or a directory to a torch classifier, its tokenizer and its labels (workstation).

Read source.py first; the others are its steps, in order: directory, config, weight_files, tokenizers, head.
Never imports compile/, device/ or daemon/.
"""
