"""Labels by minimum cuts."""
