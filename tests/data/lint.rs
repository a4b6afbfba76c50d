//! Faults of datasets: every figure is counted by hand.

use expo::data::format::Format;
use expo::data::lint::{Check, SplitReport, lint};
use expo::data::{Files, RowConfig};
use serde_json::{Value, json};

/// The report of rows of a format, and of evaluation rows, by the checks that found something.
fn linted(format: &str, train: &[Value], eval: &[Value]) -> (SplitReport, Option<SplitReport>) {
    linted_as(&RowConfig::new(Format::named(format).unwrap()), train, eval)
}

fn linted_as(
    config: &RowConfig,
    train: &[Value],
    eval: &[Value],
) -> (SplitReport, Option<SplitReport>) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, rows: &[Value]| -> Files {
        let path = folder.path().join(name);
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(&path, lines).unwrap();
        path.into()
    };
    let train = write("train.jsonl", train);
    let eval = (!eval.is_empty()).then(|| write("eval.jsonl", eval));
    let (mut train, mut eval) = lint(&train, eval.as_ref(), config).unwrap();
    let reports = [&mut train].into_iter().chain(&mut eval);
    let places = reports
        .flat_map(|report| &mut report.findings)
        .flat_map(|f| &mut f.first);
    for place in places {
        *place = place.rsplit('/').next().unwrap().to_owned();
    }
    (train, eval)
}

fn pair(prompt: &str, chosen: &str, rejected: &str) -> Value {
    json!({"prompt": prompt, "chosen": chosen, "rejected": rejected})
}

/// Check, rows and places of every finding.
fn found(report: &SplitReport) -> Vec<(Check, usize, Vec<&str>)> {
    report
        .findings
        .iter()
        .map(|finding| {
            let places = finding.first.iter().map(String::as_str).collect();
            (finding.check, finding.rows, places)
        })
        .collect()
}

fn of_pairs(rows: &[Value]) -> Vec<(Check, usize)> {
    let (report, _) = linted("pairs", rows, &[]);
    report
        .findings
        .iter()
        .map(|finding| (finding.check, finding.rows))
        .collect()
}

#[test]
fn repeated_rows_are_named_with_the_row_that_they_repeat() {
    let rows = [
        pair("a", " b", " c"),
        pair("d", " e", " f"),
        pair("a", " b", " c"),
        pair("D ", " E", "  f"),
        pair("a", " c", " b"),
        pair("d", " g", " f"),
        pair("a", " b", " c"),
    ];
    let (report, eval) = linted("pairs", &rows, &[]);
    assert_eq!(eval, None);
    assert_eq!((report.rows, report.usable), (7, 7));
    let duplicates = vec!["train.jsonl:3 = row 0", "train.jsonl:7 = row 0"];
    assert_eq!(
        found(&report),
        [
            (Check::DuplicateRow, 2, duplicates),
            (Check::NearDuplicate, 1, vec!["train.jsonl:4 = row 1"]),
            (Check::DuplicatePrompt, 1, vec!["train.jsonl:6 = row 1"]),
            (Check::Contradiction, 1, vec!["train.jsonl:5 = row 0"]),
            (Check::PromptEnd, 1, vec!["train.jsonl:4"]),
        ]
    );
    assert_eq!(report.findings[0].share, 2.0 / 7.0);
    assert_eq!(report.warnings(), 4);
}

#[test]
fn an_answer_with_both_labels_is_a_contradiction_and_with_one_of_them_a_duplicate() {
    let row = |completion: &str, label: bool| json!({"prompt": "a", "completion": completion, "label": label});
    let rows = [
        row("b", true),
        row("b", false),
        row("b", true),
        row("B", false),
        row("c", false),
    ];
    let (report, _) = linted("unpaired", &rows, &[]);
    let checks: Vec<_> = report.findings.iter().map(|f| (f.check, f.rows)).collect();
    assert_eq!(
        checks,
        [
            (Check::DuplicateRow, 1),
            (Check::NearDuplicate, 1),
            (Check::DuplicatePrompt, 1),
            (Check::Contradiction, 1),
        ]
    );
}

#[test]
fn evaluation_rows_are_looked_for_among_the_training_rows() {
    let train = [pair("a", " b", " c"), pair("d", " e", " f")];
    let eval = [
        pair("a", " b", " c"),
        pair(" A", " x", " y"),
        pair("g", " h", " i"),
        pair("d", " f", " e"),
    ];
    let (report, eval) = linted("pairs", &train, &eval);
    assert_eq!(found(&report), []);
    let eval = eval.unwrap();
    assert_eq!(
        found(&eval),
        [
            (Check::DuplicatePrompt, 1, vec!["eval.jsonl:2 = row 0"]),
            (
                Check::LeakedRow,
                2,
                vec!["eval.jsonl:1 = row 0", "eval.jsonl:4 = row 1"]
            ),
            (Check::LeakedPrompt, 1, vec!["eval.jsonl:2 = row 0"]),
            (Check::PromptBegin, 1, vec!["eval.jsonl:2"]),
        ]
    );
}

