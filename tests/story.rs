//! The grammar of the stories: its exact numbers against a list of all its stories, its refusals,
//! and the report against numbers computed by hand.

mod oracle;
mod refusals;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use expo::lab::story::{Grammar, Tilt, Tilted, rng};
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
fn the_table_of_the_guide_is_true() {
    let (path, _) = shipped();
    let grammar = Grammar::open(&path).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("src/guide/stories.md")).unwrap();
    let told = page
        .lines()
        .find(|line| line.starts_with("> One sunny day"))
        .unwrap();
    let (prompt, story) = told[2..].trim_end_matches('*').split_once('*').unwrap();
    let scene = grammar.prompt(prompt.trim_end()).expect("a prompt");
    assert!(scene.read(&format!(" {story}")).is_some());
    let mut entropies = Vec::new();
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
            let [score, kl] = [truth.score(), truth.kl().abs()];
            let row = format!("{row} {score:.2} | {kl:.2} |");
            assert!(page.lines().any(|line| line == row), "{row}");
            entropies.push(format!("{:.2}", truth.entropy()));
        }
    }
    entropies.dedup();
    let [grammar, bradley_terry, dpo] = &entropies[..] else {
        panic!("{entropies:?}");
    };
    let entropies = format!("Their entropies are {grammar}, {bradley_terry} and {dpo} nats.");
    assert!(page.contains(&entropies), "{entropies}");
    let all = scene.tilted(Tilt {
        base: 0.0,
        score: 0.0,
    });
    assert_near(all.log_partition(), 7560f64.ln(), "7,560 continuations");
    assert_near(all.best().score, 4.6, "4.6");
}
