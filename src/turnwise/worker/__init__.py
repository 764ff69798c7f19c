"""Claims turns, runs the bot, commits."""
