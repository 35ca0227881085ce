"""The numerical primitives that this project implements itself, one per file."""
