"""Data sets, the order of their examples, distortions and input pipelines."""
