"""A source that lost a great part of its bars: said first, and a reason against promotion, until a person confirms it."""

from tidemill.domain.errors import UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.storage.bar_rows import datasets
from tidemill.storage.losses import Loss, confirm_loss, open_loss
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace


def loss_sentence(workspace: Workspace, venue: str, interval: Interval) -> str:
    """What a dataset lost and what to do about it; empty where nothing is open."""
    loss = workspace.call(open_loss, workspace.database, venue, interval)
    if loss is None:
        return ""
    share, command = f"{100 * loss.lost / loss.held:.0f} %", f"tidemill data confirm {venue} --interval {interval}"
    return (
        f"The source lost {share} of its bars ({loss.lost:,} of {loss.held:,}, {loss.found_at:%Y-%m-%d}). "
        f"Nothing of it is promoted until you have checked it: `{command}`."
    )


def loss_notes(study: Study) -> tuple[str, ...]:
    """The sentence for the dataset of a study; empty where it is whole or confirmed."""
    told = loss_sentence(study.workspace, study.dataset.venue, study.dataset.interval)
    return (told,) if told else ()


def confirm(workspace: Workspace, venue: str, interval: Interval) -> Loss | None:
    """Take what is left of a source for the whole; None where no loss was open. UnknownNameError for an unknown dataset."""
    known = workspace.call(datasets, workspace.database)
    if (venue, str(interval)) not in known:
        raise UnknownNameError("dataset", f"{venue} {interval}", (f"{name} {length}" for name, length in known))
    return workspace.call(confirm_loss, workspace.database, venue, interval)
