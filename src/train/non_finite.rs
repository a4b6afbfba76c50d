//! What is kept of a step that met a value that is not finite.

use serde_json::{Value, json};

use crate::error::Result;
use crate::kernels::device::download;
use crate::loss::Scored;
use crate::model::parameters::Buffer;

/// The rows of a step as its loss saw them.
#[derive(Default)]
pub(super) struct Terms(Vec<(usize, f64, Scored)>);

impl Terms {
    /// Adds a row's number, its loss, and its responses.
    pub fn add(&mut self, row: usize, loss: f64, scored: &Scored) {
        self.0.push((row, loss, scored.clone()));
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// A line of `non_finite.jsonl`: after `step` steps `what` was met, in these rows, of whose gradient
    /// these parameters are not finite.
    pub fn record(&self, step: u64, what: &str, parameters: &[String]) -> Value {
        let response = |y: &crate::loss::Response| {
            json!({
                "role": y.role.name(),
                "tokens": y.tokens,
                "log_prob": number(y.policy.value),
                "reference": number(y.reference),
            })
        };
        let row = |(row, loss, scored): &(usize, f64, Scored)| {
            let responses: Vec<Value> = scored.responses.iter().map(response).collect();
            json!({"row": row, "loss": number(*loss), "responses": responses})
        };
        let rows: Vec<Value> = self.0.iter().map(row).collect();
        json!({"step": step, "what": what, "rows": rows, "parameters": parameters})
    }
}

/// A number, or its name where JSON has none for it.
fn number(x: f64) -> Value {
    match x.is_finite() {
        true => x.into(),
        false => x.to_string().into(),
    }
}

/// The names of the parameters whose gradient is not finite.
pub(super) fn not_finite(gradients: &Buffer) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (id, entry) in gradients.layout().entries.iter().enumerate() {
        let values = download(&gradients.view(id).flatten_all()?)?;
        if !values.iter().all(|x| x.is_finite()) {
            names.push(entry.name.clone());
        }
    }
    Ok(names)
}
