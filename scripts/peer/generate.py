"""Draws responses with expo and its peers in turn, and compares their speed."""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import generate_table
import rows
import shapes
from compare import build, machine, say, to_build
from options import several
from programs import TUNED, CannotRun, execute

HERE = Path(__file__).parent
# Those of the papers.
SETTINGS = {"temperature": 1.0, "top_k": 60, "top_p": 0.8, "repetition_penalty": 1.1}
PEERS = {"transformers": ("torch", "transformers"), "llama.cpp": ("llama_cpp", "numpy")}
DTYPES = ["f32", "bf16", "q8_0"]
PREFILL = "prefill"
PREFILL_TOKENS = 2000
# So many tokens are drawn to see that two programs have the same model.
CHECKED = 48
EPILOG = """
workloads:
  batch N  N prompts of 64 tokens at once, 128 new tokens each
  prefill  3 prompts of 2,000 tokens one after the other, one new token each: tokens of prompts a second
  mixed    200 prompts of 8 to 256 tokens, at most 256 new tokens; every 80th token of the vocabulary
           ends a response, so that they end by themselves after 80 tokens on average; 16 at once

peers:
  transformers  its generate, which pads a batch to its longest prompt and continues until its last
                response has ended; its allocator is tuned. Not in q8_0.
  llama.cpp     through its C interface, one context for all sequences of a batch, its own samplers in
                their own order, keys and values in f16, as it has them by default; shapes of Llama, all
                workloads but mixed. Its file is made of the same weights, and the first ids that both draw greedily in f32 are compared before.

All draw with the papers' settings: temperature 1, top-k 60, top-p 0.8, repetition penalty 1.1. The
weights are random: f32, or bf16 or q8_0 of the same file (expo: --dtype, --quantization). Speeds are
medians over the rounds, of drawing alone, without loading; memory is the most that a process held. The
bound is what expo's steps have to read, weights, keys and values, at the rate of a plain read by all
threads in the same process.
"""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare_generate.sh",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument

    def add_list(name: str, among, default: list, text: str, kind=str):
        said = f"{text} [{','.join(map(str, default))}]" if default else text
        add(name, metavar="LIST", type=several(among, kind), default=default, help=said)

    add_list("--peers", PEERS, None, "of transformers,llama.cpp [those that can be imported]")
    add_list("--shapes", shapes.SHAPES, ["70m"], f"of {','.join(shapes.SHAPES)}")
    add_list("--batches", None, [1, 16, 64], "responses drawn at once; 0: none of these workloads", int)
    add_list("--dtypes", DTYPES, ["f32", "bf16"], f"of {','.join(DTYPES)}")
    add("--prefill", choices=["yes", "no", "only"], default="yes", help="the workload of long prompts [yes]")
    add("--mixed", choices=["yes", "no", "only"], default="yes", help="the workload of mixed lengths [yes]")
    add("--rounds", metavar="N", type=int, default=3, help="turns of each program [3]")
    add("--threads", metavar="N", type=int, default=2, help="[2]")
    add("--work", metavar="DIR", help="where models are made, and kept for the next time [a temporary directory]")
    add("--out", metavar="FILE", help="everything measured, as JSON")
    add("--expo", metavar="FILE", help="the program; built from this checkout if not given")
    add("--python", metavar="FILE", default=os.environ.get("PYTHON", sys.executable), help="[$PYTHON, else python3]")
    parsed = parser.parse_args(words)
    if "only" in (parsed.prefill, parsed.mixed) and parsed.prefill == parsed.mixed:
        parser.error("--prefill and --mixed are not both alone")
    parsed.tokenizer = None
    return parsed


