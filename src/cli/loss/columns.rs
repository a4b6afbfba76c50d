//! The columns that `expo loss` reads.

use expo::loss::Role;

pub(super) const HELP: &str = "\
Input: one JSON object per line. All log-probs are natural logarithms, summed
over the tokens of a response; lengths are counts of tokens. `expo losses show
NAME` has the formula and the knobs.

  All losses but kto:
    policy_chosen, policy_rejected    log pi of the two responses
    ref_chosen, ref_rejected          log r of the two responses
    n_chosen, n_rejected              their lengths
    policy_sampled, ref_sampled       log pi and log r of a sample of the
                                      reference, or a list
    preference                        p(chosen > rejected) in [0, 1]; 1 if not
                                      given
    score_chosen, score_rejected      odpo: the scores of the responses
    confidence_chosen, ..._rejected   wpo: mean over tokens of log pi_t - log
                                      sum_v pi_v^2
    policy_chosen_shared, ref_chosen_shared, and the same for rejected
                                      ld_dpo: sums over the first min(n_chosen,
                                      n_rejected) tokens
  kto:
    policy, ref                       log pi and log r of a response
    label                             true: desirable, false: undesirable
    policy_mismatched, ref_mismatched log pi and log r of another row's answer,
                                      or a list

Only the columns that the loss reads with these knobs are required; the other
columns above may be there. For cexpo a line may have samples only: then it is
the sample term alone. Each line is answered by itself, as it is read; for kto,
aot and aot_unpaired all lines are one batch, answered at the end.

Output: one line per input line. `loss` is the loss of that line, `grad` its
derivative with respect to each policy log-prob that it reads, in the order of
the input. The numbers read back exactly. For kto no gradient flows through z0,
and loss and grad are those of the line, not of the batch mean. For sft with
per_token=true a line is a batch of its own.

Example, the first step of a training, where the policy is the reference:
  $ cat pair.jsonl
  {\"policy_chosen\":-47,\"policy_rejected\":-60,\"ref_chosen\":-47,\"ref_rejected\":-60}
  $ expo loss dpo --set beta=0.1 --file pair.jsonl
  {\"loss\":0.6931471805599453,\"grad\":{\"policy_chosen\":-0.05,\"policy_rejected\":0.05}}";

/// A response's columns.
pub(super) struct Slot {
    /// `None`: the row's `label` tells.
    pub role: Option<Role>,
    pub policy: &'static str,
    pub reference: &'static str,
    pub tokens: Option<&'static str>,
    /// Whether the columns may hold a list.
    pub many: bool,
}

pub(super) const PAIR: &[Slot] = &[
    Slot {
        role: Some(Role::Chosen),
        policy: "policy_chosen",
        reference: "ref_chosen",
        tokens: Some("n_chosen"),
        many: false,
    },
    Slot {
        role: Some(Role::Rejected),
        policy: "policy_rejected",
        reference: "ref_rejected",
        tokens: Some("n_rejected"),
        many: false,
    },
    Slot {
        role: Some(Role::Sampled),
        policy: "policy_sampled",
        reference: "ref_sampled",
        tokens: None,
        many: true,
    },
];

/// What a few losses read of the chosen and of the rejected response beside these.
pub(super) const SCORES: [&str; 2] = ["score_chosen", "score_rejected"];
pub(super) const CONFIDENCES: [&str; 2] = ["confidence_chosen", "confidence_rejected"];
pub(super) const SHARED: [[&str; 2]; 2] = [
    ["policy_chosen_shared", "ref_chosen_shared"],
    ["policy_rejected_shared", "ref_rejected_shared"],
];

pub(super) const ROW: &[Slot] = &[
    Slot {
        role: None,
        policy: "policy",
        reference: "ref",
        tokens: None,
        many: false,
    },
    Slot {
        role: Some(Role::Mismatched),
        policy: "policy_mismatched",
        reference: "ref_mismatched",
        tokens: None,
        many: true,
    },
];
