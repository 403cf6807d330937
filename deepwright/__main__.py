"""`python -m deepwright` is the command `deepwright`."""

import sys

from deepwright.cli import main

sys.exit(main())
