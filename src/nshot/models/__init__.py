"""A Hub id or a folder -> a checkpoint: its files found and checked, its sizes, tensors and tokenizer."""
