"""The numerical primitives that this project writes itself, one a file."""