#[test]
fn rows_that_cannot_be_used_are_counted_by_reason() {
    let mut rows = vec![
        pair("a", " b", " c"),
        pair("d", " ", " f"),
        json!({"prompt": "g"}),
        json!([1]),
    ];
    rows.push(pair("h", "", " i"));
    let (report, _) = linted("pairs", &rows, &[]);
    assert_eq!((report.rows, report.usable), (5, 1));
    let reasons: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.detail.as_deref(), f.rows))
        .collect();
    assert_eq!(
        reasons,
        [
            (Some("not_an_object"), 1),
            (Some("missing_column"), 1),
            (Some("empty_answer"), 2)
        ]
    );
}

#[test]
fn what_a_row_says_against_itself_is_found() {
    let with = |mut row: Value, columns: Value| {
        let columns = columns.as_object().unwrap().clone();
        row.as_object_mut().unwrap().extend(columns);
        row
    };
    let rows = [
        pair("a", " b", " b"),
        with(
            pair("c", " d", " e"),
            json!({"score_chosen": 1, "score_rejected": 2}),
        ),
        with(
            pair("f", " g", " h"),
            json!({"score_chosen": 2, "score_rejected": 2}),
        ),
        with(pair("i", " j", " k"), json!({"preference": 0.4})),
        with(pair("l", " m", " n"), json!({"preference": 0.5})),
    ];
    assert_eq!(
        of_pairs(&rows),
        [
            (Check::SameAnswers, 1),
            (Check::ScoresDisagree, 1),
            (Check::LabelDisagrees, 1)
        ]
    );
}

#[test]
fn white_space_and_turns_in_texts_are_found() {
    let rows = [
        pair(" \n", " b", " c"),
        pair("d\t", " e", " f"),
        pair("g", "h", " i"),
        pair("j", " k\n\nHuman: l", " m"),
        pair("<|im_start|>user\nn<|im_end|><|im_end|>", " o", " p"),
    ];
    assert_eq!(
        of_pairs(&rows),
        [
            (Check::EmptyPrompt, 1),
            (Check::PromptEnd, 1),
            (Check::AnswersBegin, 1),
            (Check::TurnInAnswer, 1),
            (Check::UnbalancedMarkers, 1),
        ]
    );
    // Transcripts begin with a line end, and their answers with a space.
    let hh = |answer: &str| format!("\n\nHuman: x\n\nAssistant:{answer}");
    let rows = [json!({"chosen": hh(" a"), "rejected": hh(" b")})];
    assert_eq!(found(&linted("hh", &rows, &[]).0), []);
}

#[test]
fn strings_that_go_through_a_template_may_have_spaces_but_no_markers() {
    let mut config = RowConfig::new(Format::named("pairs").unwrap());
    config.tokens.apply_chat_template = true;
    let rows = [pair(" a ", "b", " c"), pair("[INST] d", "e", "f")];
    let (report, _) = linted_as(&config, &rows, &[]);
    assert_eq!(
        found(&report),
        [(Check::RoleMarker, 1, vec!["train.jsonl:2"])]
    );
}

#[test]
fn conversations_have_their_turns_in_order_and_no_markers() {
    let turns = |roles: &[(&str, &str)]| -> Value {
        let message = |(role, content): &(&str, &str)| json!({"role": role, "content": content});
        json!({"messages": roles.iter().map(message).collect::<Vec<_>>()})
    };
    let (user, assistant) = (("user", "a"), ("assistant", "bcd"));
    let rows = [
        turns(&[
            ("system", "s"),
            user,
            assistant,
            ("user", "e"),
            ("assistant", "f"),
        ]),
        turns(&[user, ("user", "g"), assistant]),
        turns(&[
            ("user", "h"),
            ("assistant", "i"),
            ("tool", "j"),
            ("assistant", "k"),
        ]),
        turns(&[("user", "l <|im_end|>"), assistant]),
    ];
    let (report, _) = linted("sft", &rows, &[]);
    assert_eq!(
        found(&report),
        [
            (Check::RoleMarker, 1, vec!["train.jsonl:4"]),
            (Check::TurnOrder, 1, vec!["train.jsonl:2"]),
        ]
    );
    let statistics = &report.statistics;
    // Messages 5, 3, 4, 2; turns of the assistant 2, 1, 2, 1.
    assert_eq!(
        (statistics.messages.count, statistics.messages.mean),
        (4, 3.5)
    );
    assert_eq!(
        (
            statistics.assistant_turns.mean,
            statistics.assistant_turns.spread.max
        ),
        (1.5, 2)
    );
    // Prompts are what stands before the first answer: sa, ag, h, l <|im_end|>.
    assert_eq!(
        (statistics.prompt.mean, statistics.prompt.spread.max),
        (17.0 / 4.0, 12)
    );
    // The assistant says bcdf, bcd, ik, bcd.
    assert_eq!(
        (statistics.chosen.mean, statistics.chosen.spread.median),
        (3.0, 3)
    );
    assert_eq!(statistics.length_bias, None);
}

