//! The papers' synthetic experiments: what must come out, whatever the code.

mod cli;
mod optima;

use expo::lab::bandit::{Draws, Experiment, Prompt, Report, rlhf};
use expo::loss::Loss;
use expo::report::{Cell, Table};

/// The problem of EXPO's figures 3, 4 and 8.
fn prompt() -> Prompt {
    Prompt {
        optimal: vec![0.6, 0.3, 0.1],
        reference: vec![0.4, 0.4, 0.2],
    }
}

fn loss(name: &str, key: &str, value: f64) -> Loss {
    let loss = Loss::default_of(name).unwrap();
    loss.with(key, &format!("{value:?}")).unwrap()
}

fn run(name: &str, sets: &[&str]) -> Report {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Experiment::built_in(name, &sets).unwrap().run().unwrap()
}

fn close(p: &[f64], q: &[f64], tolerance: f64) -> bool {
    p.len() == q.len() && p.iter().zip(q).all(|(p, q)| (p - q).abs() <= tolerance)
}

/// A cell of the first row that has these words in its columns of words, in this order.
fn cell(table: &Table, words: &[&str], column: &str) -> Cell {
    rows(table, words, column).remove(0)
}

fn rows(table: &Table, words: &[&str], column: &str) -> Vec<Cell> {
    let at = table.columns().iter().position(|name| name == column);
    let at = at.unwrap_or_else(|| panic!("{} has no {column}", table.name));
    let has = |row: &&Vec<Cell>| words.iter().all(|word| row.contains(&Cell::from(*word)));
    let found: Vec<Cell> = table
        .rows()
        .iter()
        .filter(has)
        .map(|row| row[at].clone())
        .collect();
    assert!(!found.is_empty(), "{} has no row {words:?}", table.name);
    found
}

fn numbers(table: &Table, words: &[&str], column: &str) -> Vec<f64> {
    let number = |cell: Cell| match cell {
        Cell::Number(number) => number,
        other => panic!("{column} is {other:?}"),
    };
    rows(table, words, column).into_iter().map(number).collect()
}

/// The policy of a row: the columns `{prefix}_1` to `{prefix}_3`; `which` among the rows found.
fn policy(table: &Table, words: &[&str], prefix: &str, which: usize) -> Vec<f64> {
    let entry = |i: usize| numbers(table, words, &format!("{prefix}_{i}"))[which];
    (1..=3).map(entry).collect()
}

/// The 213 pairs of the authors' run.
const AUTHORS: &str = "data.comparisons=[[0, 47, 61], [23, 0, 54], [10, 18, 0]]";

#[test]
fn the_authors_pairs_give_the_authors_policies() {
    let report = run(
        "interpolation",
        &[
            AUTHORS,
            "train.num_seeds=1",
            "losses.lambda.points=2",
            "losses.settings.rexpo.lambda.points=2",
        ],
    );
    let summary = &report.summary;
    let fit = policy(summary, &["Bradley-Terry fit of the pairs"], "trained", 0);
    assert!(close(&fit, &[0.6048, 0.2963, 0.0989], 5e-5), "{fit:?}");
    let small = |name: &str| policy(summary, &[name], "trained", 0);
    assert!(close(&small("cexpo"), &fit, 0.01), "{:?}", small("cexpo"));
    assert!(
        close(&small("cexpo"), &[0.61, 0.29, 0.10], 0.01),
        "{:?}",
        small("cexpo")
    );
    assert!(
        close(&small("rexpo"), &[0.611, 0.291, 0.098], 0.01),
        "{:?}",
        small("rexpo")
    );
    assert!((small("dpo")[0] - 0.99).abs() < 0.01, "{:?}", small("dpo"));
    assert!(small("ipo")[0] > 0.999, "{:?}", small("ipo"));
    assert!(small("fdpo")[0] > 0.999, "{:?}", small("fdpo"));
    for name in ["dpo", "ipo", "fdpo", "cexpo", "rexpo"] {
        let large = policy(summary, &[name], "trained", 1);
        assert!(close(&large, &[0.4, 0.4, 0.2], 0.01), "{name} {large:?}");
        let solved = policy(summary, &[name], "solved", 1);
        assert!(close(&solved, &[0.4, 0.4, 0.2], 0.01), "{name} {solved:?}");
    }
    for (name, reached) in [
        ("dpo", "mode of pi*"),
        ("ipo", "mode of pi*"),
        ("fdpo", "mode of pi*"),
        ("cexpo", "pi*"),
        ("rexpo", "pi*"),
    ] {
        assert_eq!(
            rows(summary, &[name], "reaches"),
            [reached.into(), "r".into()],
            "{name}"
        );
    }
}

