"""The search for a pipeline: segmenters and refiners compared on held-out images, within a time."""

from hybridseg.search.auto import AutoHybrid
from hybridseg.search.leaderboard import Leaderboard, LeaderboardRow

__all__ = ["AutoHybrid", "Leaderboard", "LeaderboardRow"]
