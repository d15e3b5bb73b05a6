"""The moving-average cross in vectorbt: `python vectorbt_cross.py PANEL.npz FAST SLOW FEE CASH GRANULARITY`.

Reads open and close [slots, symbols]; then, for each line on standard input, runs once and prints the seconds and the final
equity as JSON. State-based signals, filled at the next open, in whole lots, with fees; the equity curve is part of it, as it is
of ours. Every symbol is an account of its own.
"""

import json
import sys
import time

import numpy as np
import pandas as pd
import vectorbt as vbt


def main() -> None:
    path, fast, slow, fee, cash, granularity = sys.argv[1:]
    with np.load(path, allow_pickle=False) as panel:
        opened, close = (pd.DataFrame(panel[name]) for name in ("open", "close"))
    lots = {"size_granularity": float(granularity)} if float(granularity) else {}
    for _ in sys.stdin:
        begun = time.perf_counter()
        quick, slower = vbt.MA.run(close, int(fast)), vbt.MA.run(close, int(slow))
        entries = quick.ma_above(slower).vbt.signals.fshift(1)
        exits = quick.ma_below(slower).vbt.signals.fshift(1)
        entries.columns = exits.columns = close.columns
        portfolio = vbt.Portfolio.from_signals(
            close, entries, exits, price=opened, fees=float(fee), init_cash=float(cash) / close.shape[1], **lots
        )
        value = portfolio.value()
        seconds = time.perf_counter() - begun
        print(json.dumps({"seconds": seconds, "equity": float(np.asarray(value)[-1].sum())}), flush=True)


if __name__ == "__main__":
    main()
