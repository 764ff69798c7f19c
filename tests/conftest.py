"""What the tests share: a store in a temporary file, and real servers as real processes."""

from __future__ import annotations

import os

os.environ.pop("OPENAI_API_KEY", None)
os.environ.pop("OPENAI_BASE_URL", None)
