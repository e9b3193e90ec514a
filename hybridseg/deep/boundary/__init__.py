"""The refiner that corrects labels near boundaries by a small network, and how it learns."""
