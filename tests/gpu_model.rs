//! `benches/GPU_MODEL.md`: what a step should take on a GPU, as `expo plan` counts it.
//!
//! With `EXPO_UPDATE=1` in the environment the test writes what it otherwise compares.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use expo::config::{Config, Dtype};
use expo::data::{Example, Response};
use expo::loss::Role;
use expo::model::arch::{Architecture, ConfigJson};
use expo::model::family::family;
use expo::plan::{Device, GIB, Models, Part, Parts, Plan, Rows, Split, layout};
use serde_json::{Value, json};

const HEAD: &str = "\
# What a step should take on a GPU

Predicted, not measured: no card has run this yet. `expo plan --gpu NAME` counts floating-point operations
and bytes of a training step, kernel by kernel, and divides them by the share of the GPU's rates that such
kernels are assumed to reach; `expo plan --help` has rates and shares, `src/plan/parts.rs` the reasons. A
measured step is read against these parts: the one that takes longer than here is where to look.

A step is DPO on 64 pairs of the mean lengths of HH, prompts of 124 tokens and answers of 44 and 43, in
bf16 with AdamW, the reference's log-probs cached, nothing recomputed. Matmuls and attention are counted
without the bytes they move, which their share of the rate stands for.

This file is written by `EXPO_UPDATE=1 cargo test --test main gpu_model`.
";

fn arch(config: &Value) -> Architecture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    let config = ConfigJson::open(&path).unwrap();
    (family(&config).unwrap().architecture)(&config).unwrap()
}

