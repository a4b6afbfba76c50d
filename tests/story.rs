//! The grammar of the stories: its exact numbers against a list of all its stories, its refusals,
//! and the report against numbers computed by hand.

mod oracle;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use expo::story::{Answers, Estimate, Grammar, Report, Sample, Tilt, Tilted, rng};
use oracle::{Listed, prompts, stories};

const SMALL: &str = r#"
prompt = "{name} is {mood}."
continuation = " {He} {deed}. {end}!"
[slot]
name = [{ text = "Ann", set = { he = "she" } }, { text = "Bob", weight = 3, set = { he = "he" } }]
mood = ["glad", "sad"]
deed = [
    { text = "sings", weight = 2, score = 0.5, when = { mood = ["glad"] }, set = { tone = "up" } },
    { text = "sits", set = { tone = "down" } },
    { text = "kicks {name}", weight = 0.5, score = -1, set = { tone = "down" } },
]
end = [
    { text = "Fine", score = 1 },
    { text = "So {he} goes", weight = 3, score = -0.25, when = { tone = ["down"] } },
    { text = "So {he} goes on", weight = 2, score = 0.125 },
]
"#;

fn shipped() -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart/grammar.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

fn tilts() -> [Tilt; 5] {
    let odd = Tilt {
        base: 0.3,
        score: -1.7,
    };
    let [dpo, sharp] = [0.5, 1e-3].map(|beta| Tilt::dpo(beta).unwrap());
    [Tilt::GRAMMAR, Tilt::BRADLEY_TERRY, dpo, sharp, odd]
}

fn assert_near(found: f64, expected: f64, what: &str) {
    let scale = expected.abs().max(1.0);
    assert!(
        (found - expected).abs() < 1e-12 * scale,
        "{what}: {found} {expected}"
    );
}

/// Holds a tilted distribution equal to sums over the listed stories.
fn assert_sums(tilted: &Tilted, tilt: Tilt, listed: &[Listed]) {
    let exponent = |story: &Listed| tilt.base * story.q.ln() + tilt.score * story.score;
    let top = listed.iter().map(exponent).fold(f64::MIN, f64::max);
    let total: f64 = listed
        .iter()
        .map(|story| (exponent(story) - top).exp())
        .sum();
    let log_z = top + total.ln();
    let log_p = |story: &Listed| exponent(story) - log_z;
    let mean = |of: &dyn Fn(&Listed) -> f64| -> f64 {
        listed
            .iter()
            .map(|story| log_p(story).exp() * of(story))
            .sum()
    };
    assert_near(tilted.log_partition(), log_z, "log Z");
    assert_near(tilted.score(), mean(&|story| story.score), "score");
    assert_near(tilted.entropy(), mean(&|story| -log_p(story)), "entropy");
    let kl = mean(&|story| log_p(story) - story.q.ln());
    assert_near(tilted.kl(), kl, "KL");
    let best = listed
        .iter()
        .map(|story| story.score)
        .fold(f64::MIN, f64::max);
    assert_near(tilted.best().score, best, "best");
}

fn assert_all_sums(grammar: &Grammar, prompt: &str, listed: &[Listed]) {
    let scene = grammar.prompt(prompt).expect("a prompt of the grammar");
    for tilt in tilts() {
        assert_sums(&scene.tilted(tilt), tilt, listed);
    }
}

#[test]
fn the_sums_are_those_over_all_stories() {
    let grammar = Grammar::parse(SMALL).unwrap();
    for (prompt, env) in prompts(SMALL) {
        assert_all_sums(&grammar, &prompt, &stories(SMALL, &env));
    }
}

