"""How a run of the main job is told what to run: the experiment as run config, its months as tags."""

from tidemill.domain.experiment import Experiment

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def experiment_config(experiment: Experiment) -> dict[str, object]:
    """Run config that hands `experiment` to the resource of that name, readable in the web UI."""
    import msgspec

    return {"resources": {"experiment": {"config": {"yaml_text": msgspec.yaml.encode(experiment).decode()}}}}


def run_tags(experiment: Experiment, months: tuple[str, str] | None) -> dict[str, str]:
    """What the web UI shows and filters runs by, and the months of the run."""
    return {"tidemill/experiment": experiment.name, **range_tags(months)}


def range_tags(months: tuple[str, str] | None) -> dict[str, str]:
    """Tags that make one run of all months from the first to the last; none for a run without partitioned assets."""
    return {} if months is None else {RANGE_START: months[0], RANGE_END: months[1]}
