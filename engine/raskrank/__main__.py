"""python -m raskrank"""

import sys

from raskrank.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
