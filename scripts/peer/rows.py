"""Preference rows that every program reads alike, and the tokenizer of those made up here."""

import gzip
import itertools
import json
import math
import os
import random
from pathlib import Path

END = "<|endoftext|>"
TURN = "\n\nAssistant:"
MAX_LENGTH = 512

# Natural logarithms of HH's lengths in tokens, mean and standard deviation, the end token included.
PROMPT, CHOSEN, REJECTED = (4.44, 0.95), (3.32, 0.87), (3.49, 0.91)

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
WORDS = [a + b for a, b in itertools.product(SYLLABLES, SYLLABLES)]


def read(path: str, count: int) -> list[dict]:
    """The first `count` rows of an HH file of which nothing but a long answer's end is cut."""
    opened = gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8")
    with opened as lines:
        try:
            kept = list(itertools.islice(filter(usable, map(split, lines)), count))
        except (KeyError, TypeError, ValueError) as error:
            raise SystemExit(f"{path}: a row is not of HH's form: {error!r}") from None
    if len(kept) < count:
        raise SystemExit(f"{path}: {count} rows are needed, {len(kept)} can be used")
    return kept


def split(line: str) -> dict:
    """A row with its prompt: up to the last `Assistant:` that both transcripts have."""
    row = json.loads(line)
    chosen, rejected = row["chosen"], row["rejected"]
    at = os.path.commonprefix([chosen, rejected]).rfind(TURN) + len(TURN)
    return {"prompt": chosen[:at], "chosen": chosen[at:], "rejected": rejected[at:]}


def usable(row: dict) -> bool:
    """Whether there are two different answers, and a prompt that fits: English has more than 3.5
    letters a token."""
    answers = row["chosen"], row["rejected"]
    return (
        row["prompt"].endswith(TURN)
        and all(answer.strip() for answer in answers)
        and answers[0] != answers[1]
        and len(row["prompt"]) <= 3.5 * MAX_LENGTH
    )


def make(count: int, seed: int = 0) -> list[dict]:
    """Rows of made-up words, one token each, as long as those of HH."""
    draws = random.Random(seed)

    def words(length: tuple[float, float], around: int, most: int) -> str:
        tokens = min(round(draws.lognormvariate(*length)), most)
        return " ".join(draws.choices(WORDS, k=max(tokens - around, 1)))

    return [
        {
            "prompt": f"\n\nHuman: {words(PROMPT, 2, MAX_LENGTH - 16)}{TURN}",
            "chosen": " " + words(CHOSEN, 1, MAX_LENGTH),
            "rejected": " " + words(REJECTED, 1, MAX_LENGTH),
        }
        for _ in range(count)
    ]


def texts(rows: list[dict]) -> list[dict]:
    """The chosen transcripts, all of which is learned."""
    return [{"text": row["prompt"] + row["chosen"]} for row in rows]


def save(rows: list[dict], path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def save_tokenizer(folder: Path, given: str | None) -> int:
    """Writes `tokenizer.json`, the given one or one of the made-up words, with its config. Returns the
    id of the end token."""
    folder.mkdir()
    tokenizer = json.loads(Path(given).read_text()) if given else word_level()
    ids = [token["id"] for token in tokenizer["added_tokens"] if token["content"] == END]
    if not ids:
        raise SystemExit(f"{given}: the tokenizer has no {END}")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return ids[0]


def word_level() -> dict:
    """A tokenizer whose tokens are the made-up words."""
    vocabulary = [END, "<unk>", "Human:", "Assistant:", *WORDS]
    end = {"id": 0, "content": END, "special": True, "normalized": False}
    sides = {"single_word": False, "lstrip": False, "rstrip": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end | sides],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: at for at, word in enumerate(vocabulary)},
            "unk_token": "<unk>",
        },
    }


def tokens(text: str, made_up: bool) -> float:
    """About how many tokens a text has, its end token included."""
    return len(text.split()) + 1 if made_up else math.ceil(len(text) / 4.3) + 1