#[test]
fn the_shipped_grammars_sums_are_those_over_all_its_stories() {
    let (_, text) = shipped();
    let env = [
        ("time", "One day"),
        ("name", "Mia"),
        ("he", "she"),
        ("his", "her"),
        ("place", "the beach"),
        ("toy", "red ball"),
        ("size", "small"),
        ("animal", "crab"),
        ("state", "lost"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let listed = stories(&text, &env.into());
    let prompt = "One day, Mia went to the beach with her red ball. There she met a small crab that was lost.";
    assert_eq!(listed.len(), 7560);
    let grammar = Grammar::parse(&text).unwrap();
    assert_all_sums(&grammar, prompt, &listed);
    let scene = grammar.prompt(prompt).unwrap();
    for story in &listed {
        let read = scene.read(&story.text).expect("a story of the list");
        assert_near(read.score, story.score, "score");
        assert_near(read.log_prob, story.q.ln(), "log q");
    }
}

#[test]
fn every_story_of_the_list_is_read_and_no_other_text() {
    let grammar = Grammar::parse(SMALL).unwrap();
    for (prompt, env) in prompts(SMALL) {
        let scene = grammar.prompt(&prompt).unwrap();
        for listed in stories(SMALL, &env) {
            let story = scene.read(&listed.text).expect("a story of the list");
            assert_near(story.score, listed.score, "score");
            assert_near(story.log_prob, listed.q.ln(), "log q");
            for tilt in tilts() {
                let tilted = scene.tilted(tilt);
                let energy = tilt.base * listed.q.ln() + tilt.score * listed.score;
                assert_near(
                    tilted.log_prob(&story),
                    energy - tilted.log_partition(),
                    "log p",
                );
            }
            for other in [format!("{} ", listed.text), listed.text[1..].to_owned()] {
                assert_eq!(scene.read(&other), None, "{other:?}");
            }
        }
    }
    let sad = grammar.prompt("Ann is sad.").unwrap();
    let story = sad.read(" She kicks Ann. So she goes!").unwrap();
    assert_eq!(story.choices, [2, 1]);
    assert_eq!(story.score, -1.25);
    assert_near(story.log_prob, (0.5f64 / 1.5 * 3.0 / 6.0).ln(), "log q");
    for strange in [
        "",
        " She",
        " She sings. Fine!",
        " He sits. Fine!",
        " She kicks Bob. Fine!",
    ] {
        assert_eq!(sad.read(strange), None, "{strange:?}");
    }
    for strange in ["", "Ann is", "Ann is mad.", "Ann is sad. ", "she is sad."] {
        assert!(grammar.prompt(strange).is_none(), "{strange:?}");
    }
}

#[test]
fn draws_have_the_frequencies_of_their_distribution() {
    const DRAWS: usize = 40_000;
    let grammar = Grammar::parse(SMALL).unwrap();
    let scene = grammar.prompt("Bob is glad.").unwrap();
    let within = |count: usize, p: f64, what: &str| {
        let (expected, sd) = (p * DRAWS as f64, (p * (1.0 - p) * DRAWS as f64).sqrt());
        let off = (count as f64 - expected).abs();
        assert!(
            off < 4.5 * sd + 1e-9,
            "{what}: {count}, not about {expected}"
        );
    };
    for (stream, tilt) in tilts().into_iter().enumerate() {
        let tilted = scene.tilted(tilt);
        let mut counts = BTreeMap::new();
        let mut rng = rng(7, stream as u64);
        for _ in 0..DRAWS {
            let story = tilted.draw(&mut rng);
            assert_eq!(scene.read(&story.text), Some(story.clone()));
            *counts.entry(story.text).or_insert(0) += 1;
        }
        let env = &prompts(SMALL)["Bob is glad."];
        let listed = stories(SMALL, env);
        for story in &listed {
            let count = counts.remove(&story.text).unwrap_or(0);
            let read = scene.read(&story.text).unwrap();
            within(count, tilted.log_prob(&read).exp(), &story.text);
        }
        assert!(counts.is_empty(), "{counts:?}");
    }
    let mut rng = rng(0, 0);
    let bobs = (0..DRAWS).filter(|_| grammar.draw_prompt(&mut rng).starts_with("Bob"));
    within(bobs.count(), 0.75, "Bob");
}

#[test]
fn a_seed_means_the_same_stories_for_ever() {
    let grammar = Grammar::parse(SMALL).unwrap();
    let draw = |seed, stream| {
        let mut rng = rng(seed, stream);
        let prompt = grammar.draw_prompt(&mut rng);
        let story = grammar
            .prompt(&prompt)
            .unwrap()
            .tilted(Tilt::GRAMMAR)
            .draw(&mut rng);
        prompt + &story.text
    };
    assert_eq!(draw(0, 0), draw(0, 0));
    let drawn: Vec<String> = (0..4).map(|seed| draw(seed, 1)).collect();
    assert_eq!(drawn, DRAWN);
}

const DRAWN: [&str; 4] = [
    "Bob is glad. He sings. So he goes on!",
    "Bob is glad. He sings. Fine!",
    "Bob is glad. He sings. So he goes on!",
    "Bob is sad. He sits. So he goes!",
];

/// What the quickstart promises of its grammar.
#[test]
fn the_shipped_grammar_is_worth_learning() {
    let (path, _) = shipped();
    let grammar = Grammar::open(&path).unwrap();
    let mut rng = rng(0, 0);
    for _ in 0..20 {
        let prompt = grammar.draw_prompt(&mut rng);
        let scene = grammar.prompt(&prompt).unwrap();
        let at = |score: f64| scene.tilted(Tilt { base: 1.0, score });
        let truth = at(0.0);
        assert!((5.0..9.0).contains(&truth.entropy()), "{}", truth.entropy());
        // The derivative of the expected score along the tilt is its variance.
        let variance = (at(1e-4).score() - at(-1e-4).score()) / 2e-4;
        assert!((1.0..1.5).contains(&variance.sqrt()), "{variance}");
        let stories = scene.tilted(Tilt {
            base: 0.0,
            score: 0.0,
        });
        assert!(stories.entropy() > 5000f64.ln());
        let aim = scene.tilted(Tilt::BRADLEY_TERRY);
        assert!(aim.score() > truth.score() + 1.0);
        let dpo = scene.tilted(Tilt::dpo(0.1).unwrap());
        assert!(dpo.score() > truth.best().score - 0.2 && dpo.entropy() < 1.5);
        for _ in 0..100 {
            let story = truth.draw(&mut rng).text;
            let [asked, told] = [&prompt, &story].map(|text| text.split_whitespace().count());
            assert!(
                (15..=40).contains(&told) && asked + told <= 62,
                "{prompt}{story}"
            );
            let text = prompt.clone() + &story;
            assert!(!text.contains("  ") && text.ends_with('.'), "{text}");
        }
    }
}

#[test]
fn the_table_of_the_readme_is_true() {
    let (path, _) = shipped();
    let grammar = Grammar::open(&path).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let told = readme
        .lines()
        .find(|line| line.starts_with("> One sunny day"))
        .unwrap();
    let (prompt, story) = told[2..].trim_end_matches('*').split_once('*').unwrap();
    let scene = grammar.prompt(prompt.trim_end()).expect("a prompt");
    assert!(scene.read(&format!(" {story}")).is_some());
    for (row, tilt) in [
        ("| the grammar | q |", Tilt::GRAMMAR),
        ("| Bradley-Terry | e^s |", Tilt::BRADLEY_TERRY),
        ("| DPO, beta 0.1 | q e^(s / 0.1) |", Tilt::dpo(0.1).unwrap()),
    ] {
        let mut rng = rng(0, 0);
        // The numbers are those of every prompt.
        for _ in 0..20 {
            let prompt = grammar.draw_prompt(&mut rng);
            let scene = grammar.prompt(&prompt).unwrap();
            let truth = scene.tilted(tilt);
            let [score, entropy, kl] = [truth.score(), truth.entropy(), truth.kl().abs()];
            let row = format!("{row} {score:.2} | {entropy:.2} | {kl:.2} |");
            assert!(readme.lines().any(|line| line == row), "{row}");
        }
    }
    let all = scene.tilted(Tilt {
        base: 0.0,
        score: 0.0,
    });
    assert_near(all.log_partition(), 7560f64.ln(), "7,560 continuations");
    assert_near(all.best().score, 4.6, "4.6");
}

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
            "prompt: slot.mood[0]: set: `he` is there already; a name is a slot's, or set by the options of one slot",
        ),
        (
            "mood =",
            "mood = [{ text = 'glad', set = { It = 'it' } }]",
            "prompt: slot.mood[0]: set: `It` is no name; a name has letters, digits and _, and begins with a small letter",
        ),
        (
            "mood =",
            "mood = [{ text = 'glad', set = { it = '{he}' } }]",
            "prompt: slot.mood[0]: set: `it` is set to \"{he}\"; what is set has no placeholders",
        ),
        (
            fine,
            "{ text = 'Fine', weight = 0 },",
            "continuation: slot.end[0]: `weight` is 0; it must be above 0",
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
    assert_eq!(missing.to_string(), "no/such.toml: no such file or folder");
    for beta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(
            Tilt::dpo(beta).is_err(),
            beta.is_nan() || beta <= 0.0,
            "{beta}"
        );
    }
}