#[test]
fn damaged_texts_are_found_by_kind() {
    let rows = [
        pair("a\u{0}", " b", " c"),
        pair("d", " e\u{fffd}", " f"),
        pair("g", " h", " cafÃ©"),
        pair("i\u{200b}", " j", " k"),
        pair("l", " m\u{e000}", " n"),
        pair("o", " café 漢字 🙂", " p"),
    ];
    assert_eq!(
        of_pairs(&rows),
        [
            (Check::ControlCharacter, 1),
            (Check::ReplacementCharacter, 1),
            (Check::Mojibake, 1),
            (Check::InvisibleCharacter, 1),
            (Check::PrivateCharacter, 1),
        ]
    );
}

#[test]
fn a_script_is_rare_below_one_row_in_a_thousand() {
    let rows = |thai: usize| -> Vec<Value> {
        let row = |row: usize| match row < thai {
            true => pair(&format!("ไทย {row}"), " a", " b"),
            false => pair(&format!("word {row}"), " a", " b"),
        };
        (0..2001).map(row).collect()
    };
    let (report, _) = linted("pairs", &rows(2), &[]);
    assert_eq!(
        found(&report),
        [(Check::RareScript, 2, vec!["train.jsonl:1", "train.jsonl:2"])]
    );
    assert_eq!(report.findings[0].detail.as_deref(), Some("Thai"));
    assert_eq!(report.warnings(), 0);
    assert_eq!(found(&linted("pairs", &rows(3), &[]).0), []);
}

#[test]
fn a_length_that_tells_the_chosen_answer_is_found() {
    let rows: Vec<Value> = (0..100)
        .map(|row| {
            pair(
                &format!("{row}"),
                if row < 70 { " long" } else { " l" },
                " bcd",
            )
        })
        .collect();
    let (report, _) = linted("pairs", &rows, &[]);
    assert_eq!(found(&report), [(Check::LengthBias, 70, vec![])]);
    let bias = report.statistics.length_bias.unwrap();
    assert_eq!((bias.pairs, bias.chosen_longer, bias.equal), (100, 70, 0));
    // 70 are one longer, 30 two shorter.
    assert_eq!(bias.mean_difference, 0.1);
    assert_eq!(
        (
            report.statistics.chosen.mean,
            report.statistics.rejected.mean
        ),
        (4.1, 4.0)
    );
}

#[test]
fn labels_that_are_nearly_all_the_same_are_found() {
    let rows = |bad: usize, all: usize| -> Vec<(Check, usize)> {
        let row =
            |row: usize| json!({"prompt": row.to_string(), "completion": "a", "label": row >= bad});
        let rows: Vec<Value> = (0..all).map(row).collect();
        let (report, _) = linted("unpaired", &rows, &[]);
        report
            .findings
            .iter()
            .map(|finding| (finding.check, finding.rows))
            .collect()
    };
    assert_eq!(rows(9, 100), [(Check::LabelImbalance, 91)]);
    assert_eq!(rows(10, 100), []);
    assert_eq!(rows(3, 3), [(Check::LabelImbalance, 3)]);
    assert_eq!(rows(0, 3), [(Check::LabelImbalance, 3)]);
    assert_eq!(rows(1, 20), []);
}

#[test]
fn many_chunks_and_threads_find_what_one_does() {
    let text = "word ".repeat(3000);
    let rows: Vec<Value> = (0..1500)
        .map(|row| pair(&format!("{} {text}", row % 700), &format!(" {row}"), " x"))
        .collect();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| linted("pairs", &rows, &[]).0)
    };
    let (one, three) = (run(1), run(3));
    assert_eq!(one, three);
    let duplicates = one
        .findings
        .iter()
        .find(|f| f.check == Check::DuplicatePrompt)
        .unwrap();
    assert_eq!(
        (duplicates.rows, duplicates.first[0].as_str()),
        (800, "train.jsonl:701 = row 0")
    );
}
