//! What every loss of the table has to keep, whatever its formula.

mod step_0;

use super::{Context, Loss, Objective, Role, Scored};

/// Every loss with the paper's knobs, and each knob that changes the formula.
fn losses() -> Vec<Loss> {
    let variants: &[(&str, &[(&str, &str)])] = &[
        ("cexpo", &[("lambda", "0")]),
        ("cexpo", &[("margin", "0.5")]),
        ("cexpo", &[("length_normalized", "true"), ("lambda", "10")]),
        ("rexpo", &[("lambda", "0")]),
        ("rexpo", &[("lambda", "1")]),
        ("rexpo", &[("length_normalized", "true"), ("margin", "0.5")]),
        ("dpo", &[("label_smoothing", "0.3")]),
        ("ipo", &[("average_log_prob", "true")]),
        ("fdpo", &[("divergence", "reverse_kl")]),
        ("fdpo", &[("divergence", "forward_kl")]),
        ("fdpo", &[("divergence", "alpha")]),
        ("fdpo", &[("divergence", "alpha"), ("alpha", "0.9")]),
        ("kto", &[("undesirable_weight", "1.33")]),
        ("sft", &[("per_token", "true")]),
        (
            "hinge",
            &[("divergence", "jensen_shannon"), ("beta", "0.5")],
        ),
        (
            "robust",
            &[("divergence", "forward_kl"), ("label_smoothing", "0.2")],
        ),
        (
            "exo_pair",
            &[("divergence", "alpha"), ("label_smoothing", "0.2")],
        ),
        ("sppo_hard", &[("beta", "0.001")]),
        ("ipo_learned", &[("beta", "0.02"), ("gamma", "3")]),
        ("aot", &[("label_smoothing", "0.2")]),
        ("aot_unpaired", &[("label_smoothing", "0.2")]),
        (
            "discopop",
            &[("tau", "1"), ("divergence", "jensen_shannon")],
        ),
        ("sigmoid_norm", &[("divergence", "jensen_shannon")]),
        ("cpo", &[("alpha", "0")]),
        ("dpop", &[("kappa", "5"), ("beta", "0.1")]),
        ("gpo", &[("f", "hinge")]),
        ("gpo", &[("f", "squared")]),
        ("gpo", &[("f", "exponential")]),
        ("gpo", &[("f", "truncated_quadratic")]),
        ("gpo", &[("f", "savage")]),
        ("qpo", &[("psi", "ipo"), ("mu", "jensen_shannon")]),
        (
            "qpo",
            &[("psi", "savage"), ("mu", "alpha"), ("alpha", "0.3")],
        ),
        (
            "qpo",
            &[("psi", "truncated_quadratic"), ("mu", "forward_kl")],
        ),
        ("ld_dpo", &[("alpha", "0")]),
    ];
    let defaults = Loss::NAMES
        .iter()
        .map(|name| Loss::default_of(name).unwrap());
    let variants = variants.iter().map(|(name, knobs)| {
        let default = Loss::default_of(name).unwrap();
        let set = |loss: Loss, (key, value): &(&str, &str)| loss.with(key, value).unwrap();
        knobs.iter().fold(default, set)
    });
    let losses: Vec<Loss> = defaults.chain(variants).collect();
    losses.iter().for_each(|loss| loss.validate().unwrap());
    losses
}

/// A pair with two samples and a mismatched answer: policy and reference log-probs of (w, l, s).
fn example(loss: &Loss, policy: [f64; 3], reference: [f64; 3], preference: Option<f64>) -> Scored {
    let example = Scored::new(
        &[
            (Role::Chosen, policy[0], reference[0], 21.0),
            (Role::Rejected, policy[1], reference[1], 30.0),
            (Role::Sampled, policy[2], reference[2], 25.0),
            (Role::Sampled, policy[2] - 3.0, reference[2] - 2.0, 12.0),
            (Role::Mismatched, -90.0, -91.5, 30.0),
        ],
        preference,
    );
    let part = |index: usize| (0.75 * policy[index], 0.75 * reference[index]);
    complete(
        loss,
        example,
        &[part(0), part(1), part(2), part(2), (-90.0, -91.5)],
    )
}

