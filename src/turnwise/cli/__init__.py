"""The command line: `commands.main`."""
