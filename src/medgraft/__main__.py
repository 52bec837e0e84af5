"""``python -m medgraft``: the command line, where the script is not on the path."""

from medgraft.cli import main

if __name__ == "__main__":
    main()
