"""Tasks whose targets and answers are of tokens: tags of words, spans that answer a question."""
