//! `expo loss`: a calculator for the losses, one JSON line in, one JSON line out.
//!
//! *Why*: to check or to port a formula takes its value and its gradient, without a model.

use anyhow::Context as _;
use clap::Args;
use expo::error::{Error, Result, nearest};
use expo::io::untrusted::{self, Line};
use expo::loss::{Loss, Needs, Objective, Role, Scored};
use serde_json::{Map, Value};
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;

mod columns;

use super::terminal::printable;
use columns::{CONFIDENCES, HELP, PAIR, ROW, SCORES, SHARED, Slot};

/// Evaluate a loss and its gradient on log-probs, JSON lines in, JSON lines out.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct LossArgs {
    /// Evaluate this loss, e.g. dpo; `expo losses` lists all
    name: String,

    /// Set a knob of the loss; may be repeated, the last value wins
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Read JSON lines from this file [default: standard input]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &LossArgs) -> anyhow::Result<()> {
    let calculator = Calculator::new(configure(args)?);
    match &args.file {
        Some(path) => {
            let file = untrusted::open(path)?;
            calculator.run(BufReader::new(file), &path.display().to_string())
        }
        None => calculator.run(io::stdin().lock(), "<stdin>"),
    }
}

fn configure(args: &LossArgs) -> Result<Loss> {
    let mut loss = Loss::default_of(&args.name)?;
    for set in &args.set {
        let (key, value) = set.split_once('=').ok_or_else(|| {
            Error::input(format!("--set {set}")).hint("write --set KEY=VALUE, e.g. --set beta=0.1")
        })?;
        loss = loss
            .with(key.trim(), value.trim())
            .map_err(|error| error.at("--set"))?;
    }
    loss.validate()?;
    Ok(loss)
}

struct Calculator {
    loss: Loss,
    needs: Needs,
    slots: &'static [Slot],
    /// The one column that belongs to no response.
    label: &'static str,
    reads_reference: bool,
    reads_tokens: bool,
}

/// A line of input, ready to be evaluated.
struct Row {
    place: String,
    example: Scored,
    /// Of each gradient of the output: its column, the first response, how many in a list.
    grads: Vec<(String, usize, Option<usize>)>,
}

impl Calculator {
    fn new(loss: Loss) -> Self {
        let needs = loss.needs();
        let (slots, label) = match needs.batch.contains(&Role::Mismatched) {
            false => (PAIR, "preference"),
            true => (ROW, "label"),
        };
        Self {
            reads_reference: loss.reads(f64::NAN, 1.0),
            reads_tokens: loss.reads(-1.0, f64::NAN),
            loss,
            needs,
            slots,
            label,
        }
    }

    fn run(&self, mut input: impl BufRead, source: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let mut batch = Vec::new();
        for number in 1.. {
            let place = format!("{source}:{number}");
            let line = match untrusted::line(&mut input).with_context(|| place.clone())? {
                Line::End => break,
                Line::TooLong => return Err(untrusted::too_long().at(place).into()),
                Line::Whole(line) => line,
            };
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let row = self.read(&line).map_err(|error| error.at(&place))?;
            let row = Row { place, ..row };
            if self.needs.batch.is_empty() {
                let alone = std::slice::from_ref(&row.example);
                self.answer(&row, self.loss.prepare(alone).of(0), &mut out)?;
            } else {
                batch.push(row);
            }
        }
        let examples: Vec<Scored> = batch.iter().map(|row| row.example.clone()).collect();
        let prepared = self.loss.prepare(&examples);
        for (index, row) in batch.iter().enumerate() {
            self.answer(row, prepared.of(index), &mut out)?;
        }
        out.flush()?;
        Ok(())
    }

