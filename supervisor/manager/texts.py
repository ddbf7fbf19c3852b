"""The texts of definition files whose functions can still be called: as they were checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from supervisor.definitions.service import Definitions


class Texts:
    """By the digest that services have; only those that somebody wants."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def learn(self, definitions: Definitions) -> None:
        """Take in what the services of these definitions need."""
        for service in definitions.services.values():
            if service.text:
                self._texts[service.text] = definitions.sources[service.file]

    def give(self, texts: Mapping[str, str]) -> None:
        """Take in what an earlier spawnd had."""
        self._texts.update(texts)

    def keep(self, wanted: Iterable[str]) -> None:
        """Forget all others."""
        kept = set(wanted)
        self._texts = {digest: text for digest, text in self._texts.items() if digest in kept}

    def get(self, digest: str) -> str | None:
        return self._texts.get(digest)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._texts.items())
