"""What a run's events say: seconds and work of each step, and in one sentence why it failed."""

from collections.abc import Iterable

from dagster import AssetCheckEvaluation, DagsterEvent, DagsterEventType
from dagster._core.execution.plan.objects import ErrorSource, StepFailureData
from dagster_shared.error import SerializableErrorInfo

from tidemill.domain.errors import TidemillError
from tidemill.domain.ports import RunOutcome

WORKED = "worked"


def was_interrupted(event: DagsterEvent) -> bool:
    """Whether this is the failure of a step by ctrl-C, SIGTERM or the web UI's "Terminate"."""
    data = event.event_specific_data
    return isinstance(data, StepFailureData) and data.error_source is ErrorSource.INTERRUPT


class Record:
    """Takes the events of one run as they come."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._assets: dict[str, dict[str, bool]] = {}
        self._checks: list[tuple[str, AssetCheckEvaluation]] = []
        self._errors: list[tuple[str, SerializableErrorInfo]] = []
        self._canceled = False

    def add(self, event: DagsterEvent) -> None:
        kind, step = event.event_type, event.step_key or ""
        if kind is DagsterEventType.STEP_SUCCESS:
            self._seconds[step] = event.step_success_data.duration_ms / 1000
        elif kind is DagsterEventType.ASSET_MATERIALIZATION:
            self._add_materialization(step, event)
        elif kind is DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checks.append((step, event.asset_check_evaluation_data))
        elif kind is DagsterEventType.RUN_CANCELED:
            self._canceled = True
        elif event.is_failure:
            self._add_failure(step, event)

    def _add_materialization(self, step: str, event: DagsterEvent) -> None:
        """One event per partition: the asset worked if any of its partitions did. Without the flag it counts as work."""
        made = event.step_materialization_data.materialization
        flag = made.metadata.get(WORKED)
        worked = flag is None or bool(flag.value)
        assets = self._assets.setdefault(step, {})
        name = made.asset_key.to_user_string()
        assets[name] = assets.get(name, False) or worked

    def _add_failure(self, step: str, event: DagsterEvent) -> None:
        error = getattr(event.event_specific_data, "error", None)
        if error is not None:
            self._errors.append((step, error))

    def outcome(self, run_id: str, *, succeeded: bool) -> RunOutcome:
        return RunOutcome(
            succeeded=succeeded,
            run_id=run_id,
            steps=tuple(
                (name, self._seconds.get(step, 0.0), worked)
                for step, made in self._assets.items()
                for name, worked in made.items()
            ),
            checks=tuple((check_name(data), self._seconds.get(step, 0.0), data.passed) for step, data in self._checks),
            failure="" if succeeded else self._failure(run_id),
        )

    def _failure(self, run_id: str) -> str:
        """The most telling sentence there is: our own error, a blocking check, any other error, then only the fact."""
        if self._canceled:
            return "The run was interrupted."
        for _, error in self._errors:
            if sentence := own_sentence(error):
                return sentence
        for _, check in self._checks:
            if check.blocking and not check.passed:
                reason = f": {check.description.rstrip('.')}" if check.description else ""
                return f"The check {check_name(check)} failed{reason}."
        for step, error in self._errors:
            return (
                f"{step.replace('__', '/') or 'The run'} failed: {innermost(error)}. Run again with --debug for the traceback."
            )
        return f"The run {run_id} failed. Look at it in the web UI (scripts/up)."


def check_name(data: AssetCheckEvaluation) -> str:
    """`asset/key:check`."""
    return f"{data.asset_key.to_user_string()}:{data.check_name}"


def _chain(error: SerializableErrorInfo) -> Iterable[SerializableErrorInfo]:
    current: SerializableErrorInfo | None = error
    while current is not None:
        yield current
        current = current.cause


def _own_names(kind: type[TidemillError] = TidemillError) -> set[str]:
    return {kind.__name__}.union(*(_own_names(child) for child in kind.__subclasses__()))


def own_sentence(error: SerializableErrorInfo) -> str:
    """Text of the innermost TidemillError in the chain of causes; empty without one."""
    names = _own_names()
    texts = [_text(link) for link in _chain(error) if link.cls_name in names]
    return texts[-1] if texts else ""


def innermost(error: SerializableErrorInfo) -> str:
    """Name and first line of the error at the end of the chain of causes."""
    last = list(_chain(error))[-1]
    first_line = next(iter(_text(last).splitlines()), "")
    return f"{last.cls_name}: {first_line}".rstrip(": .")


def _text(error: SerializableErrorInfo) -> str:
    """The message without the class that Python puts before it."""
    head, colon, tail = error.message.partition(": ")
    return tail.strip() if colon and head.rpartition(".")[2] == error.cls_name else error.message.strip()
