"""``python -m hybridseg`` does what ``hybridseg`` does."""

import sys

from hybridseg.cli import main

sys.exit(main())
