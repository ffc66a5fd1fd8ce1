"""`python -m adaptycho.cli`."""

import sys

from adaptycho.cli import main

if __name__ == "__main__":
    sys.exit(main())
