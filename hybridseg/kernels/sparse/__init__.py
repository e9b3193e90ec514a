"""Messages between neighbors: on grids, and on graphs of regions."""
