"""What `predict.py` and `inspect_data.py` find, print and write."""