#[test]
fn over_seeds_expo_stays_at_the_fit_of_its_pairs() {
    let sets = [
        "losses.names=[\"cexpo\", \"rexpo\"]",
        "train.num_seeds=3",
        "losses.lambda.points=2",
        "losses.settings.rexpo.lambda.points=2",
    ];
    let report = run("interpolation", &sets);
    let gap = |name: &str| numbers(&report.summary, &[name], "gap_to_fit")[0];
    assert!(gap("cexpo") < 0.01, "{}", gap("cexpo"));
    assert!(gap("rexpo") < 0.05, "{}", gap("rexpo"));
}

/// DPO and Adam written down a second time, on the same pairs in the same order.
#[test]
fn training_is_adam_on_minibatches() {
    let sets = [
        "losses.names=[\"dpo\"]",
        "train.num_seeds=1",
        "train.order=file",
        "train.num_train_epochs=30",
        "losses.lambda.from=-1",
        "losses.lambda.to=0",
        "losses.lambda.points=2",
    ];
    let report = run("interpolation", &sets);
    let prompt = prompt();
    let pairs = Draws::new(0, 0).pairs(std::slice::from_ref(&prompt), 0, 300);
    let softmax = |theta: &[f64; 3]| {
        let sum: f64 = theta.iter().map(|x| x.exp()).sum();
        theta.map(|x| x.exp() / sum)
    };
    for (which, beta) in [0.1, 1.0].into_iter().enumerate() {
        let mut theta = [0.4f64, 0.4, 0.2].map(f64::ln);
        let (mut m, mut v, mut step) = ([0.0f64; 3], [0.0f64; 3], 0);
        for _ in 0..30 {
            for batch in pairs.chunks(20) {
                let pi = softmax(&theta);
                let rho = |i: usize| (pi[i] / prompt.reference[i]).ln();
                let mut grad = [0.0f64; 3];
                for pair in batch {
                    let h = rho(pair.chosen) - rho(pair.rejected);
                    let slope = beta / (1.0 + (beta * h).exp()) / batch.len() as f64;
                    grad[pair.chosen] -= slope;
                    grad[pair.rejected] += slope;
                }
                step += 1;
                for i in 0..3 {
                    m[i] = 0.9 * m[i] + 0.1 * grad[i];
                    v[i] = 0.999 * v[i] + 0.001 * grad[i] * grad[i];
                    let (m, v) = (
                        m[i] / (1.0 - 0.9f64.powi(step)),
                        v[i] / (1.0 - 0.999f64.powi(step)),
                    );
                    theta[i] -= 1e-3 * m / (v.sqrt() + 1e-8);
                }
            }
        }
        let trained = policy(&report.summary, &["dpo"], "trained", which);
        assert!(
            close(&trained, &softmax(&theta), 1e-9),
            "{trained:?} {:?}",
            softmax(&theta)
        );
    }
}

#[test]
fn the_authors_reduction_is_a_third_of_lambda() {
    let quick = [
        "losses.names=[\"cexpo\"]",
        "train.num_train_epochs=1",
        "train.num_seeds=1",
        "losses.settings.cexpo.lambda.scale=linear",
        "losses.settings.cexpo.lambda.points=2",
    ];
    let solved = |more: &[&str]| {
        let report = run("interpolation", &[&quick[..], more].concat());
        policy(&report.summary, &["cexpo"], "solved", 0)
    };
    let from = |x: f64| format!("losses.settings.cexpo.lambda.from={x:?}");
    let to = "losses.settings.cexpo.lambda.to=50";
    let mean = solved(&[&from(1.5), to, "losses.sample_term=mean"]);
    assert_eq!(mean, solved(&[&from(0.5), to]));
    assert_ne!(mean, solved(&[&from(1.5), to]));
}

#[test]
fn drawn_samples_pull_towards_the_reference_too() {
    let sets = [
        "losses.names=[\"cexpo\"]",
        "losses.sample_term=drawn",
        "losses.lambda.points=2",
        "data.comparisons=3000",
        "train.num_train_epochs=100",
        "train.num_seeds=1",
    ];
    let report = run("interpolation", &sets);
    let trained = policy(&report.summary, &["cexpo"], "trained", 1);
    assert!(close(&trained, &[0.4, 0.4, 0.2], 0.05), "{trained:?}");
    assert_ne!(trained, [0.4, 0.4, 0.2]);
}

