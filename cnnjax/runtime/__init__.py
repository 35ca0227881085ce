"""What a run needs of the machine: devices, memory, caches, processes, signals."""
