"""python -m ecellm.cli COMMAND: the same as the console script `ecellm`."""

from ecellm.cli import main

if __name__ == "__main__":  # a process that is started for part of the work imports this file
    main()
