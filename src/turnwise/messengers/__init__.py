"""The doors of messengers: Telegram, WhatsApp, Slack, Rasa's REST channel."""
