#!/usr/bin/env python3
"""Remakes tests/fixtures/chat: a tokenizer, and what transformers renders with each template there.

The templates, *.jinja, are written by hand. For each of them and each conversation below the oracle
has the text, or the message of the template's own exception; and the token ids of the text.
"""

import json
import pathlib

import jinja2
import tokenizers
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

FOLDER = pathlib.Path(__file__).parent.parent / "tests/fixtures/chat"
SPECIAL = (
    "<|end|> <|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> "
    "<|im_start|> <|im_end|> <s> </s> <|pad|>"
).split()

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2.5, 1e-7, 1e16, True, None], "c": "é \"q\""}}}
EXTRA = {"z": 1, "a": {"é": [1.0, 100.25, -0.5], "empty": [], "none": {}}, "b": "<&'>"}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


CONVERSATIONS = {
    "question": [turn("user", " What is it? ")],
    "system": [turn("system", "Be brief."), turn("user", "Why?")],
    "answer": [turn("user", "Why?"), turn("assistant", "\nBecause. ")],
    "turns": [
        turn("system", "Be brief."),
        turn("user", "One?"),
        turn("assistant", "One."),
        turn("user", "Två?"),
        turn("assistant", "Två: ünïcode 你好 \U0001f600."),
    ],
    "thought": [
        turn("user", "One?"),
        turn("assistant", "<think>\nhm\n</think>\n\nOne."),
        turn("user", "Two?"),
        turn("assistant", "<think>\nhm\nhm\n</think>\n\nTwo."),
    ],
    "reasoning": [turn("user", "One?"), turn("assistant", "One.", reasoning="hm")],
    "call": [
        turn("user", "1 + 2.5?"),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        turn("tool", "3.5"),
        turn("tool", "three and a half"),
        turn("assistant", "3.5"),
    ],
    "wrong order": [turn("user", "One?"), turn("user", "Two?")],
    "letters": [turn("user", "to be or\nnot a to be", extra=EXTRA), turn("system", "x"), turn("user", "Oo o", extra={})],
}


def make_tokenizer():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(SPECIAL + letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(FOLDER / "tokenizer.json"), pretty=False)
    config = {
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "special": True},
        "pad_token": "<|pad|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (FOLDER / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<|pad|>"
    )


def case(tokenizer, name, template, conversation, prompt):
    messages = CONVERSATIONS[conversation]
    entry = {"template": name, "messages": messages, "add_generation_prompt": prompt}

    def apply(tokenize):
        return tokenizer.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=prompt, tokenize=tokenize, return_dict=False
        )

    try:
        return entry | {"text": apply(False), "ids": apply(True)}
    except jinja2.exceptions.TemplateError as error:
        return entry | {"error": str(error)}


def main():
    tokenizer = make_tokenizer()
    cases = []
    for path in sorted(FOLDER.glob("*.jinja")):
        for conversation in CONVERSATIONS:
            for prompt in (False, True):
                needs_extra = (path.stem == "python") != (conversation == "letters")
                plain = all(isinstance(m["content"], str) for m in CONVERSATIONS[conversation])
                if needs_extra or not (plain or path.stem in ("qwen", "llama3")):
                    continue
                cases.append(case(tokenizer, path.stem, path.read_text(), conversation, prompt))
    oracle = {
        "versions": {module.__name__: module.__version__ for module in (transformers, tokenizers, jinja2)},
        "cases": cases,
    }
    (FOLDER / "oracle.json").write_text(json.dumps(oracle, indent=1, ensure_ascii=False) + "\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
