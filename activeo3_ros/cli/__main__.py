"""`python -m activeo3_ros.cli`: the command `activeo3` of this very Python."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
