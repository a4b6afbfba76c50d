//! Gemma 3 270M, a real pretrained model with a vocabulary of 262 thousand, against transformers.
//!
//! `EXPO_GEMMA` names its directory, in which `scripts/make_gemma_oracle.py` has written `oracle.json`;
//! without it the test says that it was skipped. It prints what it finds:
//! `EXPO_GEMMA=DIR cargo test --release --test main gemma -- --nocapture`.

use std::path::PathBuf;
use std::time::Instant;

use candle_core::DType;
use expo::data::Example;
use expo::data::pack::Packed;
use expo::loss::Role;
use expo::model::Decoder;
use serde_json::Value;

use crate::sample::{Place, greedy, prompt};
use crate::support::{ids, json, pairs};

const PAIR: &[Role] = &[Role::Chosen, Role::Rejected];

fn directory() -> Option<PathBuf> {
    let directory = std::env::var_os("EXPO_GEMMA").map(PathBuf::from);
    if directory.is_none() {
        eprintln!("skipped: EXPO_GEMMA is not set");
    }
    directory
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// Of each answer: the log-prob and transformers'.
fn scores(model: &Decoder, oracle: &Value, examples: &[Example]) -> Vec<[f64; 2]> {
    let wanted = oracle["pairs"].as_array().unwrap();
    let mut both = Vec::new();
    for (examples, wanted) in examples.chunks(4).zip(wanted.chunks(4)) {
        let scores = model.score(&Packed::new(examples, PAIR)).unwrap();
        for (scores, wanted) in scores.iter().zip(wanted) {
            for (score, side) in scores.iter().zip(["chosen", "rejected"]) {
                both.push([score.log_prob, number(&wanted[side]["log_prob"])]);
            }
        }
    }
    both
}

/// The total norm of the gradient of a DPO step, and the largest difference of one parameter's norm
/// from transformers', both relative to transformers' total.
fn gradient(model: &Decoder, oracle: &Value, examples: &[Example]) -> [f64; 2] {
    let dpo = &oracle["dpo"];
    let (beta, total) = (number(&dpo["beta"]), number(&dpo["norm"]));
    let examples = &examples[..dpo["pairs"].as_u64().unwrap() as usize];
    let mut gradients = model.gradients().unwrap();
    let mut losses = Vec::new();
    for (row, example) in examples.iter().enumerate() {
        let reference = &dpo["reference_log_probs"][row];
        let seeds = |_: usize, scores: &[expo::model::head::ResponseScore]| {
            let ratio = |side: usize| scores[side].log_prob - number(&reference[side]);
            let h = beta * (ratio(0) - ratio(1));
            losses.push((-h).exp().ln_1p());
            let slope = -beta / (1.0 + h.exp()) / examples.len() as f64;
            Ok(vec![slope, -slope])
        };
        let batch = Packed::new([example], PAIR);
        model.step(&batch, seeds, &mut gradients).unwrap();
    }
    let loss = losses.iter().sum::<f64>() / losses.len() as f64;
    eprintln!("DPO loss {loss:.6}, by transformers {}", dpo["loss"]);
    assert!((loss - number(&dpo["loss"])).abs() < 1e-3);
    let (mut squares, mut worst) = (0.0, 0.0_f64);
    for (id, entry) in gradients.layout().entries.iter().enumerate() {
        let values = gradients.view(id).to_dtype(DType::F64).unwrap();
        let square = values.sqr().unwrap().sum_all().unwrap();
        let square = square.to_scalar::<f64>().unwrap();
        let want = number(&dpo["norms"][&entry.name]);
        worst = worst.max((square.sqrt() - want).abs() / total);
        squares += square;
    }
    [squares.sqrt(), worst]
}

#[test]
fn gemma_3_270m_is_what_transformers_makes_of_it() {
    let Some(directory) = directory() else {
        return;
    };
    let oracle = json(&directory.join("oracle.json"));
    let place = Place::open(&directory);
    let greedy_ids = oracle["greedy"].as_array().unwrap();

    let begin = place.tokenizer.begin();
    for case in oracle["pairs"].as_array().unwrap().iter().chain(greedy_ids) {
        let own = place.tokenizer.encode(case["prompt"].as_str().unwrap());
        let own = [begin, &own.unwrap()].concat();
        assert_eq!(own, ids(&case["prompt_ids"]), "{}", case["prompt"]);
    }

    let (examples, start) = (pairs(&oracle), Instant::now());
    let both = scores(&place.model, &oracle, &examples);
    let differences = both.iter().map(|[got, want]| (got - want).abs());
    let mean = differences.clone().sum::<f64>() / both.len() as f64;
    let largest = differences.fold(0.0, f64::max);
    let relative = both.iter().map(|[got, want]| (got / want - 1.0).abs());
    let relative = relative.fold(0.0, f64::max);
    eprintln!(
        "{} answers in {:.0?}: log-probs differ by at most {largest:.2e} ({relative:.2e} relative), \
         by {mean:.2e} in the mean",
        both.len(),
        start.elapsed()
    );
    assert_eq!(both.len(), 200);
    assert!(relative < 1e-4, "{relative:e}");

    let start = Instant::now();
    let [norm, worst] = gradient(&place.model, &oracle, &examples);
    let want = number(&oracle["dpo"]["norm"]);
    eprintln!(
        "gradient norm {norm:.6}, by transformers {want:.6} ({:.2e} relative), of one parameter at \
         most {worst:.2e} of that apart, in {:.0?}",
        norm / want - 1.0,
        start.elapsed()
    );
    assert!((norm / want - 1.0).abs() < 1e-3 && worst < 1e-3);

    let prompts: Vec<_> = greedy_ids
        .iter()
        .map(|case| prompt(case["prompt"].as_str().unwrap(), ids(&case["prompt_ids"])))
        .collect();
    let start = Instant::now();
    let drawn = place.draw(&prompts, &greedy(64, 1.0));
    eprintln!("{} continuations in {:.0?}", drawn.len(), start.elapsed());
    for (drawn, case) in drawn.iter().zip(greedy_ids) {
        let (prompt, text) = (&case["prompt"], &case["text"]);
        eprintln!("{prompt}\n  -> {text} (closest {})", case["closest"]);
        assert_eq!(drawn.ids, ids(&case["new_ids"]), "{prompt}");
    }
}