def missing(python: str, peer: str) -> str | None:
    """Why a peer cannot be run by that Python, if it cannot."""
    imports = "; ".join(f"import {package}" for package in PEERS[peer])
    try:
        done = subprocess.run([python, "-c", imports], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    said = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else f"{python}: {said[-1] if said else 'fails'}"


def choose_peers(args) -> list[str]:
    """The peers that were asked for, all of which must run; else those that can."""
    reasons = {peer: missing(args.python, peer) for peer in args.peers or PEERS}
    for peer, reason in reasons.items():
        if reason and args.peers:
            raise SystemExit(f"{peer} cannot run: {reason}")
        if reason:
            say(f"{peer} is left out: {reason}")
    return [peer for peer, reason in reasons.items() if reason is None]


def does_not(peer: str, shape: str, dtype: str, workload: str) -> str | None:
    """Why a peer has no part in a cell, if it has none."""
    if peer == "transformers":
        return "it has no q8_0" if dtype == "q8_0" else None
    if shapes.SHAPES[shape]["model_type"] != "llama":
        return "shapes of Llama alone"
    return "its responses do not end by themselves" if workload == "mixed" else None


def workloads(args) -> list[str]:
    alone = "only" in (args.prefill, args.mixed)
    batches = [] if alone else [f"batch {size}" for size in args.batches if size]
    others = [(PREFILL, args.prefill), ("mixed", args.mixed)]
    return batches + [name for name, said in others if said == "only" or (said == "yes" and not alone)]


def words(count: int, draws: random.Random) -> str:
    return " ".join(draws.choices(rows.WORDS, k=count))


def prompts(workload: str) -> list[dict]:
    draws = random.Random(0)
    if workload == "mixed":
        return [{"prompt": words(draws.randint(8, 256), draws)} for _ in range(200)]
    if workload == PREFILL:
        return [{"prompt": words(PREFILL_TOKENS, draws)} for _ in range(3)]
    return [{"prompt": words(64, draws)} for _ in range(int(workload.split()[1]))]


def with_ends(model: str, workload: str, folder: Path) -> tuple[str, list[int]]:
    """The model with the workload's end tokens, its weights linked."""
    config = json.loads((Path(model) / "config.json").read_text())
    size = config["vocab_size"]
    # One that is hardly ever drawn, where none is to end.
    ends = list(range(79, size, 80)) if workload == "mixed" else [config["eos_token_id"]]
    place = folder / f"{Path(model).name}-{workload.split()[0]}"
    if not place.exists():
        place.mkdir()
        for file in Path(model).iterdir():
            (place / file.name).symlink_to(file.resolve())
        own = place / "generation_config.json"
        own.unlink(missing_ok=True)
        own.write_text(json.dumps({"eos_token_id": ends}))
    return str(place), ends


def gguf(order: dict, args, folder: Path) -> str:
    """llama.cpp's file of the order's model, made where it is not there."""
    name = Path(order["model"]).name.rsplit("-", 1)[0]
    place = Path(args.work or folder) / f"{name}-{order['dtype']}.gguf"
    if not place.exists():
        new = place.with_suffix(".new")
        script = str(HERE / "gguf_file.py")
        execute([args.python, "-B", script, order["model"], str(new), order["dtype"]], order["threads"], {})
        new.rename(place)
    return str(place)


def draw(name: str, order: dict, args, folder: Path) -> dict:
    if name != "expo":
        if name == "llama.cpp":
            order = {"key_values": "f16"} | order | {"gguf": gguf(order, args, folder)}
        path = folder / "order.json"
        path.write_text(json.dumps(order))
        script = {"transformers": "generate_peer.py", "llama.cpp": "llama_cpp_peer.py"}[name]
        command = [args.python, "-B", str(HERE / script), str(path)]
        variables = TUNED | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        return json.loads(execute(command, order["threads"], variables).splitlines()[-1])
    settings = order["settings"] or {}
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    flags += [] if settings else ["--greedy"]
    quantized = order["dtype"] == "q8_0"
    flags += ["--quantization", "q8_0"] if quantized else ["--dtype", order["dtype"]]
    command = [args.expo, "sample", "--model", order["model"], "--prompts", order["data"], *flags]
    command += ["--max-new-tokens", order["max_new_tokens"], "--batch-size", order["batch"]]
    command += ["--device", "cpu", "--out", folder / "samples.jsonl"]
    command = [str(word) for word in [*command, "--overwrite", "--profile", "--json"]]
    return json.loads(execute(command, order["threads"], {}).splitlines()[-1])


def order_of(shape: str, dtype: str, workload: str, args, folder: Path) -> dict:
    """What all programs are to do in a cell."""
    model, ends = with_ends(shapes.make(args, shape, Path(args.work or folder)), workload, folder)
    data = folder / "prompts.jsonl"
    rows.save(prompts(workload), data)
    batches = {"mixed": (16, 256), PREFILL: (1, 1)}
    batch, new = batches.get(workload) or (int(workload.split()[1]), 128)
    return {
        "model": model,
        "data": str(data),
        "dtype": dtype,
        "threads": args.threads,
        "settings": SETTINGS,
        "ends": ends,
        "prompt_tokens": PREFILL_TOKENS if workload == PREFILL else 256,
        "max_new_tokens": new,
        "batch": batch,
    }


def check_same_model(shape: str, args, folder: Path) -> None:
    """Refuses a peer that does not draw from expo's model: the most likely tokens after one prompt, in
    f32 throughout, are the same ones."""
    order = order_of(shape, "f32", "batch 1", args, folder)
    order |= {"settings": None, "max_new_tokens": CHECKED, "key_values": "f32"}
    (peer,) = draw("llama.cpp", order, args, folder)["ids"]
    draw("expo", order, args, folder)
    own = json.loads((folder / "samples.jsonl").read_text())["token_ids"]
    if own != peer[: len(own)]:
        agreed = next(at for at, pair in enumerate(zip(own, peer)) if pair[0] != pair[1])
        raise CannotRun(f"llama.cpp draws another token {agreed} than expo: {peer} for {own}")
    say(f"{shape}: expo and llama.cpp draw the same {len(own)} tokens greedily")


def cell(shape: str, dtype: str, workload: str, args, folder: Path) -> dict:
    order = order_of(shape, dtype, workload, args, folder)
    peers = [peer for peer in args.peers if does_not(peer, shape, dtype, workload) is None]
    found = {"shape": shape, "dtype": dtype, "workload": workload, "runs": {}}
    for name in ["expo", *peers] * args.rounds:
        try:
            run = draw(name, order, args, folder)
        except Exception as error:
            say(f"{name}: {error}")
            continue
        run["counted"] = run["tokens"]
        if workload == PREFILL:
            # They are what takes the time, and expo's bytes do not count what their pass reads.
            run["counted"] = sum(len(row["prompt"].split()) for row in prompts(workload))
            run.pop("bytes", None)
        rate = run["counted"] / run["seconds"]
        say(f"{shape} {dtype} {workload}: {name} {rate:.1f} tokens/s, {run['counted']} tokens")
        found["runs"].setdefault(name, []).append(run)
    return found


def main():
    args = arguments()
    if args.expo is None:
        build("cpu")
        args.expo = to_build()
    args.expo = str(Path(args.expo).resolve())
    if args.work:
        Path(args.work).mkdir(parents=True, exist_ok=True)
        args.work = str(Path(args.work).resolve())
    args.peers = choose_peers(args)
    say(machine("cpu"))
    all_found = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for shape in args.shapes:
            if "llama.cpp" in args.peers and does_not("llama.cpp", shape, "f32", PREFILL) is None:
                try:
                    check_same_model(shape, args, folder)
                except CannotRun as error:
                    raise SystemExit(str(error)) from None
            for dtype in args.dtypes:
                for workload in workloads(args):
                    all_found.append(cell(shape, dtype, workload, args, folder))
    print(generate_table.markdown(all_found, args.peers), end="")
    if args.out:
        Path(args.out).write_text(json.dumps(all_found, indent=1))


if __name__ == "__main__":
    main()
