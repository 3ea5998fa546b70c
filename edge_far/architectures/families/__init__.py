"""One file a family: where its blocks, FFNs, heads and embeddings are, and the keys of its config.json."""