/// With what a few losses read beside log-probs and lengths; `shared` are sums of some tokens.
fn complete(loss: &Loss, example: Scored, shared: &[(f64, f64)]) -> Scored {
    let example = example
        .with_confidence(&[0.3, -0.2, 0.0, 0.0, 0.0])
        .with_score_gap(Some(2.0));
    match loss.needs().shared {
        true => example.with_shared(shared),
        false => example,
    }
}

const TUPLES: [([f64; 3], [f64; 3]); 9] = [
    ([-45.25, -61.5, -38.0], [-47.0, -60.0, -37.5]),
    ([-60.0, -45.0, -52.25], [-50.0, -50.0, -50.0]),
    ([-100.0, -100.0, -80.0], [-100.0, -100.0, -80.0]),
    ([-0.001, -0.002, -0.5], [-0.0015, -0.001, -0.25]),
    ([-350.75, -320.125, -200.0], [-340.5, -330.0, -190.0]),
    ([-33.3, -33.5, -40.1], [-34.4, -32.1, -40.1]),
    ([-1e3, -20.0, -30.0], [-20.0, -20.0, -31.0]),
    ([-20.0, -1e3, -30.0], [-20.0, -20.0, -31.0]),
    ([-1e4, -1.0, -1e4], [-1.0, -1e4, -1.0]),
];

fn soft_label(loss: &Loss, p: f64) -> Option<f64> {
    loss.needs().soft_labels.then_some(p)
}

/// The context of a batch of this one example.
fn context(loss: &Loss, example: &Scored) -> Context {
    loss.contexts(std::slice::from_ref(example))[0]
}

fn evaluate(loss: &Loss, example: &Scored) -> super::Dual {
    loss.evaluate(example, &context(loss, example))
}

/// The variable of this number: a response's log-prob, or after these its shared sum.
fn variable(example: &mut Scored, index: usize) -> &mut f64 {
    let count = example.responses.len();
    let response = &mut example.responses[index % count];
    match &mut response.shared {
        Some(shared) if index >= count => &mut shared.policy.value,
        _ => &mut response.policy.value,
    }
}

/// Whether the slope of the loss jumps here, where a response is as likely as under the reference.
fn is_kink(loss: &Loss, example: &Scored) -> bool {
    matches!(loss, Loss::Dpop(_))
        && example.responses[..2]
            .iter()
            .any(|y| y.log_ratio().value == 0.0)
}

