"""Tests compile what they run: what another run left in the disk cache must not hide a mistake."""

from __future__ import annotations

import os

os.environ.setdefault("NKILITE_CACHE", "0")
