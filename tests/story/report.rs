//! The report against numbers computed by hand.

use expo::lab::story::{Answers, Estimate, Grammar, Report, Sample, Tilt};

use super::{SMALL, assert_near};

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
        lines.iter().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        words(lines[0]),
        "before after grammar BT optimum DPO beta 0.5"
    );
    assert_eq!(
        words(lines[1]),
        "in the grammar 50.0% ± 0.0% 0.0% ± 0.0% 100.0% 100.0% 100.0%"
    );
    assert!(
        words(lines[2]).starts_with("score 0.62 ± 0.88 - "),
        "{text}"
    );
    assert!(
        lines[7].starts_with("2 prompts, 2 samples of each, ± one standard error; "),
        "{text}"
    );
    // No story after training: no change, so the order of the prompts.
    assert_eq!(report.median_change, None);
    assert_eq!(lines[10], "Ann is glad.");
    assert_eq!(lines[11], "  before  +1.5  She sings. Fine!");
    assert_eq!(lines[12], "  after      -  She sings. Fine!");
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["columns"][0]["in_grammar"]["value"], 0.5);
    assert_eq!(value["examples"][0]["before"]["score"], 1.5);
}

#[test]
fn the_stories_shown_are_those_whose_change_in_score_is_typical() {
    let grammar = Grammar::parse(SMALL).unwrap();
    // Scores of the grammar's stories about Ann, by reading them.
    let prompt = grammar.prompt("Ann is glad.").unwrap();
    let score = |text: &str| prompt.read(text).unwrap().score;
    let (low, high) = (" She kicks Ann. Fine!", " She sings. Fine!");
    let rise = score(high) - score(low);
    assert!(rise > 0.0);
    let answers: Vec<Answers> = [
        (high, low),
        (low, high),
        (low, low),
        (low, high),
        (" Blah.", low),
    ]
    .iter()
    .map(|(before, after)| Answers {
        prompt: "Ann is glad.".to_owned(),
        before: vec![sample(before, -1.0, -1.0)],
        after: vec![sample(after, -1.0, -1.0)],
    })
    .collect();
    let report = Report::new(&grammar, &answers, 0.5, 0).unwrap();
    // -rise, 0, rise, rise: the median is rise / 2, to which 0 and rise are equally near.
    assert_near(report.median_change.unwrap(), rise / 2.0, "the median");
    let shown = report
        .examples
        .iter()
        .map(|e| e.after.score.unwrap() - e.before.score.unwrap());
    assert_eq!(shown.collect::<Vec<_>>(), [rise, 0.0, rise]);
    assert!(report.to_string().contains("nearest the median, "));
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
