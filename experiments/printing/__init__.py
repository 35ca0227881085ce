"""What `predict.py` and `inspect_data.py` print and write."""
