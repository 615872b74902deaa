"""Where the time of a kernel goes on the modelled chip."""

from nkilite.profiling.advice import Advice, advise
from nkilite.profiling.profile import profile
from nkilite.profiling.result import Profile
from nkilite.profiling.summary import Summary, summarize

__all__ = ["Advice", "Profile", "Summary", "advise", "profile", "summarize"]
