"""The benchmark of this project, of the machine and of other libraries."""
