//! The losses against oracle tables: in the library, and in `cli` through `expo loss`.

mod cli;
mod custom;
mod documents;
mod field;
mod second_formulas;

use crate::support::real_fixtures;
use expo::loss::{Dual, Loss, Objective, Role, Scored};
use serde_json::Value;
use std::path::Path;

/// 1e-9 relative, or 1e-15 absolute where the number is as small as that.
fn close(ours: f64, oracle: f64) -> bool {
    (ours - oracle).abs() <= (1e-9 * oracle.abs()).max(1e-15)
}

fn table(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    // Python's json writes these words, which are no JSON.
    let text = text
        .replace("-Infinity", "null")
        .replace("Infinity", "null");
    serde_json::from_str(&text.replace("NaN", "null")).unwrap()
}

fn list<'a>(table: &'a Value, name: &str) -> &'a [Value] {
    let list = table[name].as_array().unwrap();
    assert!(!list.is_empty(), "{name} is empty");
    list
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn configured(name: &str, knobs: &[(String, String)]) -> Loss {
    let default = Loss::default_of(name).unwrap();
    let set = |loss: Loss, (key, value): &(String, String)| loss.with(key, value).unwrap();
    let loss = knobs.iter().fold(default, set);
    loss.validate().unwrap();
    loss
}

/// The knobs of an oracle row, as `--set` takes them.
fn knobs(params: &Value) -> Vec<(String, String)> {
    let pair = |(key, value): (&String, &Value)| (key.clone(), value.to_string());
    params.as_object().unwrap().iter().map(pair).collect()
}

/// A pair from (policy, reference, tokens) of the chosen and the rejected response.
fn pair(t: &[f64], preference: Option<f64>) -> Scored {
    let responses = [
        (Role::Chosen, t[0], t[2], t[4]),
        (Role::Rejected, t[1], t[3], t[5]),
    ];
    Scored::new(&responses, preference)
}

fn is_finite(dual: &Dual) -> bool {
    dual.grad.iter().chain([&dual.value]).all(|x| x.is_finite())
}

/// Which of our losses a row of the peers' table is for.
fn peer(loss: &str, params: &Value) -> Option<Loss> {
    let mut knobs = knobs(params);
    // The source's own coefficient, and what it hands to losses that do not read it.
    knobs.retain(|(key, value)| {
        let unread = key == "label_smoothing" && value == "0.0";
        !unread && key != "gamma_beta_ratio" && key != "alpha"
    });
    let set = |key: &str, value: &str| Some((key.to_owned(), value.to_owned()));
    let (name, extra) = match loss {
        "dpo_sigmoid" | "cdpo" => ("dpo", None),
        "ipo_sum" => ("ipo", None),
        "ipo_length_normalised" => ("ipo", set("average_log_prob", "true")),
        "fdpo_forward_kl" => ("fdpo", set("divergence", "forward_kl")),
        "fdpo_js" => ("fdpo", None),
        "simpo" | "hinge" | "robust" | "exo_pair" | "nca_pair" | "bco_pair" | "sppo_hard"
        | "apo_zero" | "apo_down" | "discopop" => (loss, None),
        "dpo_sigmoid_norm" => ("sigmoid_norm", None),
        // The oracle leaves the target's term out.
        "cpo_sigmoid" => ("cpo", set("alpha", "0")),
        "orpo" => {
            knobs = vec![("lambda".to_owned(), params["beta"].to_string())];
            ("orpo", None)
        }
        "fdpo_alpha" => {
            // TRL's coefficient is 1 - alpha of the paper, whose alpha lies in (0, 1).
            let alpha = 1.0 - number(&params["alpha"]);
            if alpha <= 0.0 {
                return None;
            }
            knobs.extend(set("divergence", "alpha"));
            ("fdpo", set("alpha", &alpha.to_string()))
        }
        _ => return None,
    };
    knobs.extend(extra);
    Some(configured(name, &knobs))
}

