//! A plan as text.

use std::fmt::Write;

use expo::plan::{Flops, GIB, Plan, size};

use super::super::grouped;
use super::super::progress::clock;

/// The width of a terminal that a text is broken for.
const COLUMNS: usize = 80;

/// The plan as text, in at most 80 columns.
pub fn table(plan: &Plan, gpus: u64) -> String {
    let mut text = String::new();
    parameters(plan, &mut text);
    memory(plan, &mut text);
    exchange(plan, &mut text);
    tokens(plan, &mut text);
    flops(plan, &mut text);
    time(plan, &mut text);
    parts(plan, &mut text);
    shared(plan, &mut text);
    disk(plan, &mut text);
    for what in &plan.left_out {
        note(&format!("not counted: {what}"), &mut text);
    }
    for what in notes(plan, gpus) {
        note(&what, &mut text);
    }
    remedies(plan, gpus, &mut text);
    text
}

/// What is to be known of the device.
fn notes(plan: &Plan, gpus: u64) -> Vec<String> {
    let mut all: Vec<String> = plan.device.unsupported.iter().cloned().collect();
    if gpus > 1 && plan.device.ranks == 1 {
        all.push(format!(
            "a process trains on one GPU: the plan is for one of the {gpus}. --ranks {gpus} plans a run that \
             shares them, as torchrun --nproc-per-node {gpus} --no-python starts it. They can train other \
             runs at the same time, too, each started with its own CUDA_VISIBLE_DEVICES and run.output_dir"
        ));
    }
    all
}

fn remedies(plan: &Plan, gpus: u64, text: &mut String) {
    if plan.fits != Some(false) {
        return;
    }
    let Some(usable) = plan.device.usable() else {
        return;
    };
    let _ = writeln!(
        text,
        "\ndoes not fit: {} needed, {} usable on {}",
        size(plan.memory.total),
        size(usable),
        plan.device.name
    );
    let _ = match plan.remedies.is_empty() {
        true => writeln!(text, "  nothing that can be set makes it fit"),
        false => writeln!(text, "  each of these makes it fit, the least harm first:"),
    };
    for remedy in &plan.remedies {
        let _ = writeln!(text, "  {:>10}  {remedy}", size(remedy.memory));
        if !remedy.note.is_empty() {
            let _ = writeln!(text, "{:14}({})", "", remedy.note);
        }
    }
    if plan.device.gpu && gpus == 1 {
        note("Several GPUs do not make it fit: expo trains on one.", text);
    }
}

