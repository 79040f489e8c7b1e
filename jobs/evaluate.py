"""Generate answers and score them: python -m jobs.evaluate RUN.toml [--section.key value] [--dry-run]"""

import sys

from ecellm.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
