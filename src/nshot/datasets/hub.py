"""A data set on the Hugging Face Hub as Parquet files, downloaded into the Hub's cache one at a time.

Parquet is what nshot reads: no script of a repository is ever run. Whatever a data set is made of, the Hub
keeps a Parquet copy of it at the revision refs/convert/parquet, in config/split/0000.parquet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import overload

from nshot.errors import HubUnavailable, SourceError
from nshot.images.hub import files_of
from nshot.models.hub import trouble, within

CONVERTED = "refs/convert/parquet"
_PATIENCE = 8.0  # seconds for the list of files
_SPLITS = ("train", "validation", "valid", "val", "dev", "test")


@dataclass(frozen=True, slots=True)
class Shards(Sequence[str]):
    """The files of one split; asking for one downloads it, if it is not in the cache.

    Attributes:
        name: "owner/name".
        revision: where they stand, as it was asked for.
        commit: what that was when the files were listed.
        files: their paths in the repository, in order.
    """

    name: str
    revision: str
    commit: str
    files: tuple[str, ...]

    @classmethod
    def of(cls, name: str, *, config: str | None, split: str | None, revision: str | None) -> Shards:
        """Find the files of a configuration and a split.

        Raises:
            HubUnavailable: the Hub cannot be reached, and nothing is cached.
            SourceError: no such data set, configuration or split; or no Parquet there, and where to find it.
        """
        revision = revision or "main"
        files, commit = _files(name, revision)
        found: dict[tuple[str, str], list[str]] = {}
        for file in sorted(file for file in files if file.endswith(".parquet")):
            if place := placed(file):
                found.setdefault(place, []).append(file)
        if not found:
            raise SourceError(_without_parquet(name, revision, files))
        config = _choose(name, "--config", config, {config for config, _ in found})
        splits = {split for of_config, split in found if of_config == config}
        split = _choose(f"{name} ({config})" if config else name, "--split", split, splits)
        return cls(name, revision, commit, tuple(found[config, split]))

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, item: int) -> str: ...
    @overload
    def __getitem__(self, item: slice) -> tuple[str, ...]: ...
    def __getitem__(self, item: int | slice) -> str | tuple[str, ...]:
        """The local path of a shard."""
        if isinstance(item, slice):
            return tuple(self[i] for i in range(*item.indices(len(self))))
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        file = self.files[item]
        try:
            with suppress(LocalEntryNotFoundError):  # asks nobody about what is here
                return hf_hub_download(
                    self.name, file, repo_type="dataset", revision=self.commit, local_files_only=True
                )
            return hf_hub_download(self.name, file, repo_type="dataset", revision=self.revision)
        except Exception as error:
            raise _translated(error, self.name, self.revision) from error


def get(name: str, file: str, revision: str | None = None) -> Path | None:
    """One file of a data set, from the cache or downloaded into it; None where it has no such file.

    Raises:
        HubUnavailable: the Hub cannot be reached, and it is not cached.
        SourceError: no such data set or revision.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    wanted = revision or "main"
    try:
        with suppress(LocalEntryNotFoundError):
            return Path(
                hf_hub_download(name, file, repo_type="dataset", revision=wanted, local_files_only=True)
            )
        return Path(hf_hub_download(name, file, repo_type="dataset", revision=wanted))
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):
            raise _translated(error, name, wanted) from error
        return None
    except Exception as error:
        raise _translated(error, name, wanted) from error


def _files(name: str, revision: str) -> tuple[list[str], str]:
    """All files of the repository at a revision, and the commit that this is."""
    from huggingface_hub import constants, snapshot_download

    try:
        if constants.HF_HUB_OFFLINE:
            raise HubUnavailable(
                f"hf://{name} is not cached, and HF_HUB_OFFLINE is set: unset it once to fetch the data set"
            )
        files, commit = within(_PATIENCE, lambda: files_of(name, revision, _PATIENCE))
        return files, commit or revision
    except Exception as error:
        reason = _translated(error, name, revision)
        if isinstance(reason, SourceError):
            raise reason from error
        try:  # what an earlier run left, if there is any
            root = Path(
                snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True)
            )
        except Exception:
            raise reason from error
        return [path.relative_to(root).as_posix() for path in root.rglob("*.parquet")], root.name


def placed(file: str) -> tuple[str, str] | None:
    """(config, split) by the layouts that the Hub's own tools write; None of neither."""
    *folders, last = PurePosixPath(file).with_suffix("").parts
    stem = re.sub(r"(-\d+-of-\d+|[-_.]?\d+)$", "", last)
    if folders and (not stem or folders[-1] in _SPLITS):  # config/split/0000.parquet
        return "/".join(folders[:-1]), folders[-1].removeprefix("partial-")
    if stem in _SPLITS or re.search(r"-\d+-of-\d+$", last):  # config/split-00000-of-00001.parquet
        config = "/".join(folders)
        return ("" if config == "data" else config), stem
    return None


def _choose(name: str, option: str, wanted: str | None, there: set[str]) -> str:
    named = ", ".join(sorted(filter(None, there)))
    if wanted is not None:
        if wanted in there:
            return wanted
        raise SourceError(f"hf://{name} has no {option} {wanted}; there is: {named or 'only one'}")
    if len(there) == 1:
        return next(iter(there))
    raise SourceError(f"hf://{name} has several: choose with {option}, one of: {named}")


def _without_parquet(name: str, revision: str, files: Sequence[str]) -> str:
    own = name.rpartition("/")[2]
    kind = (
        f"is a repository of a loading script ({own}.py), which nshot does not run"
        if f"{own}.py" in files
        else f"holds no Parquet files at {revision}"
    )
    if revision == CONVERTED:
        return f"hf://{name} {kind}"
    return f"hf://{name} {kind}. The Hub keeps a Parquet copy: add --revision {CONVERTED}"


def _translated(error: Exception, name: str, revision: str) -> SourceError | HubUnavailable:
    if isinstance(error, (HubUnavailable, SourceError)):
        return error
    kind, reason = trouble(error)
    if kind == "revision":
        return SourceError(f"hf://{name} has no revision {revision}")
    if kind in ("absent", "gated", "name"):
        return SourceError(
            f"no data set {name} on the Hub; if it is private or gated, log in with `hf auth login`"
        )
    return HubUnavailable(
        f"the data set hf://{name} cannot be fetched ({reason}): check the network and HF_ENDPOINT, or give "
        "a folder of classes or a table"
    )
