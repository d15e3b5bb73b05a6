"""Compiles every kernel ahead of the first run: `python -m tidemill.maintenance.warm`, part of set-up."""

from tidemill.backtest import warm as engine
from tidemill.features import api as features
from tidemill.models import warm as models
from tidemill.trading import warm as trading


def warm() -> None:
    """Seconds to a minute when nothing is cached, a second or two when everything is."""
    features.warm()
    engine.warm()
    models.warm()
    trading.warm()


if __name__ == "__main__":
    warm()