#[test]
fn expo_keeps_the_good_prompt_and_mends_the_bad_one() {
    let report = run(
        "preservation",
        &[
            "train.num_train_epochs=1",
            "losses.lambda.points=11",
            "losses.settings.fdpo.num_train_epochs=1",
            "losses.settings.cexpo.num_train_epochs=1",
            "losses.settings.rexpo.num_train_epochs=1",
        ],
    );
    let distances = &report.details[0];
    for placement in ["text", "notebook"] {
        let far =
            |prompt: &str, name: &str| numbers(distances, &[placement, prompt, name], "solved");
        let reference = numbers(&report.summary, &[placement], "bad_reference")[0];
        for name in ["cexpo", "rexpo"] {
            assert!(far("good", name).iter().all(|far| *far < 1e-12), "{name}");
            let bad = far("bad", name);
            let inner = &bad[..bad.len() - 1];
            assert!(inner.iter().all(|far| *far < reference), "{name} {bad:?}");
        }
        for name in ["dpo", "ipo", "fdpo"] {
            let good = far("good", name);
            assert!(
                good.windows(2).all(|pair| pair[0] > pair[1]),
                "{name} {good:?}"
            );
            assert!(good[0] > 1.0, "{name}");
        }
    }
    let solved = rows(distances, &[], "converged");
    assert!(solved.iter().all(|cell| *cell == Cell::from("yes")));
    // KL((.4, .2, .4) || (.6, .2, .2)) / 3.
    let exact = (0.4 * (0.4f64 / 0.6).ln() + 0.4 * 2f64.ln()) / 3.0;
    assert!((numbers(&report.summary, &["text"], "bad_reference")[0] - exact).abs() < 1e-15);
}

#[test]
fn trained_expo_keeps_and_mends_as_well() {
    let report = run(
        "preservation",
        &[
            "losses.names=[\"dpo\", \"rexpo\"]",
            "placements=[\"notebook\"]",
            "losses.lambda.points=3",
            "losses.settings.rexpo.lambda.points=3",
        ],
    );
    let summary = &report.summary;
    let good = |name: &str| numbers(summary, &[name], "good_worst_trained")[0];
    assert!(
        good("rexpo") < 0.01 && good("dpo") > 0.1,
        "{} {}",
        good("rexpo"),
        good("dpo")
    );
    let bad = numbers(summary, &["rexpo"], "bad_best_trained")[0];
    assert!(
        bad < numbers(summary, &["rexpo"], "bad_reference")[0] / 5.0,
        "{bad}"
    );
}

#[test]
fn dpo_is_rlhf_until_something_else_binds() {
    for penalty in ["penalty=theta", "penalty=policy"] {
        let report = run(
            "constraint",
            &[penalty, "alpha.points=6", "train.num_seeds=1"],
        );
        let distances = &report.details[0];
        let far = numbers(distances, &[], "kl_dpo_rlhf");
        assert!(far[0] < 1e-12, "{penalty} {far:?}");
        assert!(far[1..].iter().all(|far| *far > 1e-4), "{penalty} {far:?}");
        let solved = rows(distances, &[], "converged");
        assert!(
            solved.iter().all(|cell| *cell == Cell::from("yes")),
            "{penalty}"
        );
        for column in ["dpo", "rlhf"] {
            let free = policy(distances, &[], column, 0);
            assert!(
                close(&free, &rlhf(&prompt(), 0.1), 1e-9),
                "{penalty} {column}"
            );
        }
    }
    // Both shrink to the uniform policy in the end.
    let report = run(
        "constraint",
        &["alpha.to=100", "alpha.points=3", "train.num_seeds=1"],
    );
    let far = numbers(&report.details[0], &[], "kl_dpo_rlhf");
    assert!(far[2] < far[1] && far[2] < 1e-3, "{far:?}");
}

#[test]
fn verdicts_are_those_of_the_papers() {
    let report = run("theory", &[]);
    let verdict = |name: &str, column: &str| cell(&report.summary, &[name], column);
    for (name, interpolation, preserves) in [
        ("cexpo", "strong", "yes"),
        ("rexpo", "strong", "yes"),
        ("dpo", "weak", "no"),
        ("ipo", "weak", "no"),
        ("fdpo", "weak", "no"),
        ("simpo", "neither", "no"),
    ] {
        assert_eq!(
            verdict(name, "interpolation"),
            interpolation.into(),
            "{name}"
        );
        assert_eq!(verdict(name, "preserves"), preserves.into(), "{name}");
    }
    // Every loss has a row, also one that has no meaning here.
    assert_eq!(report.summary.rows().len(), Loss::NAMES.len());
    let why = "no bandit: it reads mismatched responses of whole batches";
    assert_eq!(verdict("kto", "interpolation"), why.into());
    // Of every divergence, not of Jensen and Shannon's alone.
    for divergence in ["reverse_kl", "forward_kl", "alpha"] {
        let set = format!("losses.settings.fdpo.knobs.divergence={divergence}");
        let report = run("theory", &["losses.names=[\"fdpo\"]", &set]);
        let row = |column: &str| cell(&report.summary, &["fdpo"], column);
        assert_eq!(row("interpolation"), "weak".into(), "{divergence}");
        assert_eq!(row("preserves"), "no".into(), "{divergence}");
    }
}