    fn read(&self, line: &[u8]) -> Result<Row> {
        let text = str::from_utf8(line).map_err(|_| Error::input("the line is not UTF-8"))?;
        let columns: Map<String, Value> = match untrusted::parse(text) {
            Ok(Value::Object(columns)) => columns,
            Ok(_) => return Err(Error::input("bad JSON: not an object").hint(LINE)),
            Err(error) => return Err(bad_json(error)),
        };
        self.check_columns(&columns)?;
        let mut responses = Vec::new();
        let mut spans = Vec::new();
        for (slot, role) in self.wanted(&columns)? {
            let policy = self
                .numbers(&columns, slot.policy, true)?
                .unwrap_or_default();
            let reference = self
                .numbers(&columns, slot.reference, self.reads_reference)?
                .unwrap_or_else(|| vec![f64::NAN; policy.len()]);
            if reference.len() != policy.len() {
                let (r, p) = (reference.len(), policy.len());
                let what = format!(
                    "{} has {r} log-probs, {} has {p}",
                    slot.reference, slot.policy
                );
                return Err(Error::input(what).hint("give one for each response"));
            }
            let tokens = match slot.tokens {
                Some(name) => self.numbers(&columns, name, self.reads_tokens)?,
                None => None,
            };
            let tokens = tokens.map_or(f64::NAN, |tokens| tokens[0]);
            spans.push((slot.policy, role, responses.len()));
            for (policy, reference) in policy.iter().zip(&reference) {
                responses.push((role, *policy, *reference, tokens));
            }
        }
        let preference = match self.label {
            "preference" => self.numbers(&columns, "preference", false)?.map(|p| p[0]),
            _ => None,
        };
        let roles: Vec<Role> = responses.iter().map(|response| response.0).collect();
        self.needs.check(&roles, preference)?;
        if self.needs.shared {
            // Their variables come after those of the responses.
            let [chosen, rejected] = SHARED.map(|names| names[0]);
            spans.push((chosen, Role::Chosen, responses.len()));
            spans.push((rejected, Role::Rejected, responses.len() + 1));
        }
        let grads = columns.iter().filter_map(|(key, value)| {
            let (_, role, first) = spans.iter().find(|(name, ..)| name == key)?;
            let listed = value.as_array().map(Vec::len);
            let trained = self.needs.all.contains(role) || self.needs.any.contains(role);
            trained.then(|| (key.clone(), *first, listed))
        });
        let grads = grads.collect();
        Ok(Row {
            place: String::new(),
            grads,
            example: self.complete(Scored::new(&responses, preference), &columns)?,
        })
    }

    /// Adds what a few losses read of a pair beside its log-probs and lengths.
    fn complete(&self, mut example: Scored, columns: &Map<String, Value>) -> Result<Scored> {
        let number =
            |name: &str| Result::Ok(self.numbers(columns, name, true)?.unwrap_or_default()[0]);
        let both = |names: [&str; 2]| Result::Ok([number(names[0])?, number(names[1])?]);
        if self.needs.scores {
            let [chosen, rejected] = both(SCORES)?;
            if chosen <= rejected {
                let what = format!("score_chosen is {chosen}, score_rejected {rejected}");
                return Err(Error::input(what).hint("the chosen response has the higher one"));
            }
            example = example.with_score_gap(Some(chosen - rejected));
        }
        if self.needs.confidence {
            example = example.with_confidence(&both(CONFIDENCES)?);
        }
        if self.needs.shared {
            let sums =
                SHARED.map(|names| both(names).map(|[policy, reference]| (policy, reference)));
            let [chosen, rejected] = sums;
            example = example.with_shared(&[chosen?, rejected?]);
        }
        Ok(example)
    }

    /// The slots that the loss reads of this row, with their roles.
    fn wanted(&self, columns: &Map<String, Value>) -> Result<Vec<(&'static Slot, Role)>> {
        let needs = &self.needs;
        let given = |role: &Role| {
            let slot = self.slots.iter().find(|slot| slot.role == Some(*role));
            slot.is_some_and(|slot| columns.contains_key(slot.policy))
        };
        let unlabelled = needs.unlabelled.iter().any(given)
            && !needs
                .all
                .iter()
                .any(|role| !needs.unlabelled.contains(role) && given(role));
        let mut wanted = Vec::new();
        for slot in self.slots {
            let role = match slot.role {
                Some(role) => role,
                None => self.label(columns)?,
            };
            let roles: &[&[Role]] = match unlabelled {
                true => &[needs.unlabelled],
                false => &[needs.all, needs.any, needs.batch],
            };
            let drawn = needs.on_policy && role == Role::Sampled && given(&role);
            if drawn || roles.iter().any(|roles| roles.contains(&role)) {
                wanted.push((slot, role));
            }
        }
        Ok(wanted)
    }

