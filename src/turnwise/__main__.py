"""`python -m turnwise`: the command line."""

from turnwise.cli.commands import main

if __name__ == "__main__":
    main()