/// A paragraph of at most 80 columns.
fn note(what: &str, text: &mut String) {
    text.push('\n');
    let mut column = 0;
    for word in what.split(' ') {
        let wide = word.chars().count();
        if column > 0 && column + 1 + wide > COLUMNS {
            text.push('\n');
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += wide;
    }
    text.push('\n');
}

fn heading(name: &str, columns: &[&str], text: &mut String) {
    let columns: String = columns
        .iter()
        .map(|column| format!("{column:>14}"))
        .collect();
    let _ = writeln!(
        text,
        "{}{name:<28}{columns}",
        if text.is_empty() { "" } else { "\n" }
    );
}

fn line(name: &str, values: &[String], text: &mut String) {
    let values: String = values.iter().map(|value| format!("{value:>14}")).collect();
    let _ = writeln!(text, "  {name:<26}{values}");
}

fn parameters(plan: &Plan, text: &mut String) {
    let parameters = &plan.parameters;
    heading("parameters", &[&grouped(parameters.total as usize)], text);
    for (name, count) in [
        ("embedding", parameters.embedding),
        ("blocks", parameters.blocks),
        ("head", parameters.head),
    ] {
        line(name, &[grouped(count as usize)], text);
    }
    if parameters.active < parameters.total {
        line(
            "active per token",
            &[grouped(parameters.active as usize)],
            text,
        );
    }
}

fn memory(plan: &Plan, text: &mut String) {
    let memory = &plan.memory;
    heading("memory", &["GiB"], text);
    let gib = |bytes: u64| format!("{:.3}", bytes as f64 / GIB);
    for (name, bytes) in [
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer states", memory.optimizer),
        ("reference", memory.reference),
        ("activations", memory.activations),
        ("logits tile", memory.logits),
        ("largest temporary", memory.temporary),
        ("total", memory.total),
    ] {
        line(name, &[gib(bytes)], text);
    }
    if let (Some(all), Some(usable)) = (plan.device.memory, plan.device.usable()) {
        let of = format!("{} has", plan.device.name);
        line(&of, &[gib(all)], text);
        line("of which usable", &[gib(usable)], text);
    }
}

fn exchange(plan: &Plan, text: &mut String) {
    let Some(exchange) = &plan.exchange else {
        return;
    };
    heading("exchange of a step", &["GiB sent"], text);
    let gib = |bytes: u64| format!("{:.3}", bytes as f64 / GIB);
    line("gradients", &[gib(exchange.gradients)], text);
    line("weights", &[gib(exchange.weights)], text);
}

fn tokens(plan: &Plan, text: &mut String) {
    let tokens = &plan.tokens;
    heading("tokens", &["per step", "per epoch"], text);
    let per_step = tokens.rows_per_epoch as f64 / tokens.steps_per_epoch as f64;
    for (name, step, epoch) in [
        ("rows", per_step, tokens.rows_per_epoch as f64),
        ("tokens", tokens.per_step, tokens.per_epoch),
        (
            "predicted",
            tokens.predicted_per_step,
            tokens.predicted_per_step * tokens.steps_per_epoch as f64,
        ),
        (
            "micro-batches",
            tokens.micro_batches,
            tokens.micro_batches * tokens.steps_per_epoch as f64,
        ),
    ] {
        let values = [format!("{step:.1}"), grouped(epoch.round() as usize)];
        line(name, &values, text);
    }
    let steps = [tokens.steps, tokens.steps_per_epoch].map(|steps| grouped(steps as usize));
    for (name, value) in [
        ("steps", steps[0].clone()),
        ("steps per epoch", steps[1].clone()),
        ("mean prompt", format!("{:.1}", tokens.prompt)),
        ("mean response", format!("{:.1}", tokens.response)),
        ("longest row", grouped(tokens.longest)),
        ("largest micro-batch", grouped(tokens.largest.tokens)),
    ] {
        line(name, &[value], text);
    }
    if let Some(largest) = tokens.largest_that_fits {
        line("largest that fits", &[grouped(largest)], text);
    }
}

fn flops(plan: &Plan, text: &mut String) {
    let flops = &plan.flops;
    heading("FLOPs", &["per row", "per step", "run"], text);
    let columns = [&flops.row, &flops.step, &flops.run];
    let mut part = |name: &str, on: bool, of: fn(&Flops) -> f64| {
        let values = columns.map(|flops| scaled(of(flops)));
        let values = values.map(|value| if on { value } else { format!("({value})") });
        line(name, &values, text);
    };
    part("forward", true, |flops| flops.forward);
    part("backward", true, |flops| flops.backward);
    part("recompute", flops.recompute, |flops| flops.recompute);
    part("logits, computed again", true, |flops| flops.logits);
    part("batch statistic", true, |flops| flops.statistic);
    part("online reference", flops.online, |flops| flops.reference);
    let total = &flops.total;
    line(
        "total",
        &[total.row, total.step, total.run].map(scaled),
        text,
    );
    let run = |flops: f64| [String::new(), String::new(), scaled(flops)];
    line("evaluations", &run(flops.evaluation), text);
    line("scoring the reference", &run(flops.scoring), text);
    let _ = writeln!(
        text,
        "  (in brackets: not in the total; what it would add if it were on)"
    );
}

fn time(plan: &Plan, text: &mut String) {
    let Some(time) = &plan.time else {
        return;
    };
    heading(
        &format!("time on {}", plan.device.name),
        &["at least"],
        text,
    );
    let milliseconds = |seconds: f64| format!("{:.2} ms", 1e3 * seconds);
    if let Some(rates) = &plan.device.rates {
        line(
            "rate of matmuls",
            &[format!("{:.3} TFLOP/s", rates.flops / 1e12)],
            text,
        );
        line(
            "bandwidth",
            &[format!("{:.3} TB/s", rates.bandwidth / 1e12)],
            text,
        );
    }
    for (name, seconds) in [
        ("a step", time.step.total()),
        ("  matmuls", time.step.products),
        ("  elementwise", time.step.elementwise),
        ("  optimizer", time.step.optimizer),
    ] {
        line(name, &[milliseconds(seconds)], text);
    }
    let tokens = &plan.tokens;
    let rows = tokens.rows_per_epoch as f64 / tokens.steps_per_epoch as f64;
    for (name, count) in [("rows/s", rows), ("tokens/s", tokens.per_step)] {
        let most = format!("<= {:.0}", count / time.step.total());
        line(name, &[most], text);
    }
    for (name, seconds) in [
        ("scoring the reference", time.scoring),
        ("training", time.training),
        ("evaluations", time.evaluation),
        ("total", time.total),
    ] {
        line(name, &[clock(seconds)], text);
    }
}

fn parts(plan: &Plan, text: &mut String) {
    let Some(parts) = &plan.parts else {
        return;
    };
    heading("expected of a step", &["TFLOP", "GB", "ms"], text);
    let all = parts.named().into_iter().chain([("total", parts.total)]);
    for (name, part) in all {
        let name = match name {
            "head" => "logits and gradient",
            "host" => "waiting for the CPU",
            name => name,
        };
        let count = |x: f64, digits: usize| match x {
            0.0 => String::new(),
            x => format!("{x:.digits$}"),
        };
        let values = [
            count(part.flops / 1e12, 2),
            count(part.bytes / 1e9, 2),
            count(1e3 * part.seconds, 1),
        ];
        line(name, &values, text);
    }
    let tokens = &plan.tokens;
    let rows = tokens.rows_per_epoch as f64 / tokens.steps_per_epoch as f64;
    let rate = format!("{:.0}", rows / parts.total.seconds);
    line("rows/s", &[String::new(), String::new(), rate], text);
}

/// What ranks take for a step.
fn shared(plan: &Plan, text: &mut String) {
    let Some(step) = &plan.shared_step else {
        return;
    };
    heading("expected of a step", &["ms"], text);
    let milliseconds = |seconds: f64| [format!("{:.1}", 1e3 * seconds)];
    line("on one alone", &milliseconds(step.alone), text);
    line("computing", &milliseconds(step.computing), text);
    let tokens = &plan.tokens;
    let rows = tokens.rows_per_epoch as f64 / tokens.steps_per_epoch as f64;
    match step.exchange {
        Some(exchange) => {
            line("exchange", &milliseconds(exchange), text);
            line("total", &milliseconds(step.total()), text);
            let times = format!("{:.2}", step.alone / step.total());
            line("times as fast as one", &[times], text);
            line("rows/s", &[format!("{:.0}", rows / step.total())], text);
        }
        None => line("exchange", &["--link".to_owned()], text),
    }
}

fn disk(plan: &Plan, text: &mut String) {
    let disk = &plan.disk;
    heading("disk", &["GB"], text);
    let gigabytes = |bytes: u64| format!("{:.3}", bytes as f64 / 1e9);
    let checkpoints = format!("{} checkpoints", disk.checkpoints);
    for (name, bytes) in [
        ("final model", disk.model),
        (&checkpoints, disk.checkpoints * disk.checkpoint),
        ("reference's log-probs", disk.reference),
        ("samples, at most", disk.samples),
        ("total", disk.total),
    ] {
        line(name, &[gigabytes(bytes)], text);
    }
}

/// Four digits with the prefix of a power of 1000.
fn scaled(x: f64) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"];
    let power = ((x.max(1.0).log10() / 3.0) as usize).min(prefixes.len() - 1);
    let digits = x / 1000f64.powi(power as i32);
    format!("{digits:.2} {}", prefixes[power])
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_have_prefixes() {
        assert_eq!(
            [0.0, 999.0, 1000.0, 3.2324e12, 8e18].map(scaled),
            ["0.00", "999.00", "1.00 k", "3.23 T", "8.00 E"]
        );
    }

    #[test]
    fn a_paragraph_is_broken_at_words() {
        let mut text = String::new();
        note(&"word ".repeat(40), &mut text);
        assert!(text.lines().all(|line| line.len() <= COLUMNS));
        assert_eq!(text.split_whitespace().count(), 40);
    }
}
