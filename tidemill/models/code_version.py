"""The version of an engine's code, as it goes into an artifact's hash: the project's one rule for versions of source."""

from tidemill.domain.provenance import source_version as code_version

__all__ = ["code_version"]
