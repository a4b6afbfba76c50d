//! All stories of a grammar, listed without the library: texts are put into texts until no
//! placeholder is left.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// The texts of slots and names.
pub type Env = BTreeMap<String, String>;

/// A continuation with its probability and score.
pub struct Listed {
    pub text: String,
    pub q: f64,
    pub score: f64,
}

/// Every prompt with what it fixes.
pub fn prompts(grammar: &str) -> BTreeMap<String, Env> {
    let table: Table = toml::from_str(grammar).unwrap();
    let all = list(&table, "prompt", Env::new());
    all.into_iter()
        .map(|(story, env)| (story.text, env))
        .collect()
}

/// Every continuation of a prompt that fixed `env`.
pub fn stories(grammar: &str, env: &Env) -> Vec<Listed> {
    let table: Table = toml::from_str(grammar).unwrap();
    let all = list(&table, "continuation", env.clone());
    all.into_iter().map(|(story, _)| story).collect()
}

fn list(table: &Table, part: &str, env: Env) -> Vec<(Listed, Env)> {
    let template = table[part].as_str().unwrap();
    let mut slots: Vec<&String> = table["slot"].as_table().unwrap().keys().collect();
    slots.retain(|name| template.contains(&format!("{{{name}}}")) && !env.contains_key(*name));
    slots.sort_by_key(|name| template.find(&format!("{{{name}}}")));
    let mut open = vec![(1.0, 0.0, env)];
    for slot in slots {
        let options = table["slot"][slot].as_array().unwrap();
        open = open
            .iter()
            .flat_map(|(q, score, env)| {
                let apply: Vec<&Value> = options.iter().filter(|o| applies(o, env)).collect();
                let total: f64 = apply.iter().map(|o| number(o, "weight", 1.0)).sum();
                let after = |option: &Value| {
                    let mut env = env.clone();
                    let text = option.as_str().or_else(|| option.get("text")?.as_str());
                    env.insert(slot.clone(), text.unwrap().to_owned());
                    let set = option.get("set").and_then(Value::as_table);
                    for (name, value) in set.into_iter().flatten() {
                        env.insert(name.clone(), value.as_str().unwrap().to_owned());
                    }
                    let share = number(option, "weight", 1.0) / total;
                    (q * share, score + number(option, "score", 0.0), env)
                };
                apply.into_iter().map(after).collect::<Vec<_>>()
            })
            .collect();
    }
    let listed = |(q, score, env): (f64, f64, Env)| {
        let text = fill(template, &env);
        (Listed { text, q, score }, env)
    };
    open.into_iter().map(listed).collect()
}

fn number(option: &Value, key: &str, default: f64) -> f64 {
    let value = option.get(key);
    let whole = value.and_then(Value::as_integer).map(|n| n as f64);
    whole.or(value.and_then(Value::as_float)).unwrap_or(default)
}

fn applies(option: &Value, env: &Env) -> bool {
    let when = option.get("when").and_then(Value::as_table);
    when.into_iter().flatten().all(|(name, values)| {
        let mut values = values.as_array().unwrap().iter();
        values.any(|value| value.as_str() == Some(&env[name]))
    })
}

fn fill(template: &str, env: &Env) -> String {
    let mut text = template.to_owned();
    while text.contains('{') {
        for (name, value) in env {
            let (first, rest) = name.split_at(1);
            let (large, tail) = value.split_at(1);
            let capital = format!("{{{}{rest}}}", first.to_uppercase());
            text = text.replace(&capital, &format!("{}{tail}", large.to_uppercase()));
            text = text.replace(&format!("{{{name}}}"), value);
        }
    }
    text
}
