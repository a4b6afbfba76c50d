//! Grammars that cannot be used, and what is said of them.

use std::path::Path;

use expo::lab::story::{Grammar, Tilt};

use super::SMALL;

/// `SMALL` with a line of it replaced.
fn changed(line: &str, by: &str) -> String {
    let text: Vec<&str> = SMALL
        .lines()
        .map(|own| {
            if own.trim().starts_with(line) {
                by
            } else {
                own
            }
        })
        .collect();
    assert_ne!(text.join("\n"), SMALL.trim_end(), "{line}");
    text.join("\n")
}

#[test]
fn what_cannot_be_used_is_refused_in_one_line() {
    let fine = r#"{ text = "Fine", score = 1 },"#;
    let mut wrong = String::new();
    for (line, by, expected) in [
        ("prompt =", "", "missing field `prompt`"),
        (
            "prompt =",
            "prompt = 3",
            "line 2: invalid type: integer `3`, expected a string",
        ),
        (
            "prompt =",
            "prompt = '{name} is {mood.'",
            r#"prompt: a brace without its other in "{name} is {mood."; placeholders are written {name}, and braces have no other use"#,
        ),
        (
            "prompt =",
            "prompt = '{name} is {mod}.'",
            "prompt: `mod` is not known here; did you mean `mood`?",
        ),
        (
            "prompt =",
            "prompt = '{He}: {name} is {mood}.'",
            "prompt: `He` is not known here; valid: deed, end, mood, name",
        ),
        (
            "continuation =",
            "continuation = ' {He} {deed}. {end}! {deed}'",
            "continuation: `{deed}` repeats texts that have placeholders themselves; repeat slots whose options are plain texts",
        ),
        (
            "continuation =",
            "continuation = ' {He} {deed}.'",
            "slot.end: the slot is in no template; write {end} in `prompt` or `continuation`",
        ),
        (
            "mood =",
            "mood = []",
            "prompt: slot.mood: no options; give at least one text",
        ),
        (
            "mood =",
            "mood = ['glad', 7]",
            "line 6: invalid type: integer `7`, expected a text or a table { text = \"...\", ... }",
        ),
        (
            "mood =",
            "mood = [{ txt = 'glad' }]",
            "line 6: unknown key `txt`; did you mean `text`?",
        ),
        (
            "mood =",
            "mood = ['glad', { text = 'sad', score = 1 }]",
            "prompt: slot.mood[1]: an option of the prompt has a `score`; only continuations are scored; leave the key out",
        ),
        (
            "mood =",
            "mood = ['glad', { text = 'sad', set = { he = 'it' } }]",
            "prompt: slot.mood[1]: sets he, option 0 sets nothing; every option of a slot sets the same names",
        ),
        (
            "mood =",
            "mood = [{ text = 'glad', set = { he = 'it' } }]",
            "prompt: slot.mood[0]: set: `he` already exists; a name is a slot's, or set by the options of one slot",
        ),
        (
            "mood =",
            "mood = [{ text = 'glad', set = { It = 'it' } }]",
            "prompt: slot.mood[0]: set: `It` is not a name; a name has letters, digits and _, and begins with a small letter",
        ),
        (
            "mood =",
            "mood = [{ text = 'glad', set = { it = '{he}' } }]",
            "prompt: slot.mood[0]: set: `it` is set to \"{he}\"; what is set has no placeholders",
        ),
        (
            fine,
            "{ text = 'Fine', weight = 0 },",
            "continuation: slot.end[0]: weight must be > 0 and finite (got 0)",
        ),
        (
            fine,
            "{ text = 'Fine', score = inf },",
            "continuation: slot.end[0]: `score` is inf; it must be a number",
        ),
        (
            fine,
            "{ text = 'Fine', when = { mod = ['glad'] } },",
            "continuation: slot.end[0]: when: `mod` is not known here; did you mean `mood`?",
        ),
        (
            fine,
            "{ text = 'Fine', when = { mood = ['gald'] } },",
            "continuation: slot.end[0]: when.mood: `mood` is never \"gald\"; did you mean `glad`?",
        ),
        (
            fine,
            "{ text = 'Fine {end}' },",
            "continuation: slot.end[0]: text: `end` is not known here; the slot comes later in the story",
        ),
        (
            fine,
            "{ text = 'Fine', when = { tone = ['up'], mood = ['sad'] } },",
            "slot.end[0]: the option never applies; widen its `when`, or take it out",
        ),
        (
            fine,
            "{ text = 'So she goes' },",
            r#"slot.end[1]: "So she goes!" begins with "So she goes!" of slot.end[0]; a story must be readable in one way only: change a text or a `when`"#,
        ),
        (
            fine,
            "{ text = 'So she goes on! And' },",
            r#"slot.end[0]: "So she goes on! And!" begins with "So she goes on!" of slot.end[2]; a story must be readable in one way only: change a text or a `when`"#,
        ),
        (
            r#"{ text = "sits""#,
            "{ text = 'sits', when = { mood = ['glad'] }, set = { tone = 'down' } },",
            "",
        ),
    ] {
        let found = match Grammar::parse(&changed(line, by)) {
            Ok(_) => String::new(),
            Err(error) => {
                assert_eq!(error.exit_code(), 2);
                error.to_string()
            }
        };
        if found != expected {
            wrong.push_str(&format!("{by}\n  {found}\n  {expected}\n"));
        }
    }
    assert_eq!(wrong, "");
    let gap = changed("{ text = \"kicks", "").replace(
        "{ text = \"sits\"",
        "{ text = \"sits\", when = { mood = [\"glad\"] }",
    );
    assert_eq!(
        Grammar::parse(&gap).unwrap_err().to_string(),
        "slot.deed: no option applies where mood = \"sad\"; add an option without `when`, or widen one"
    );
    let missing = Grammar::open(Path::new("no/such.toml")).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "no/such.toml: no such file or directory"
    );
    for beta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(
            Tilt::dpo(beta).is_err(),
            beta.is_nan() || beta <= 0.0,
            "{beta}"
        );
    }
}
