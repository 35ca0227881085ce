"""The parts of `demo.py`: the page, and what its networks are given."""
