"""YAML as experiments use it: plain values, dates as text, no key twice.

A file of its own, so that yaml is imported only by who reads an experiment.
"""

from collections.abc import Hashable
from typing import Any

import yaml

from tidemill.domain.errors import InputError


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


# Without dates: an unquoted 2024-01-31 is the text that the schema wants.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str, origin: str) -> object:
    """The value of one document; InputError, with line and column, for what is not YAML."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: it makes nothing but plain values  # nosec B506
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise InputError(f"{origin} is not valid YAML: {' '.join(str(exc).split())}.") from exc
