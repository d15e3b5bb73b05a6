"""The set `sentiment`: what the news of a symbol said, as of the time at which it was known. The formulas are in
`tidemill.features.sentiment`.

An experiment asks for it with its field `news`; bars of one's own need the columns beforehand.
"""

from tidemill.features import operators
from tidemill.features.declaration import Declarations

DECLARED = Declarations()
feature, named_set = DECLARED.feature, DECLARED.named_set

feature(
    "sentiment_mean",
    operators.sentiment_mean,
    unit="-1 to 1",
    about="decayed mean score of the symbol's news known at the bar's close",
)
feature("sentiment_count", operators.sentiment_count, unit="items", about="decayed number of the symbol's news items")
feature(
    "sentiment_surprise",
    operators.sentiment_surprise,
    unit="-2 to 2",
    about="mean score of the items that became known since the bar before, less the decayed mean before them",
)

named_set("sentiment", "sentiment_mean sentiment_count sentiment_surprise")
