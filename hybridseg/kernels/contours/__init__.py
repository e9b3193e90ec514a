"""Snakes and level sets."""
