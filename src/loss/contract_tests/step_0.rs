//! Where the policy is the reference, each loss and its slopes have closed forms.

use super::*;

/// A pair of answers of one length, two samples and a mismatched answer, as likely under the policy
/// as under the reference.
pub(super) fn start() -> Scored {
    let equal = |role, log_prob, tokens| (role, log_prob, log_prob, tokens);
    let responses = [
        equal(Role::Chosen, REFERENCE[0], LENGTH),
        equal(Role::Rejected, REFERENCE[1], LENGTH),
        equal(Role::Sampled, SAMPLE[0], 25.0),
        equal(Role::Sampled, SAMPLE[1], 25.0),
        equal(Role::Mismatched, -90.0, 30.0),
    ];
    Scored::new(&responses, None)
}

#[test]
fn step_0_has_the_closed_forms() {
    for loss in losses() {
        let start = start();
        // Of answers of one length all tokens are shared.
        let all: Vec<_> = start
            .responses
            .iter()
            .map(|y| (y.reference, y.reference))
            .collect();
        let start = complete(&loss, start, &all);
        assert_eq!(start, start.at_reference());
        let step_0 = loss.evaluate_alone(&start);
        let count = start.responses.len();
        let slope =
            |index: usize| step_0.grad[index] + step_0.grad.get(count + index).unwrap_or(&0.0);
        let want = loss.contract().step_0();
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs().max(1e-3);
        for (ours, want) in [
            (step_0.value, want.value),
            (slope(0), want.chosen),
            (slope(1), want.rejected),
        ] {
            assert!(close(ours, want), "{loss:?}: {step_0:?}, {want}");
        }
        let sample = loss.contract().sample_slope();
        assert_eq!(step_0.grad[2..count], [sample, sample, 0.0], "{loss:?}");
        let reward = loss.reward(&start.responses[0]);
        // Without a reference a reward is a log-prob.
        if loss.needs().reference {
            assert!(reward.is_none_or(|reward| reward == 0.0), "{loss:?}");
        }
    }
}
