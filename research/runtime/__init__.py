"""The machine: devices, processes, files, signals, traces."""
