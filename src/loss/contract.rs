//! What every loss of the table has to keep, whatever its formula.

use super::{Context, Loss, Objective, Role, Scored};

/// Every loss with the paper's knobs, and each knob that changes the formula.
fn losses() -> Vec<Loss> {
    let variants: [(&str, &[(&str, &str)]); 14] = [
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
fn example(policy: [f64; 3], reference: [f64; 3], preference: Option<f64>) -> Scored {
    Scored::new(
        &[
            (Role::Chosen, policy[0], reference[0], 21.0),
            (Role::Rejected, policy[1], reference[1], 30.0),
            (Role::Sampled, policy[2], reference[2], 25.0),
            (Role::Sampled, policy[2] - 3.0, reference[2] - 2.0, 12.0),
            (Role::Mismatched, -90.0, -91.5, 30.0),
        ],
        preference,
    )
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
fn evaluate(loss: &Loss, example: &Scored) -> super::Dual {
    let batch = loss.context(std::slice::from_ref(example));
    loss.evaluate(example, &batch)
}

#[test]
fn gradients_agree_with_finite_differences() {
    let step = 1e-4;
    for loss in losses() {
        for (policy, reference) in TUPLES {
            for p in [None, soft_label(&loss, 0.7)] {
                let whole = example(policy, reference, p);
                // z0 carries no gradient, so it stays while a log-prob moves.
                let batch = loss.context(std::slice::from_ref(&whole));
                let exact = loss.evaluate(&whole, &batch);
                for index in 0..whole.responses.len() {
                    let at = |shift: f64| {
                        let mut moved = whole.clone();
                        moved.responses[index].policy.value += shift;
                        loss.evaluate(&moved, &batch).value
                    };
                    let slope = (at(step) - at(-step)) / (2.0 * step);
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
                        let example = example([w, l, w], [r_w, r_l, r_w], p);
                        let dual = evaluate(&loss, &example);
                        let finite = dual.grad.iter().chain([&dual.value]).all(|x| x.is_finite());
                        assert!(
                            finite && dual.value >= 0.0,
                            "{loss:?} {example:?}: {dual:?}"
                        );
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
            let hard = evaluate(&loss, &example(policy, reference, None));
            let soft = evaluate(&loss, &example(policy, reference, Some(1.0)));
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
                let whole = example(policy, reference, Some(p));
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

/// At the start policy = reference: the loss and its slopes have closed forms.
#[test]
fn step_0_has_the_closed_forms() {
    let reference = [-33.3, -33.9, -40.1];
    let (d_r, samples) = (0.6_f64, 40.6);
    let start = Scored::new(
        &[
            (Role::Chosen, reference[0], reference[0], 21.0),
            (Role::Rejected, reference[1], reference[1], 21.0),
            (Role::Sampled, reference[2], reference[2], 25.0),
            (Role::Sampled, reference[2] - 1.0, reference[2] - 1.0, 25.0),
            (Role::Mismatched, -90.0, -90.0, 30.0),
        ],
        None,
    );
    let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
    for loss in losses() {
        let log2 = std::f64::consts::LN_2;
        let (value, slope_w, slope_l) = match &loss {
            Loss::Cexpo(k) => {
                let length = if k.length_normalized { 21.0 } else { 1.0 };
                let x = d_r / length - k.margin;
                let slope = sigma(-x) / length;
                ((-x).exp().ln_1p() + k.lambda * samples, -slope, slope)
            }
            Loss::Rexpo(k) => {
                let length = if k.length_normalized { 21.0 } else { 1.0 };
                let x = d_r / length;
                let residual = sigma(x - k.margin) - k.lambda * sigma(x) - (1.0 - k.lambda);
                let slope = 2.0 * residual * sigma(x - k.margin) * sigma(k.margin - x) / length;
                if k.margin == 0.0 {
                    let closed = ((1.0 - k.lambda) * sigma(-x)).powi(2);
                    assert!((closed - residual * residual).abs() < 1e-15);
                }
                (residual * residual, slope, -slope)
            }
            Loss::Dpo(k) => {
                let slope = k.beta * (0.5 - k.label_smoothing);
                (log2, -slope, slope)
            }
            Loss::Ipo(k) => {
                let length = if k.average_log_prob { 21.0 } else { 1.0 };
                let slope = 1.0 / k.beta / length;
                (1.0 / (4.0 * k.beta * k.beta), -slope, slope)
            }
            Loss::Fdpo(k) => {
                // f''(1) is 1/2 under Jensen-Shannon, 1 under the others.
                let curved = k.divergence == super::Divergence::JensenShannon;
                let slope = k.beta / if curved { 4.0 } else { 2.0 };
                (log2, -slope, slope)
            }
            Loss::Simpo(k) => {
                let x = k.beta * d_r / 21.0 - k.gamma;
                let slope = sigma(-x) * k.beta / 21.0;
                ((-x).exp().ln_1p(), -slope, slope)
            }
            Loss::Kto(k) => {
                let half = (k.desirable_weight + k.undesirable_weight) / 2.0;
                let slope = |weight: f64| k.beta * weight / 8.0;
                let slopes = (slope(k.desirable_weight), slope(k.undesirable_weight));
                (half / 2.0, -slopes.0, slopes.1)
            }
            Loss::Sft(k) => {
                let length = if k.per_token { 21.0 } else { 1.0 };
                (33.3 / length, -1.0 / length, 0.0)
            }
        };
        let step_0 = evaluate(&loss, &start);
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs().max(1e-3);
        assert!(close(step_0.value, value), "{loss:?}: {step_0:?}, {value}");
        assert!(
            close(step_0.grad[0], slope_w),
            "{loss:?}: {step_0:?}, {slope_w}"
        );
        assert!(
            close(step_0.grad[1], slope_l),
            "{loss:?}: {step_0:?}, {slope_l}"
        );
        let sample = match &loss {
            Loss::Cexpo(k) => -k.lambda / 2.0,
            _ => 0.0,
        };
        assert_eq!(step_0.grad[2..], [sample, sample, 0.0], "{loss:?}");
        match (&loss, loss.reward(&start.responses[0])) {
            (Loss::Simpo(_), _) => {}
            (Loss::Sft(_), reward) => assert_eq!(reward, None),
            (_, reward) => assert_eq!(reward, Some(0.0), "{loss:?}"),
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
    let pair = example(TUPLES[5].0, TUPLES[5].1, None);
    let shifted = example([-33.8, -33.5, -40.1], TUPLES[5].1, None);
    for name in ["cexpo", "rexpo"] {
        let plain = Loss::default_of(name).unwrap();
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
        let one = example(policy, reference, None);
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
        let one = example(TUPLES[tuple].0, TUPLES[tuple].1, None);
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
