"""Saving and loading models, in files that hold data and no code."""

from hybridseg.persistence.model_file import load, save

__all__ = ["load", "save"]
