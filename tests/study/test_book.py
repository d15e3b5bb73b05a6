"""One book: whoever trades the same predictions over the same bars gets the same returns, to the bit."""

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from tests.study.panels import START, SYMBOLS, daily_bars, small_experiment
from tests.study.running import run
from tidemill import lab
from tidemill.config import Secret, Settings
from tidemill.domain.experiment import EngineSpec, Experiment, NeutraliseSpec, PromotionSpec, StrategySpec, ValidationSpec
from tidemill.evaluation.cross_validation import Plan, walk_forward_book
from tidemill.evaluation.search import held_out_book
from tidemill.queries.results import study_of
from tidemill.steps.models.champion import challenge_fold, challenger_book
from tidemill.study.book import Span, book
from tidemill.study.rejections import tradable
from tidemill.study.scoring import predicted_by
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace
