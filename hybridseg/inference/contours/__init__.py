"""Labels by contours that move."""