fn sample(text: &str, log_prob: f64, reference: f64) -> Sample {
    Sample {
        text: text.to_owned(),
        log_prob,
        reference,
        finished: true,
    }
}

fn answers() -> Vec<Answers> {
    let before = [
        [
            sample(" She sings. Fine!", -1.0, -1.0),
            sample(" blah blah", -3.0, -2.0),
        ],
        [
            sample(" He sits. Fine!", -2.0, -2.0),
            sample(" He sits. So he goes!", -2.0, -4.0),
        ],
    ];
    let cut = Sample {
        finished: false,
        ..sample(" She sings. Fine!", -1.0, -2.0)
    };
    let after = [
        [cut.clone(), cut],
        [sample(" x", -0.5, -0.5), sample(" x", -1.5, -4.5)],
    ];
    let prompts = ["Ann is glad.", "Bob is sad."];
    let both = before.into_iter().zip(after).zip(prompts);
    both.map(|((before, after), prompt)| Answers {
        prompt: prompt.to_owned(),
        before: before.into(),
        after: after.into(),
    })
    .collect()
}

/// With sums a and counts b per prompt, the value is v = sum a / sum b and its error, for two
/// prompts, sqrt(2 sum (a - v b)^2) / sum b.
#[test]
fn the_report_has_the_numbers_computed_by_hand() {
    let grammar = Grammar::parse(SMALL).unwrap();
    let report = Report::new(&grammar, &answers(), 0.5, 0).unwrap();
    let [before, after, truth, aim, dpo] = &report.columns;
    let is = |found: Estimate, value: f64, error: f64| {
        assert_near(found.value, value, "value");
        assert_near(found.error.unwrap(), error, "error");
    };
    // 1 of 2 and 2 of 2 are stories; their scores are 1.5; 1 and -0.25.
    is(before.in_grammar, 0.75, 0.25);
    is(before.score.unwrap(), 0.75, 0.5);
    is(before.entropy, 2.0, 0.0);
    // log pi - log r: 0 and -1; 0 and 2.
    is(before.kl, 0.25, 0.75);
    // 4 of 5 words (blah twice), 6 of 8 (He sits. twice); all of 3 pairs, 5 of 6.
    is(before.distinct_1, 0.775, 0.025);
    is(before.distinct_2, 11.0 / 12.0, 1.0 / 12.0);
    // A story cut at a limit did not end, so it is none.
    is(after.in_grammar, 0.0, 0.0);
    assert_eq!(after.score, None);
    is(after.entropy, 1.0, 0.0);
    is(after.kl, 1.25, 0.25);
    is(after.distinct_1, 0.5, 0.0);
    is(after.distinct_2, 0.25, 0.25);

    let scenes = ["Ann is glad.", "Bob is sad."].map(|prompt| grammar.prompt(prompt).unwrap());
    for (column, tilt) in [
        (truth, Tilt::GRAMMAR),
        (aim, Tilt::BRADLEY_TERRY),
        (dpo, Tilt::dpo(0.5).unwrap()),
    ] {
        let [one, two] = [0, 1].map(|i: usize| scenes[i].tilted(tilt));
        let exact = |found: Estimate, one: f64, two: f64| {
            assert_near(found.value, (one + two) / 2.0, &column.name);
            assert_eq!(found.error, None);
        };
        exact(column.score.unwrap(), one.score(), two.score());
        exact(column.entropy, one.entropy(), two.entropy());
        exact(column.kl, one.kl(), two.kl());
        exact(column.in_grammar, 1.0, 1.0);
        assert!(column.distinct_1.value > 0.0 && column.distinct_1.error.is_some());
    }
    assert_near(truth.kl.value, 0.0, "KL of the grammar from itself");
    assert!(dpo.score.unwrap().value > truth.score.unwrap().value);
}

