"""The doors of messengers: Telegram, Slack, Rasa's REST channel."""
