"""Speed and memory of training beside PyTorch with transformers' implementation of the same model.

    pip install torch transformers
    cargo build --release
    python bench/training.py target/release/tangelo recipes/pocket [rounds]

Both take steps of AdamW in f32 over the same number of sequences of the same length, one after the other, in a process of
its own each; printed are medians of tokens per second, the largest resident memory, and their ratios.
"""
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

SEQUENCES, LENGTH, STEPS = 8, 512, 6


def ours(program, recipe, folder):
    rows = os.path.join(folder, "rows.jsonl")
    words = " ".join(f"word{i % 97} and {i}" for i in range(40000))
    with open(rows, "w") as out:
        out.write(json.dumps({"text": words}) + "\n")
    path = os.path.join(folder, "recipe.toml")
    with open(path, "w") as out:
        out.write(f"""
[model]
config = "{recipe}/config.json"
tokenizer = "{recipe}/tokenizer"
[data]
files = ["{rows}"]
[batch]
tokens = {SEQUENCES * LENGTH}
micro_tokens = {SEQUENCES * LENGTH}
context = {LENGTH}
[schedule]
steps = {STEPS}
[run]
checkpoint_every = 1000
eval_every = 1000
""")
    run = os.path.join(folder, "run")
    command = [program, "train", path, "--out", run]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(run, "log.csv")) as log:
        rows = list(csv.DictReader(log))
    before, speeds = 0, []
    for row in rows:
        tokens = int(row["tokens"])
        speeds.append((tokens - before) / float(row["seconds"]))
        before = tokens
    return statistics.median(speeds[1:])


def theirs(recipe):
    import torch
    from transformers.models.nemotron_h.configuration_nemotron_h import NemotronHConfig
    from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHForCausalLM

    config = json.load(open(os.path.join(recipe, "config.json")))
    for key in ["num_hidden_layers", "torch_dtype", "architectures", "rms_norm_eps"]:
        config.pop(key, None)
    config = NemotronHConfig(**config)
    model = NemotronHForCausalLM(config).to(torch.float32).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    speeds = []
    for step in range(STEPS):
        ids = torch.randint(0, config.vocab_size, (SEQUENCES, LENGTH + 1))
        start = time.perf_counter()
        logits = model(ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        speeds.append(SEQUENCES * LENGTH / (time.perf_counter() - start))
    return statistics.median(speeds[1:])


def child(argv):
    """Runs one side; prints tokens per second and MiB."""
    if argv[0] == "theirs":
        speed, who = theirs(argv[1]), resource.RUSAGE_SELF
    else:
        with tempfile.TemporaryDirectory() as folder:
            speed, who = ours(argv[1], argv[2], folder), resource.RUSAGE_CHILDREN
    print(json.dumps([speed, resource.getrusage(who).ru_maxrss / 1024]))


def main(program, recipe, rounds=3):
    sides = {"tangelo": ["ours", program, recipe], "PyTorch": ["theirs", recipe]}
    found = {name: [] for name in sides}
    for _ in range(int(rounds)):
        for name, argv in sides.items():
            out = subprocess.run([sys.executable, __file__, "--child", *argv], check=True, capture_output=True)
            found[name].append(json.loads(out.stdout.splitlines()[-1]))
    for name, runs in found.items():
        speeds, memory = [run[0] for run in runs], [run[1] for run in runs]
        print(f"{name:8} {statistics.median(speeds):8.0f} tokens/s (best {max(speeds):.0f}), {max(memory):6.0f} MiB")
    ratio = [statistics.median(run[i] for run in found["tangelo"]) / statistics.median(run[i] for run in found["PyTorch"]) for i in (0, 1)]
    print(f"ratio: {ratio[0]:.2f} of the speed, {ratio[1]:.2f} of the memory")


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(sys.argv[2:])
    else:
        main(*sys.argv[1:])
