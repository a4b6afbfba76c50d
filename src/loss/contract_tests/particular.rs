//! What single losses have to keep.

use super::*;

#[test]
fn cexpo_of_samples_alone_is_its_sample_term() {
    let loss = Loss::default_of("cexpo").unwrap();
    let samples = [
        (Role::Sampled, -40.0, -41.0, 20.0),
        (Role::Sampled, -30.0, -33.0, 15.0),
    ];
    let example = Scored::new(&samples, None);
    loss.needs().check(&[Role::Sampled], None).unwrap();
    let dual = loss.evaluate_alone(&example);
    assert_eq!(dual.value, 0.05 * 35.0);
    assert_eq!(dual.grad, [-0.025, -0.025]);
    let figures = loss.diagnostics(&example, &[]);
    assert_eq!(figures, [("kl", -2.0)]);
}

fn mean_of(loss: &Loss, batch: &[Scored]) -> f64 {
    let prepared = loss.prepare(batch);
    let values = batch.iter().enumerate();
    let values = values.map(|(index, e)| loss.evaluate(e, prepared.of(index)).value);
    values.sum::<f64>() / batch.len() as f64
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
    let mean = mean_of(&loss, &batch);
    let want = (-1f64).exp().ln_1p() + 0.05 * 40.0;
    assert!((mean - want).abs() < 1e-15, "{mean} is not {want}");

    let loss = Loss::default_of("sft")
        .unwrap()
        .with("per_token", "true")
        .unwrap();
    let row = |log_prob, tokens| Scored::new(&[(Role::Chosen, log_prob, f64::NAN, tokens)], None);
    let batch = [row(-20.0, 30.0), row(-40.0, 10.0)];
    let mean = mean_of(&loss, &batch);
    assert_eq!(mean, 60.0 / 40.0);
}

#[test]
fn a_margin_shifts_the_policy_only() {
    for name in ["cexpo", "rexpo"] {
        let plain = Loss::default_of(name).unwrap();
        let pair = example(&plain, TUPLES[5].0, TUPLES[5].1, None);
        let shifted = example(&plain, [-33.8, -33.5, -40.1], TUPLES[5].1, None);
        let margin = plain.with("margin", "0.5").unwrap().evaluate_alone(&pair);
        let moved = plain.evaluate_alone(&shifted);
        assert!((margin.value - moved.value).abs() < 1e-14, "{name}");
    }
}

#[test]
fn diagnostics_see_saturation_clamping_and_order() {
    let figures = |name: &str, tuple: usize| {
        let (policy, reference) = TUPLES[tuple];
        let loss = Loss::default_of(name).unwrap();
        let one = example(&loss, policy, reference, None);
        loss.diagnostics(&one, loss.prepare(std::slice::from_ref(&one)).of(0))
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
        let figures = forward.diagnostics(&one, &[]);
        assert_eq!(figures, [("clamped", clamped)]);
    }
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

#[test]
fn every_loss_but_sft_reports_rewards() {
    let example = step_0::start();
    for name in Loss::NAMES {
        let reward = Loss::default_of(name)
            .unwrap()
            .reward(&example.responses[0]);
        assert_eq!(reward.is_none(), *name == "sft", "{name}");
    }
}
