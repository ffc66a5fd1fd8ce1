"""`python -m adaptycho.app.cli`."""

import sys

from adaptycho.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
