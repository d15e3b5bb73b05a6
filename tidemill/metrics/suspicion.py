"""Figures that are too good to be taken as they are: markets do not pay so much for what can be known, a leak does."""

# Annualised, after costs; mean rank IC of a cross-section of at least FEW_SYMBOLS.
TOO_GOOD_SHARPE, TOO_GOOD_IC = 3.0, 0.15
FEW_SYMBOLS = 30
