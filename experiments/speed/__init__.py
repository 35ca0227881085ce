"""Times on the machine at hand: this project's, the machine's own, other libraries'."""
