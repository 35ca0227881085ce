"""The tables of the READMEs, and the runs behind them; see `experiments/tables.py`."""
