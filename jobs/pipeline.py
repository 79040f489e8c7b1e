"""All stages in order: python -m jobs.pipeline RUN.toml [--section.key value] [--dry-run]"""

import sys

from ecellm.cli import main

if __name__ == "__main__":
    main(["pipeline", *sys.argv[1:]])
