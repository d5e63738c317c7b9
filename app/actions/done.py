"""What an action returns when there is nothing to show but that it is done."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """Something that has been done, in words."""

    text: str

    def __str__(self) -> str:
        return self.text