#[test]
fn losses_agree_with_their_peers() {
    let Some(folder) = real_fixtures() else {
        return;
    };
    let table = table(&folder.join("oracle/losses.json"));
    let (mut compared, mut limits) = (0, 0);
    for row in list(&table, "rows") {
        let name = row["loss"].as_str().unwrap();
        let Some(loss) = peer(name, &row["params"]) else {
            continue;
        };
        let tuple = numbers(&table["tuples"][row["tuple"].as_u64().unwrap() as usize]);
        let example = pair(&tuple, None);
        let ours = loss.evaluate_alone(&example);
        let bounded = ours.value >= 0.0 || name == "robust";
        assert!(is_finite(&ours) && bounded, "{row}: {ours:?}");
        let clamped = loss.diagnostics(&example, &[]);
        let source = match name {
            "fdpo_alpha" | "orpo" => [
                "formula_f64",
                "formula_d_policy_chosen",
                "formula_d_policy_rejected",
            ],
            _ => ["value", "d_policy_chosen", "d_policy_rejected"],
        };
        let oracle = source.map(|key| row[key].as_f64());
        if clamped.contains(&("clamped", 1.0)) {
            limits += 1;
            let rho_w = tuple[0] - tuple[2];
            let lost = rho_w < 0.0;
            // The clamped side is constant; the other has the slope of a loss linear or flat there.
            assert!(
                if lost {
                    ours.value > 1e30
                } else {
                    ours.value < 1e-15
                },
                "{row}"
            );
            assert_eq!(ours.grad[usize::from(!lost)], 0.0, "{row}: {ours:?}");
            let slope = ours.grad[usize::from(lost)];
            assert!(
                close(slope, if lost { 0.1 } else { 0.0 }),
                "{row}: {ours:?}"
            );
        } else {
            for (ours, oracle) in [ours.value, ours.grad[0], ours.grad[1]].iter().zip(oracle) {
                let oracle = oracle.unwrap_or_else(|| panic!("{row}"));
                // The epsilon of exo_pair is an f32 in the source.
                let rounded =
                    name == "exo_pair" && (ours - oracle).abs() <= 1e-6 * oracle.abs().max(1.0);
                assert!(close(*ours, oracle) || rounded, "{row}: {ours}");
            }
            compared += 1;
        }
        for (response, key) in example
            .responses
            .iter()
            .zip(["rewards/chosen", "rewards/rejected"])
        {
            if let (Some(reward), false) = (row["metrics"][key].as_f64(), name == "fdpo_alpha") {
                assert!(close(loss.reward(response).unwrap(), reward), "{row}");
            }
        }
    }
    // 2 DPO, 2 cDPO, 4 IPO, 3 SimPO, forward KL and JS, and 2 alphas in the domain; 2 hinge, 2 robust
    // and 10 others; of 10 each.
    assert_eq!((compared, limits), (284, 6));
}

#[test]
fn expo_losses_agree_with_60_digits() {
    let Some(folder) = real_fixtures() else {
        return;
    };
    let table = table(&folder.join("oracle/expo_losses.json"));
    for row in list(&table, "rows") {
        let loss = configured(row["loss"].as_str().unwrap(), &knobs(&row["params"]));
        let t = numbers(&table["tuples"][row["tuple"].as_u64().unwrap() as usize]);
        let mut example = pair(&t, row["preference"].as_f64());
        let sampled = (Role::Sampled, t[6], t[7], f64::NAN);
        let [w, l] = &example.responses[..] else {
            panic!()
        };
        let [w, l] = [w, l].map(|y| (y.role, y.policy.value, y.reference, y.tokens));
        example = Scored::new(&[w, l, sampled], example.preference);
        let ours = loss.evaluate_alone(&example);
        let keys = [
            "value",
            "d_policy_chosen",
            "d_policy_rejected",
            "d_policy_sampled",
        ];
        for (ours, key) in [ours.value].iter().chain(&ours.grad).zip(keys) {
            assert!(close(*ours, number(&row[key])), "{row}: {key} {ours}");
        }
    }
}

#[test]
fn kto_agrees_with_trl() {
    let Some(folder) = real_fixtures() else {
        return;
    };
    let table = table(&folder.join("oracle/losses.json"));
    for row in list(&table, "kto") {
        let loss = configured("kto", &knobs(&row["params"]));
        let mismatched = list(row, "kl_policy_ref_logps").iter().map(numbers);
        let examples: Vec<Scored> = list(row, "policy_ref_logps")
            .iter()
            .map(numbers)
            .zip(list(row, "labels"))
            .zip(mismatched)
            .map(|((y, label), other)| {
                let role = if label == true {
                    Role::Chosen
                } else {
                    Role::Rejected
                };
                let other = (Role::Mismatched, other[0], other[1], 1.0);
                Scored::new(&[(role, y[0], y[1], 1.0), other], None)
            })
            .collect();
        let prepared = loss.prepare(&examples);
        assert!(close(prepared.of(0)[0], number(&row["kl"])), "{row}");
        let count = examples.len() as f64;
        let duals: Vec<Dual> = examples
            .iter()
            .map(|e| loss.evaluate(e, prepared.of(0)))
            .collect();
        let mean = duals.iter().map(|dual| dual.value).sum::<f64>() / count;
        assert!(close(mean, number(&row["loss"])), "{row}: {mean}");
        for (dual, oracle) in duals.iter().zip(numbers(&row["grad"])) {
            assert!(close(dual.grad[0] / count, oracle), "{row}: {dual:?}");
            assert_eq!(dual.grad[1], 0.0);
        }
    }
}
