"""Each statement of the chapter as a measured row; see `experiments/claims.py`."""