#[test]
fn gradients_agree_with_finite_differences() {
    for loss in losses() {
        // Its value counts half of what its gradient is of; the other half is another example's.
        let share = if matches!(loss, Loss::AotUnpaired(_)) {
            2.0
        } else {
            1.0
        };
        for (policy, reference) in TUPLES {
            for p in [None, soft_label(&loss, 0.7)] {
                let whole = example(&loss, policy, reference, p);
                if is_kink(&loss, &whole) {
                    continue;
                }
                // The batch's statistic carries no gradient, so it stays while a log-prob moves.
                let batch = context(&loss, &whole);
                let exact = loss.evaluate(&whole, &batch);
                for index in 0..exact.grad.len() {
                    let value = *variable(&mut whole.clone(), index);
                    let step = 1e-4 * value.abs().min(1.0);
                    let at = |shift: f64| {
                        let mut moved = whole.clone();
                        *variable(&mut moved, index) += shift;
                        loss.evaluate(&moved, &batch).value
                    };
                    let slope = share * (at(step) - at(-step)) / (2.0 * step);
                    let error = (slope - exact.grad[index]).abs();
                    let scale = exact.value.abs().max(exact.grad[index].abs()).max(1.0);
                    assert!(
                        error < 1e-6 * scale,
                        "{loss:?} {whole:?}: {slope}, {exact:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn everything_is_finite_at_extreme_log_probs() {
    let extremes = [0.0, -1.0, -700.0, -1e3, -1e4];
    for loss in losses() {
        for w in extremes {
            for l in extremes {
                for (r_w, r_l) in [(w, l), (l, w), (0.0, -1e4), (-1e4, 0.0), (-1e3, -1e3)] {
                    for p in [None, soft_label(&loss, 0.3)] {
                        let example = example(&loss, [w, l, w], [r_w, r_l, r_w], p);
                        let dual = evaluate(&loss, &example);
                        let finite = dual.grad.iter().chain([&dual.value]).all(|x| x.is_finite());
                        // Robust DPO has no lower bound.
                        let bounded = dual.value >= 0.0 || matches!(loss, Loss::Robust(_));
                        assert!(finite && bounded, "{loss:?} {example:?}: {dual:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_certain_soft_label_is_a_hard_one() {
    for loss in losses() {
        for (policy, reference) in TUPLES {
            let hard = evaluate(&loss, &example(&loss, policy, reference, None));
            let soft = evaluate(&loss, &example(&loss, policy, reference, Some(1.0)));
            assert_eq!(hard, soft, "{loss:?}");
        }
    }
}

#[test]
fn a_label_says_the_same_from_both_sides() {
    let symmetric = losses().into_iter().filter(|loss| match loss {
        // A margin in the policy's term only has a direction.
        Loss::Rexpo(rexpo) => rexpo.margin == 0.0,
        _ => loss.needs().soft_labels,
    });
    for loss in symmetric {
        for (policy, reference) in TUPLES {
            for p in [0.0, 0.3, 0.5, 1.0] {
                let whole = example(&loss, policy, reference, Some(p));
                let mut swapped = whole.clone();
                swapped.preference = Some(1.0 - p);
                swapped.responses[0].role = Role::Rejected;
                swapped.responses[1].role = Role::Chosen;
                let (one, two) = (evaluate(&loss, &whole), evaluate(&loss, &swapped));
                let pairs = one
                    .grad
                    .iter()
                    .zip(&two.grad)
                    .chain([(&one.value, &two.value)]);
                for (a, b) in pairs {
                    let scale = a.abs().max(b.abs()).max(1e-9);
                    assert!(
                        (a - b).abs() <= 1e-9 * scale,
                        "{loss:?} {whole:?}: {one:?}, {two:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn cexpo_of_samples_alone_is_its_sample_term() {
    let loss = Loss::default_of("cexpo").unwrap();
    let samples = [
        (Role::Sampled, -40.0, -41.0, 20.0),
        (Role::Sampled, -30.0, -33.0, 15.0),
    ];
    let example = Scored::new(&samples, None);
    loss.needs().check(&[Role::Sampled], None).unwrap();
    let dual = evaluate(&loss, &example);
    assert_eq!(dual.value, 0.05 * 35.0);
    assert_eq!(dual.grad, [-0.025, -0.025]);
    let figures = loss.diagnostics(&example, &Context::default());
    assert_eq!(figures, [("kl", -2.0)]);
}

#[test]
fn terms_that_not_all_examples_have_are_means_over_those_that_do() {
    let loss = Loss::default_of("cexpo").unwrap();
    let sample = (Role::Sampled, -40.0, -41.0, 20.0);
    let pair = [
        (Role::Chosen, -20.0, -20.0, 9.0),
        (Role::Rejected, -21.0, -20.0, 9.0),
        sample,
    ];
    let batch = [Scored::new(&pair, None), Scored::new(&[sample], None)];
    let context = loss.context(&batch);
    let mean = batch
        .iter()
        .map(|e| loss.evaluate(e, &context).value)
        .sum::<f64>()
        / 2.0;
    let want = (-1f64).exp().ln_1p() + 0.05 * 40.0;
    assert!((mean - want).abs() < 1e-15, "{mean} is not {want}");

    let loss = Loss::default_of("sft")
        .unwrap()
        .with("per_token", "true")
        .unwrap();
    let row = |log_prob, tokens| Scored::new(&[(Role::Chosen, log_prob, f64::NAN, tokens)], None);
    let batch = [row(-20.0, 30.0), row(-40.0, 10.0)];
    let context = loss.context(&batch);
    let mean = batch
        .iter()
        .map(|e| loss.evaluate(e, &context).value)
        .sum::<f64>()
        / 2.0;
    assert_eq!(mean, 60.0 / 40.0);
}

#[test]
fn a_margin_shifts_the_policy_only() {
    for name in ["cexpo", "rexpo"] {
        let plain = Loss::default_of(name).unwrap();
        let pair = example(&plain, TUPLES[5].0, TUPLES[5].1, None);
        let shifted = example(&plain, [-33.8, -33.5, -40.1], TUPLES[5].1, None);
        let margin = evaluate(&plain.with("margin", "0.5").unwrap(), &pair);
        let moved = evaluate(&plain, &shifted);
        assert!((margin.value - moved.value).abs() < 1e-14, "{name}");
    }
}

#[test]
fn diagnostics_see_saturation_clamping_and_order() {
    let figures = |name: &str, tuple: usize| {
        let (policy, reference) = TUPLES[tuple];
        let loss = Loss::default_of(name).unwrap();
        let one = example(&loss, policy, reference, None);
        loss.diagnostics(&one, &loss.context(std::slice::from_ref(&one)))
    };
    let of_pair = |order, saturated| [("logps/accuracies", order), ("saturated", saturated)];
    assert_eq!(figures("rexpo", 0)[..2], of_pair(1.0, 1.0));
    assert_eq!(figures("rexpo", 2)[..2], of_pair(0.0, 0.0));
    assert_eq!(figures("rexpo", 1)[..2], of_pair(0.0, 1.0));
    for name in ["cexpo", "rexpo"] {
        assert_eq!(figures(name, 0)[2], ("kl", (0.5 + 1.5) / 2.0));
    }
    assert_eq!(figures("kto", 0), [("kl", 1.5)]);
    assert_eq!(figures("fdpo", 6), []);
    let forward = Loss::default_of("fdpo").unwrap();
    let forward = forward.with("divergence", "forward_kl").unwrap();
    for (tuple, clamped) in [(0, 0.0), (6, 1.0), (7, 1.0)] {
        let one = example(&forward, TUPLES[tuple].0, TUPLES[tuple].1, None);
        let figures = forward.diagnostics(&one, &Context::default());
        assert_eq!(figures, [("clamped", clamped)]);
    }
}

#[test]
fn z0_is_a_mean_of_means_never_negative_and_never_hides_nan() {
    let loss = Loss::default_of("kto").unwrap();
    let row = |ratios: &[f64]| {
        let mut responses = vec![(Role::Chosen, -5.0, -5.0, 3.0)];
        responses.extend(
            ratios
                .iter()
                .map(|r| (Role::Mismatched, r - 9.0, -9.0, 3.0)),
        );
        Scored::new(&responses, None)
    };
    assert_eq!(
        loss.context(&[row(&[1.0, 3.0]), row(&[4.0]), row(&[])]).z0,
        3.0
    );
    assert_eq!(loss.context(&[row(&[-4.0])]).z0, 0.0);
    assert_eq!(loss.context(&[row(&[])]).z0, 0.0);
    assert!(loss.context(&[row(&[f64::NAN])]).z0.is_nan());
}

#[test]
fn needs_tell_what_an_example_lacks() {
    use Role::{Chosen, Mismatched, Rejected, Sampled};
    let check = |name: &str, roles: &[Role], p| {
        let needs = Loss::default_of(name).unwrap().needs();
        needs.check(roles, p).map_err(|error| error.to_string())
    };
    assert!(check("dpo", &[Chosen, Rejected], Some(0.5)).is_ok());
    assert!(check("cexpo", &[Chosen, Rejected, Sampled], None).is_ok());
    assert!(check("kto", &[Rejected, Mismatched], None).is_ok());
    for (name, roles, p, word) in [
        ("dpo", &[Chosen][..], None, "no rejected"),
        ("cexpo", &[Chosen, Rejected], None, "no sampled"),
        ("dpo", &[Sampled], None, "no chosen"),
        ("kto", &[Mismatched], None, "chosen, rejected"),
        ("kto", &[Chosen], Some(0.5), "soft label"),
        ("dpo", &[Chosen, Rejected], Some(1.5), "[0, 1]"),
        ("dpo", &[Chosen, Rejected], Some(f64::NAN), "[0, 1]"),
    ] {
        let error = check(name, roles, p).unwrap_err();
        assert!(error.contains(word), "{name}: {error}");
    }
}
