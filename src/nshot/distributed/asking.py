"""A folder of vectors asked with labels: a folder of answers, a part for each part, as arrays all the way."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from nshot.classifier import bulk
from nshot.classifier.classifier import Classifier
from nshot.embeddings.blocks import Block, split_error
from nshot.embeddings.parts import Parts, meta_of, part_name
from nshot.errors import OutputError, SourceError
from nshot.extras import one_thread_each, pyarrow
from nshot.images.budget import usable_cores
from nshot.objects import Folder, open_folder


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a part.

    Attributes:
        shard: its number.
        rows: images, the failed ones among them.
        failed: images without an answer.
        made: whether it was answered now, and not before.
        fault: why it could not be read; None as a rule.
    """

    shard: int
    rows: int
    failed: int
    made: bool = True
    fault: str | None = None


class Asking:
    """Asks parts of a folder of vectors, and writes parts of answers.

    Columns: source, label, score, cosine, margin, predictions (a list of label, score, cosine), notes,
    error_type, error_message. A part that is there and answers the same request is left as it is.

    Args:
        vectors: the folder of vectors.
        output: the folder of answers; made if it is not there.
        classifier: without a decision.
        top_k: how many labels to tell of each image, at most.
        cores: parts that are answered at once; one per core by default.

    Raises:
        RequestError: the vectors are of another model.
        OutputError: the folder holds answers to something else, or cannot be written.
    """

    def __init__(
        self,
        vectors: Parts,
        output: str | os.PathLike[str],
        classifier: Classifier,
        top_k: int = 5,
        *,
        cores: int | None = None,
    ) -> None:
        classifier.check_space(vectors.recipe, vectors.model)
        self.vectors = vectors
        self.folder: Folder = open_folder(output, make=True)
        self._classifier = classifier
        self._columns = bulk.columns(classifier)
        self._top_k = top_k
        self._cores = cores or usable_cores()
        self._request = _digest(vectors, classifier, top_k)
        if self.folder.name == vectors.name:
            raise OutputError(f"{self.folder.name} holds the vectors: name another folder with -o")
        self._check()

    def _check(self) -> None:
        for name in self.folder.files():
            if not name.startswith("part-"):
                continue
            if self._said(name).get("request") not in (None, self._request):
                raise OutputError(
                    f"{self.folder.name} holds answers to something else (other vectors, labels or options): "
                    "name another folder with -o"
                )
            if "request" not in self._said(name):
                raise OutputError(f"{self.folder.path(name)} is not nshot's: name another folder with -o")
            return

    def _said(self, name: str) -> dict[str, Any]:
        pa = pyarrow()
        try:
            with self.folder.open(name) as file, pa.parquet.ParquetFile(file) as opened:
                return meta_of(opened)
        except (OSError, ValueError, pa.ArrowException):
            return {}

    def run(self, numbers: Sequence[int] | None = None) -> Iterator[Answered]:
        """Answer these parts, all by default, several at once; what is answered already is skipped."""
        rest = iter(self.vectors.numbers() if numbers is None else numbers)
        workers = self._cores
        pool = ThreadPoolExecutor(workers, thread_name_prefix="nshot-ask")
        with one_thread_each(), pool:  # product, reading and writing side by side, and nobody spins
            waiting = deque(pool.submit(self.one, number) for number in islice(rest, 2 * workers))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(self.one, number) for number in islice(rest, 1))

    def one(self, number: int) -> Answered:
        """Answer one part.

        Raises:
            OutputError: it cannot be written.
        """
        name = part_name(number)
        if self.folder.exists(name) and self._stands(said := self._said(name), number):
            return Answered(number, said["rows"], said["failed"], made=False)
        rows = failed = 0
        pa = pyarrow()
        schema = self._schema()
        kept = {"compression": "none", "write_statistics": False}
        kept["use_dictionary"] = ["label", "predictions.list.element.label"]
        try:
            with (
                self.folder.drafting(name) as draft,
                pa.parquet.ParquetWriter(draft, schema, **kept) as writer,
            ):
                for block in self.vectors.blocks(number, ("source", "error", "notes")):
                    writer.write_table(self._table(block, schema))
                    rows += len(block.there)
                    failed += int((~block.there).sum())
                said = {"nshot": 1, "request": self._request, "shard": number, "rows": rows, "failed": failed}
                said["vectors"] = self.vectors.digest(number)
                writer.add_key_value_metadata({"nshot": json.dumps(said)})
        except SourceError as error:
            return Answered(number, 0, 0, fault=str(error))
        return Answered(number, rows, failed)

    def _stands(self, said: dict[str, Any], number: int) -> bool:
        """Whether a part of answers is to this request, and its vectors were not made again since."""
        if said.get("request") != self._request:
            return False
        try:
            return bool(said.get("vectors") == self.vectors.digest(number))
        except SourceError:  # they are not there any more, and it is
            return True

    def _schema(self) -> Any:
        pa = pyarrow()
        text, real = pa.string(), pa.float32()
        one = pa.struct([("label", text), ("score", real), ("cosine", real)])
        columns = [("source", text), ("label", text), ("score", real), ("cosine", real), ("margin", real)]
        columns += [("predictions", pa.list_(one)), ("notes", pa.list_(text))]
        columns += [("error_type", text), ("error_message", text)]
        return pa.schema(columns)

    def _table(self, block: Block, schema: Any) -> Any:
        pa = pyarrow()
        answers = bulk.ask(self._classifier, block.vectors, self._top_k, table=self._columns)
        count, told = answers.labels.shape
        names = pa.array(self._classifier.labels, pa.string())
        margins = pa.array(answers.margins, mask=np.isnan(answers.margins))
        best = [
            names.take(pa.array(answers.labels[:, 0])),
            pa.array(np.ascontiguousarray(answers.scores[:, 0])),
            pa.array(np.ascontiguousarray(answers.cosines[:, 0])),
            margins,
        ]
        several = pa.StructArray.from_arrays(
            [
                names.take(pa.array(answers.labels.ravel())),
                pa.array(answers.scores.ravel()),
                pa.array(answers.cosines.ravel()),
            ],
            fields=list(schema.field("predictions").type.value_type),
        )
        offsets = pa.array(np.arange(0, count * told + 1, told, dtype=np.int32))
        best.append(pa.ListArray.from_arrays(offsets, several))
        held = block.table
        if not block.there.all():  # an answer stands where its image does
            places = np.where(block.there, np.cumsum(block.there) - 1, -1)
            rows = pa.array(places, pa.int64(), mask=~block.there)
            best = [column.take(rows) for column in best]
        empty = pa.nulls(len(block.there), pa.string())
        errors = messages = empty
        if not block.there.all():
            listed = held.column("error").to_pylist() if "error" in held.column_names else []
            pairs = [
                (None, None) if ok else split_error(said)
                for ok, said in zip(block.there, listed, strict=True)
            ]
            errors, messages = (pa.array([pair[side] for pair in pairs], pa.string()) for side in (0, 1))
        notes = (
            held.column("notes")
            if "notes" in held.column_names
            else pa.nulls(len(empty), pa.list_(pa.string()))
        )
        return pa.Table.from_arrays([held.column("source"), *best, notes, errors, messages], schema=schema)


def _digest(vectors: Parts, classifier: Classifier, top_k: int) -> str:
    """What must agree between two runs into one folder: everything that changes an answer."""
    plan = (vectors.plan or {}).get("plan", vectors.name)
    said = hashlib.sha256(json.dumps([plan, classifier.labels, top_k, classifier.activation]).encode())
    for numbers in (classifier.matrix, classifier.scale, classifier.bias):
        said.update(np.ascontiguousarray(numbers).tobytes())
    return said.hexdigest()
