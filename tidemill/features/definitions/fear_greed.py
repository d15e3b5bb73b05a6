"""The set `fear_greed`: the mood of the crypto market, the same for all symbols, as of the time at which it was known.

Source: alternative.me's Fear & Greed Index, a number a day, known one day after its stamp. An experiment asks for it with its
field `fear_greed`; bars of one's own need the columns beforehand.
"""

from tidemill.features import operators
from tidemill.features.declaration import Declarations

DECLARED = Declarations()
feature, named_set = DECLARED.feature, DECLARED.named_set

feature("fear_greed", operators.fear_greed, unit="0 to 100", about="Fear & Greed Index known at the bar's close, 0 being fear")
feature(
    "fear_greed_change_7",
    operators.fear_greed_change_7,
    unit="points",
    about="Fear & Greed Index known at the bar's close, less that of seven days before",
)

named_set("fear_greed", "fear_greed fear_greed_change_7")
