"""``python -m tokamask`` is the command ``tokamask``."""

import sys

from tokamask.cli import main

sys.exit(main())
