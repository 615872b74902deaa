"""What a traced kernel asks of the chip."""

from nkilite.profile.summary import Summary, summarize

__all__ = ["Summary", "summarize"]
