"""A run on disk: its files, its checkpoints, and whether they are whole."""