    fn label(&self, columns: &Map<String, Value>) -> Result<Role> {
        match columns.get(self.label) {
            Some(Value::Bool(true)) => Ok(Role::Chosen),
            Some(Value::Bool(false)) => Ok(Role::Rejected),
            Some(other) => Err(Error::input(format!("{} is {other}", self.label))
                .hint("it is true (desirable) or false (undesirable)")),
            None => Err(self.missing(self.label)),
        }
    }

    /// Refuses a column that no loss of this layout has, and values that are no numbers.
    fn check_columns(&self, columns: &Map<String, Value>) -> Result<()> {
        let of_slot = |slot: &Slot| [Some(slot.policy), Some(slot.reference), slot.tokens];
        let mut valid: Vec<&str> = self.slots.iter().flat_map(of_slot).flatten().collect();
        valid.push(self.label);
        if self.label == "preference" {
            valid.extend(
                SCORES
                    .iter()
                    .chain(&CONFIDENCES)
                    .chain(SHARED.iter().flatten()),
            );
        }
        for key in columns.keys() {
            if !valid.contains(&key.as_str()) {
                return Err(Error::input(format!("unknown column `{key}`"))
                    .hint(nearest(key, valid.iter().copied())));
            }
            if key != "label" {
                self.numbers(columns, key, false)?;
            }
        }
        Ok(())
    }

    /// The numbers of a column: one, or a list where its response may be several.
    fn numbers(
        &self,
        columns: &Map<String, Value>,
        name: &str,
        required: bool,
    ) -> Result<Option<Vec<f64>>> {
        let Some(value) = columns.get(name) else {
            return match required {
                true => Err(self.missing(name)),
                false => Ok(None),
            };
        };
        let many = |slot: &Slot| slot.many && (slot.policy == name || slot.reference == name);
        let many = self.slots.iter().any(many);
        let numbers: Option<Vec<f64>> = match value {
            Value::Array(list) if many && !list.is_empty() => {
                list.iter().map(Value::as_f64).collect()
            }
            one => one.as_f64().map(|number| vec![number]),
        };
        let numbers = numbers.ok_or_else(|| {
            Error::input(format!("{name} is {value}")).hint(match many {
                true => "it is a number or a list of numbers",
                false => "it is a number",
            })
        })?;
        let length = self.slots.iter().any(|slot| slot.tokens == Some(name));
        if length && numbers[0] <= 0.0 {
            let what = format!("{name} is {}", numbers[0]);
            return Err(Error::input(what).hint("a length is above 0"));
        }
        Ok(Some(numbers))
    }

    fn missing(&self, name: &str) -> Error {
        let hint = format!("the loss {} reads it with these knobs", self.loss.name());
        Error::input(format!("no column `{name}`")).hint(hint)
    }

    fn answer(&self, row: &Row, statistics: &[f64], out: &mut impl Write) -> anyhow::Result<()> {
        let dual = self.loss.evaluate(&row.example, statistics);
        let finite = |number: f64| {
            let refuse = || {
                Error::non_finite(format!(
                    "{}: the loss or its gradient is {number}",
                    row.place
                ))
            };
            number
                .is_finite()
                .then(|| Value::from(number))
                .ok_or_else(refuse)
        };
        let loss = finite(dual.value)?;
        let mut grad = Map::new();
        for (name, first, listed) in &row.grads {
            let value = match listed {
                None => finite(dual.grad[*first])?,
                Some(count) => {
                    let all = &dual.grad[*first..first + count];
                    all.iter()
                        .map(|number| finite(*number))
                        .collect::<Result<Value>>()?
                }
            };
            grad.insert(name.clone(), value);
        }
        let answer = Map::from_iter([("loss".into(), loss), ("grad".into(), grad.into())]);
        writeln!(out, "{}", printable(&Value::Object(answer).to_string()))?;
        Ok(())
    }
}

fn bad_json(error: serde_json::Error) -> Error {
    let message = error.to_string();
    let (fact, _) = message.rsplit_once(" at line ").unwrap_or((&message, ""));
    Error::input(format!("bad JSON: {fact} at byte {}", error.column())).hint(LINE)
}

const LINE: &str = "each line is one object, e.g. {\"policy_chosen\": -45.25, ...}";
