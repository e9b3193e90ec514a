"""Messages between neighbours: on grids, and on graphs of regions."""
