"""Options that do not go together: refused by name, never passed over in silence."""

from __future__ import annotations

from nshot.errors import RequestError


def leave_out(why: str, **given: object) -> None:
    """Refuse what was given, by the options' names.

    Args:
        why: the reason, a sentence without its end: "a tree answers with one node per image".
        **given: the option's name, with _ for -, and its value; None, False and nothing in a list: not given.

    Raises:
        RequestError: at least one was given: "a tree answers with one node per image: leave out --multi".
    """
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, False, ())]
    if names:
        raise RequestError(f"{why}: leave out {', '.join(names)}")