#[test]
fn the_report_fits_a_terminal_and_is_json() {
    let grammar = Grammar::parse(SMALL).unwrap();
    let mut answers = answers();
    answers[1].before[0].text = " He sits. ".to_owned() + &"and sits ".repeat(30);
    let report = Report::new(&grammar, &answers, 0.5, 0).unwrap();
    let text = report.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines.iter().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        words(lines[0]),
        "before after grammar Bradley-Terry DPO beta 0.5"
    );
    assert_eq!(
        words(lines[1]),
        "in the grammar 50.0% ± 0.0% 0.0% ± 0.0% 100.0% 100.0% 100.0%"
    );
    assert!(
        words(lines[2]).starts_with("score 0.62 ± 0.88 - "),
        "{text}"
    );
    assert_eq!(
        lines[7],
        "2 prompts, 2 samples of each; entropy and KL in nats per story"
    );
    assert_eq!(lines[9], "Ann is glad.");
    assert_eq!(lines[10], "  before  +1.5  She sings. Fine!");
    assert_eq!(lines[11], "  after      -  She sings. Fine!");
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["columns"][0]["in_grammar"]["value"], 0.5);
    assert_eq!(value["examples"][0]["before"]["score"], 1.5);
}

#[test]
fn the_report_refuses_what_it_cannot_compare() {
    let grammar = Grammar::parse(SMALL).unwrap();
    let refused = |change: &dyn Fn(&mut Vec<Answers>)| {
        let mut answers = answers();
        change(&mut answers);
        Report::new(&grammar, &answers, 0.5, 0)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&|answers| answers.clear()).starts_with("no samples; "));
    assert_eq!(
        refused(&|answers| answers[1].prompt = "Eve is sad.".to_owned()),
        "no prompt of the grammar: \"Eve is sad.\"; draw prompts from the same grammar"
    );
    assert_eq!(
        refused(&|answers| answers[1].after.truncate(1)),
        "2 and 1 samples of \"Bob is sad.\"; distinct-n compares equal numbers, here 2 before and after"
    );
    assert_eq!(
        refused(&|answers| answers[0].after[0].reference = f64::NAN),
        "a log-prob of a sample of \"Ann is glad.\" is not finite"
    );
}