/// The shapes of Pythia-2.8B and Llama-3-8B, with what a run of each sets.
fn models() -> [(&'static str, Value, &'static [&'static str]); 2] {
    let pythia = json!({
        "model_type": "gpt_neox", "hidden_size": 2560, "num_hidden_layers": 32,
        "num_attention_heads": 32, "intermediate_size": 10240, "vocab_size": 50304,
        "rotary_pct": 0.25, "max_position_embeddings": 2048, "tie_word_embeddings": false,
    });
    let llama = json!({
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
        "vocab_size": 128256, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 8192, "tie_word_embeddings": false,
    });
    [
        ("Pythia-2.8B", pythia, &["batch.micro_batch_tokens=16384"]),
        (
            "Llama-3-8B",
            llama,
            &["batch.micro_batch_tokens=8192", "optimizer.states=split"],
        ),
    ]
}

fn pair() -> Example {
    let response = |role, tokens| Response::new(role, vec![0; tokens]);
    Example {
        row: 0,
        prompt: vec![0; 124],
        responses: vec![response(Role::Chosen, 44), response(Role::Rejected, 43)],
        preference: None,
    }
}

/// The plan of a step. Parts do not depend on the memory, so those of a model that does not fit are
/// planned for a card with more of it.
fn plan(shape: &Value, sets: &[&str], device: Device) -> Plan {
    let text = "[model]\nmodel_name_or_path = \"m\"\ndtype = \"bf16\"\n[data]\nformat = \"pairs\"\n\
                train = \"t\"\n[loss.dpo]\n[batch]\nbatch_size = 64\n[run]\noutput_dir = \"o\"\n";
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let (config, arch) = (Config::parse(text, &sets).unwrap(), arch(shape));
    let examples = (0..64).map(|_| Ok(pair()));
    let split = Split::count(examples, &arch, &config.loss.needs(), true).unwrap();
    let models = Models {
        policy: &arch,
        layout: &layout(&config, &arch, None, true).unwrap().1,
        reference: &arch,
    };
    let rows = Rows::new(&config, split, None, None).unwrap();
    Plan::new(
        &config,
        &models,
        &rows,
        &Device {
            memory: None,
            ..device
        },
    )
    .unwrap()
}

fn section(name: &str, shape: &Value, sets: &[&str]) -> String {
    let devices = ["h100", "h200"].map(|gpu| Device::named(gpu, Dtype::Bf16).unwrap());
    let plans = devices.clone().map(|device| plan(shape, sets, device));
    let parts: [&Parts; 2] = [&plans[0], &plans[1]].map(|plan| plan.parts.as_ref().unwrap());
    let tokens = &plans[0].tokens;
    let mut text = format!(
        "\n## {name}\n\n`{}`: {:.0} tokens, {:.0} of them predicted, in {} micro-batch{} of at most {}; \
         {:.1} GiB",
        sets.join("`, `"),
        tokens.per_step,
        tokens.predicted_per_step,
        tokens.micro_batches,
        if tokens.micro_batches == 1.0 {
            ""
        } else {
            "es"
        },
        tokens.largest.tokens,
        plans[0].memory.total as f64 / GIB,
    );
    for device in &devices {
        let usable = device.usable().unwrap();
        let fits = match plans[0].memory.total <= usable {
            true => "",
            false => ", **where it does not fit**",
        };
        let (gib, name) = (usable as f64 / GIB, device.name.to_uppercase());
        write!(text, ", of {gib:.1} on an {name}{fits}").unwrap();
    }
    text += ".\n\n| part | TFLOP | GB | H100, ms | H200, ms |\n|---|---:|---:|---:|---:|\n";
    let of = |parts: &Parts| [&parts.named()[..], &[("total", parts.total)]].concat();
    let count = |x: f64| match x {
        0.0 => String::new(),
        x => format!("{x:.2}"),
    };
    for ((name, h100), (_, h200)) in of(parts[0]).into_iter().zip(of(parts[1])) {
        let Part { flops, bytes, .. } = h100;
        let ms = [h100, h200].map(|part| format!("{:.1}", 1e3 * part.seconds));
        let (tera, giga) = (count(flops / 1e12), count(bytes / 1e9));
        writeln!(text, "| {name} | {tera} | {giga} | {} | {} |", ms[0], ms[1]).unwrap();
    }
    let rates = parts.map(|parts| format!("{:.0}", 64.0 / parts.total.seconds));
    let most = plans.each_ref().map(|plan| {
        let seconds = plan.time.as_ref().unwrap().step.total();
        format!("{:.0}", 64.0 / seconds)
    });
    writeln!(text, "| pairs/s | | | {} | {} |", rates[0], rates[1]).unwrap();
    writeln!(text, "| pairs/s at most | | | {} | {} |", most[0], most[1]).unwrap();
    text
}

/// Ranks with an H100 each, and the GB/s that each of them sends to the others.
const SHARED: [(usize, f64, &str); 4] = [
    (8, 370.0, "one machine, NVLink 4"),
    (8, 25.0, "one machine, PCIe 4"),
    (16, 45.0, "two machines, 400 Gbit/s for each GPU"),
    (16, 5.6, "two machines, 400 Gbit/s for all eight GPUs"),
];

/// What several GPUs take for the same step.
fn several() -> String {
    let mut text = "\n## Several GPUs\n\nThe same step on H100s with a rank each, by `expo plan --gpu h100 --ranks N \
                    --link GBS`. Rows are taken to be dealt evenly. The exchange goes from every rank to every other \
                    one, also between machines, and nothing is computed meanwhile: GB/s are those of a rank, by data \
                    sheets. A step of 64 pairs is little work for so many GPUs.\n\n\
                    | model | GPUs | between them | GB/s | GiB of each | computing, ms | exchange, ms | times as fast as one |\n\
                    |---|---:|---|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for (name, shape, sets) in models() {
        for (ranks, link, words) in SHARED {
            let gpu = Device::named("h100", Dtype::Bf16).unwrap();
            let plan = plan(&shape, sets, gpu.with_ranks(ranks).with_link(link).unwrap());
            let step = plan.shared_step.unwrap();
            writeln!(
                text,
                "| {name} | {ranks} | {words} | {link} | {:.1} | {:.1} | {:.1} | {:.2} |",
                plan.memory.total as f64 / GIB,
                1e3 * step.computing,
                1e3 * step.exchange.unwrap(),
                step.alone / step.total(),
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn the_model_of_a_gpu_is_what_the_plan_counts() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/GPU_MODEL.md");
    let sections = models().map(|(name, shape, sets)| section(name, &shape, sets));
    let want = HEAD.to_owned() + &sections.concat() + &several();
    if std::env::var_os("EXPO_UPDATE").is_some() {
        fs::write(&path, want).unwrap();
        return;
    }
    let is = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        is == want,
        "{} is not what the plan counts; to write it: \
         EXPO_UPDATE=1 cargo test --test main gpu_model",
        path.display()
    );
}
