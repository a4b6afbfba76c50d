//! `expo data show FILE`: what rows are, without a config.

use std::fmt::Write;

use expo::data::chat::Content;
use expo::data::{Files, Look};
use expo::inspect::{look_at, show_file};
use expo::run_dir::LeftOut;
use serde_json::{Value, json};

use super::super::answer;
use super::super::progress::Progress;
use super::{ShowArgs, row_object, row_table};

/// Shows the rows of files.
pub fn run(args: &ShowArgs, files: &Files) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    let mut observe = |event: expo::session::Event| progress.show(event);
    let read = look_at(files, args.format, args.row, &mut observe).and_then(|found| {
        let model = args.model.as_ref();
        let shown = model.map(|model| show_file(model, files, &found, &args.set, &mut observe));
        expo::error::Result::Ok((shown.transpose()?, found))
    });
    progress.close();
    let (shown, found) = read?;
    let text = match args.json {
        true => {
            let mut object = object(&found, files);
            if let Some(shown) = &shown {
                let row = shown.row.as_ref();
                let row = row.map(|row| row_object(row, &shown.tokenizer));
                object["row"] = row.transpose()?.into();
            }
            format!("{object}\n")
        }
        false => {
            let mut text = table(&found, files);
            match &shown {
                Some(shown) => row_table(shown, &mut text)?,
                None => contents(&found, &mut text),
            }
            text
        }
    };
    answer(&text)
}

/// The lines of a config for these rows.
fn lines(found: &Look, files: &Files) -> String {
    let train = toml::Value::try_from(files).map(|value| value.to_string());
    let mut text = format!("[data]\ntrain = {}\n", train.unwrap_or_default());
    let _ = writeln!(text, "format = \"{}\"", found.format.name);
    if found.apply_chat_template {
        text.push_str("apply_chat_template = true\n");
    }
    for (name, source) in &found.known {
        let _ = writeln!(text, "# {name} = {source}");
    }
    if !found.columns.is_empty() {
        let table = toml::to_string(&found.columns).unwrap_or_default();
        let _ = write!(text, "\n[data.columns]\n{table}");
    }
    text
}

fn object(found: &Look, files: &Files) -> Value {
    let (number, place, example) = &found.row;
    let answers = found.answers();
    let answers =
        answers.map(|(role, content)| json!({"role": role.name(), "content": said(content)}));
    let invalid = found.invalid.iter();
    let invalid = invalid.map(|(reason, lines)| (reason.name().to_owned(), lines.clone()));
    json!({
        "format": found.format.name,
        "columns": found.columns,
        "apply_chat_template": found.apply_chat_template,
        "config": lines(found, files),
        "rows": found.rows,
        "usable": found.usable,
        "invalid": LeftOut(invalid.collect()),
        "unread": found.unread,
        "row": {
            "row": number,
            "place": place,
            "prompt": example.prompt.as_ref().map(said),
            "responses": answers.collect::<Vec<_>>(),
        },
    })
}

fn said(content: &Content) -> Value {
    match content {
        Content::Text(text) => json!(text),
        Content::Messages(messages) => json!(messages),
    }
}

fn table(found: &Look, files: &Files) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{:<22}{:>10}", "rows", found.rows);
    let _ = writeln!(text, "{:<22}{:>10}", "usable", found.usable);
    for (reason, lines) in &found.invalid {
        let first = lines.first.join(", ");
        let rows = lines.rows;
        let _ = writeln!(
            text,
            "{:<22}{rows:>10}  {reason} (lines {first}): {}",
            "left out", lines.fact
        );
    }
    if found.too_many_invalid {
        let what = "a run refuses so many unusable rows; see data.max_invalid_fraction";
        let _ = writeln!(text, "{:<22}{what}", "note");
    }
    if !found.unread.is_empty() {
        let _ = writeln!(
            text,
            "{:<22}{}",
            "columns not read",
            found.unread.join(", ")
        );
    }
    let _ = write!(text, "\n{}", lines(found, files));
    text
}

fn contents(found: &Look, text: &mut String) {
    let (number, place, example) = &found.row;
    let _ = writeln!(text, "\nrow {number}, {place}");
    if let Some(prompt) = &example.prompt {
        part("prompt", prompt, text);
    }
    for (role, answer) in found.answers() {
        part(role.name(), answer, text);
    }
}

fn part(name: &str, content: &Content, text: &mut String) {
    let _ = writeln!(text, "\n{name}");
    match content {
        Content::Text(said) => {
            let _ = writeln!(text, "{said:?}");
        }
        Content::Messages(messages) => {
            for message in messages {
                let said = message.text().unwrap_or_default();
                let _ = writeln!(text, "{}: {said:?}", message.role());
            }
        }
    }
}
