"""Raw sources to rows: python -m jobs.build RUN.toml [--section.key value] [--dry-run]"""

import sys

from ecellm.cli import main

if __name__ == "__main__":
    main(["build", *sys.argv[1:]])
