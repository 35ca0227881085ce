"""Measures the chapter's claims, one table row each; see `experiments/claims.py`."""
