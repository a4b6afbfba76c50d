//! Pages as text: whole, right, and harmless.

use super::*;

/// Elements that have no end.
const VOID: [&str; 1] = ["meta"];

/// Every tag has its end, in order, and every attribute is quoted. Returns the ids.
fn well_formed(page: &str) -> Vec<String> {
    let mut rest = page.strip_prefix("<!DOCTYPE html>\n").expect("a doctype");
    let (mut open, mut ids): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "a stray > in {:?}", &rest[..at]);
        let end = at + rest[at..].find('>').expect("an end of the tag");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "before {:.60}", rest);
            continue;
        }
        let itself = tag.ends_with('/');
        let (name, mut attributes) = tag
            .trim_end_matches('/')
            .split_once(' ')
            .unwrap_or((tag, ""));
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "<{tag}>");
        while !attributes.trim().is_empty() {
            let Some((key, value)) = attributes.split_once("=\"") else {
                assert!(["open"].contains(&attributes.trim()), "<{tag}>");
                break;
            };
            let (value, more) = value.split_once('"').expect("a closing quote");
            assert!(!value.contains('<'), "<{tag}>");
            let key = key.trim().trim_start_matches("open ");
            assert!(
                !key.starts_with("on") && key != "style" && key != "src",
                "<{tag}>"
            );
            assert!(key != "href" || value.starts_with('#'), "<{tag}>");
            if key == "id" {
                ids.push(value.to_owned());
            }
            attributes = more;
        }
        if itself || VOID.contains(&name) {
            continue;
        }
        if ["script", "style"].contains(&name) {
            let end = format!("</{name}>");
            let at = rest.find(&end).expect("its end");
            assert!(!rest[..at].contains("<!--"), "a comment in {name}");
            rest = &rest[at + end.len()..];
            continue;
        }
        open.push(name.to_owned());
    }
    assert!(open.is_empty(), "{open:?}");
    let mut sorted = ids.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), ids.len(), "an id is there twice");
    ids
}

const SECTIONS: [&str; 9] = [
    "overview", "curves", "speed", "samples", "pairs", "events", "figures", "data", "config",
];

#[test]
fn a_run_has_every_section_and_the_numbers_of_its_records() {
    let page = page_of(&[whole()], None);
    let ids = well_formed(&page);
    for section in SECTIONS {
        assert!(
            ids.iter().any(|id| id == section),
            "no {section} in {ids:?}"
        );
    }
    assert!(
        !page.contains("class=\"missing\"><code>run"),
        "something is missing"
    );
    let (data, records) = (data(&page), records(whole()));
    assert_eq!(data["refresh"], Value::Null);
    let names: std::collections::BTreeSet<&String> = records
        .iter()
        .flat_map(|r| r.as_object().unwrap().keys())
        .collect();
    let mut seen = 0;
    for name in names {
        let (figure, split) = match name.strip_prefix("eval_") {
            Some(figure) => (figure, "evaluation"),
            None => (name.as_str(), "training"),
        };
        // The strict accuracy is in the table alone.
        if ["step", "epoch", "num_tokens", "rewards/accuracies"].contains(&figure) {
            continue;
        }
        let (chart, label) = match figure.rsplit_once('/') {
            Some((
                start @ ("rewards" | "logps" | "log_ratios"),
                side @ ("chosen" | "rejected"),
            )) => (format!("{start}/chosen"), format!("{side}, {split}")),
            _ => (figure.to_owned(), split.to_owned()),
        };
        assert_eq!(
            drawn(&data, &chart, &label),
            points(&records, name),
            "{name}"
        );
        // The table has the ends with all their digits.
        for (_, value) in [
            points(&records, name)[0],
            *points(&records, name).last().unwrap(),
        ] {
            let exact = format!("<data value=\"{}\">", Value::from(value));
            assert!(page.contains(&exact), "{name}: no {exact}");
        }
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn samples_pairs_checkpoints_and_interruptions_are_those_of_the_files() {
    let page = page_of(&[whole()], None);
    let text = fs::read_to_string(whole().join("generations.jsonl")).unwrap();
    let answers: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    // Before the first step, and after the steps 2, 3 (the end, then), 4 and 6, three prompts each.
    let steps: Vec<u64> = answers
        .iter()
        .map(|a| a["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [0, 0, 0, 2, 2, 2, 3, 3, 3, 4, 4, 4, 6, 6, 6]);
    for answer in &answers {
        let exact = format!("log-prob <data value=\"{}\">", answer["log_prob"]);
        assert!(page.contains(&exact), "no {exact}");
        assert!(answer["tokens"].as_u64().unwrap() <= 6 && answer["log_prob"].as_f64() < Some(0.0));
    }
    assert!(page.contains("<h4>Reference</h4>") && page.contains("<h4>Policy after step 6</h4>"));
    let margins = crate::support::json(&whole().join("margins.json"));
    assert_eq!(
        (&margins["step"], &margins["pairs"]),
        (&json!(6), &json!(12))
    );
    let of = |key: &str| -> Vec<f64> {
        let pairs = margins[key].as_array().unwrap().iter();
        pairs.map(|pair| pair["margin"].as_f64().unwrap()).collect()
    };
    let (largest, smallest) = (of("largest"), of("smallest"));
    assert!(largest[0] >= largest[1] && largest[1] >= smallest[1] && smallest[1] >= smallest[0]);
    for pair in margins["largest"].as_array().unwrap() {
        let reward = |side: &str| pair[side]["reward"].as_f64().unwrap();
        assert_eq!(
            pair["margin"].as_f64().unwrap(),
            reward("chosen") - reward("rejected")
        );
        // DPO's reward is beta times the log-ratio.
        let side = &pair["chosen"];
        let ratio =
            side["log_prob"].as_f64().unwrap() - side["reference_log_prob"].as_f64().unwrap();
        assert!((reward("chosen") - 0.1 * ratio).abs() < 1e-12);
        assert!(page.contains(&format!("Margin <data value=\"{}\">", pair["margin"])));
    }
    // The mean over all pairs lies between the extremes.
    let records = records(whole());
    let mean = points(&records, "eval_rewards/margins").last().unwrap().1;
    assert!(smallest[0] <= mean && mean <= largest[0]);
    for what in [
        "<code>checkpoint-3</code>",
        "resumed from the checkpoint of this step",
        "<code>run.max_steps</code> changed from <code>3</code> to <code>6</code>",
        "finished</span>",
        "step 6 of 6",
    ] {
        assert!(page.contains(what), "no {what}");
    }
}

#[test]
fn no_text_of_a_folder_becomes_markup() {
    let folder = hostile(1);
    for page in [
        page_of(&[folder.path()], Some(3)),
        page_of(&[folder.path(), whole()], None),
    ] {
        well_formed(&page);
        assert!(!page.contains("<script>document") && !page.contains("<img"));
        assert_eq!(page.matches("<script").count(), 2);
    }
    let page = page_of(&[folder.path()], None);
    assert_eq!(
        drawn(&data(&page), "loss", "training"),
        [(1.0, 0.5), (2.0, 0.25)]
    );
    // A null is a gap, not a zero.
    assert_eq!(
        data(&page)["charts"]["kl"]["lines"][0]["y"],
        json!([null, 0.5])
    );
}

#[test]
fn nothing_in_a_page_asks_the_network() {
    let page = page_of(&[whole()], Some(5)) + &page_of(&[whole(), whole()], None);
    let page = page
        .replace("http://www.w3.org/2000/svg", "")
        .replace("http-equiv", "");
    for word in [
        "http:", "https:", "url(", "@import", "fetch(", "XMLHttp", "src=", "import(",
    ] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn a_page_that_is_written_anew_loads_itself_anew_and_an_ended_one_does_not() {
    let going = page_of(&[whole()], Some(7));
    assert_eq!(data(&going)["refresh"], 7);
    assert!(going.contains("<noscript><meta http-equiv=\"refresh\" content=\"7\"></noscript>"));
    assert!(!page_of(&[whole()], None).contains("http-equiv=\"refresh\""));
}

fn run_json(loss: &str) -> (&'static str, String) {
    ("run.json", json!({"loss": loss, "hashes": {}}).to_string())
}

#[test]
fn what_is_not_there_says_how_to_get_it() {
    for (files, says) in [
        (
            vec![run_json("dpo")],
            &[
                "No record yet",
                "No timings yet",
                "run.eval_prompts",
                "data.eval",
                "run.save_steps",
            ][..],
        ),
        (
            vec![
                run_json("dpo"),
                (
                    "metrics.jsonl",
                    lines([json!({"step": 0, "epoch": 0.0, "eval_loss": 0.7})]),
                ),
            ],
            &["No training record yet"],
        ),
        (
            vec![
                run_json("sft"),
                (
                    "config.toml",
                    "[data]\neval = \"x\"\n[run]\nmax_steps = 9\neval_margins = 0\n".into(),
                ),
                (
                    "metrics.jsonl",
                    lines([json!({"step": 1, "epoch": 0.5, "loss": 0.7})]) + "{\"step\": 2, \"lo",
                ),
            ],
            &[
                "No evaluation",
                "No rewards of pairs",
                "No KL",
                "step 1 of 9",
                "is 0; it is the number",
            ],
        ),
    ] {
        let folder = by_hand(&files);
        let page = page_of(&[folder.path()], None);
        well_formed(&page);
        for what in says {
            assert!(page.contains(what), "no {what} in {page}");
        }
        assert!(
            !page.contains("class=\"warning\""),
            "half a line is no damage"
        );
        assert!(page.contains("not finished"));
    }
}

#[test]
fn damaged_lines_are_named_and_the_others_are_shown() {
    let text = "{\"step\":1,\"loss\":0.5}\nno record\n[1]\n{\"step\":2,\"loss\":0.25}\n";
    let folder = by_hand(&[run_json("dpo"), ("metrics.jsonl", text.into())]);
    let page = page_of(&[folder.path()], None);
    assert_eq!(
        drawn(&data(&page), "loss", "training"),
        [(1.0, 0.5), (2.0, 0.25)]
    );
    for line in [
        "metrics.jsonl:2: not a record",
        "metrics.jsonl:3: not a record",
    ] {
        assert!(page.contains(line), "{line}");
    }
}

#[test]
fn a_long_run_makes_a_small_page_that_says_what_it_draws() {
    let record = |step: u64| {
        let x = (step as f64 * 0.001).sin();
        json!({"step": step, "epoch": 0.1, "loss": x, "rewards/margins": 2.0 * x, "grad_norm": x + 2.0})
    };
    let folder = by_hand(&[
        run_json("dpo"),
        ("metrics.jsonl", lines((1..=20_000).map(record))),
    ]);
    let page = page_of(&[folder.path()], None);
    assert!(page.len() < 400_000, "{}", page.len());
    assert!(page.contains("of 20,000 points are drawn"));
    let (kept, records) = (
        drawn(&data(&page), "loss", "training"),
        records(folder.path()),
    );
    let all = points(&records, "loss");
    assert!(kept.iter().all(|point| all.contains(point)) && kept.len() < 1000);
    let highest = |points: &[(f64, f64)]| points.iter().map(|p| p.1).fold(f64::MIN, f64::max);
    assert_eq!(highest(&kept), highest(&all));
}

#[test]
fn several_runs_are_laid_over_each_other_with_their_frontier() {
    let place = tempfile::tempdir().unwrap();
    for loss in ["ipo", "rexpo"] {
        train(place.path(), loss, "max_steps = 2");
    }
    let folders = Recorded::folders(place.path()).unwrap();
    let names: Vec<_> = folders
        .iter()
        .map(|f| f.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["ipo", "rexpo"]);
    let page = page_of(&[&folders[0], &folders[1], whole()], None);
    let ids = well_formed(&page);
    for section in [
        "overview",
        "frontier",
        "curves",
        "speed",
        "samples",
        "differences",
        "each",
        "run-2",
    ] {
        assert!(ids.iter().any(|id| id == section), "no {section}");
    }
    let data = data(&page);
    for (folder, name) in [(folders[0].as_path(), "ipo"), (whole(), "dpo")] {
        let records = records(folder);
        let got = drawn(&data, "loss", &format!("{name}, evaluation"));
        assert_eq!(got, points(&records, "eval_loss"));
        let accuracy = points(&records, "eval_rewards/accuracies_ties_half")
            .last()
            .unwrap()
            .1;
        let entropy = points(&records, "eval_entropy").last().unwrap().1;
        let (accuracy, entropy) = (Value::from(accuracy), Value::from(entropy));
        let at = format!("{name}: <data value=\"{accuracy}\">");
        assert!(
            page.contains(&at) && page.contains(&format!("<data value=\"{entropy}\">")),
            "{at}"
        );
    }
    // All have a KL on the answers to their evaluation prompts.
    assert!(page.contains("<h3>Accuracy against KL</h3>"));
    assert!(page.contains("answers of the policy to the prompts of run.eval_prompts"));
    assert!(page.contains("Accuracy against entropy"));
    assert!(page.contains("units of their own and are not comparable"));
    assert!(
        page.contains(">loss.ipo.beta</th>") || page.contains("loss.ipo.beta"),
        "differences"
    );
}

/// A run of an older version has the strict accuracy alone, which is 0 before the first step.
#[test]
fn accuracy_counts_a_tie_as_half_and_falls_back_for_older_runs() {
    let record = |step: u64, name: &str, value: f64| json!({"step": step, "eval_loss": 0.7, "eval_kl": 0.1, name: value});
    let run = |name: &str, values: [f64; 3]| {
        let records = (0..3).map(|step| record(step, name, values[step as usize]));
        by_hand(&[run_json("rexpo"), ("metrics.jsonl", lines(records))])
    };
    let older = run("eval_rewards/accuracies", [0.0, 0.6, 0.7]);
    let newer = run("eval_rewards/accuracies_ties_half", [0.5, 0.55, 0.65]);
    let page = page_of(&[newer.path()], None);
    well_formed(&page);
    assert!(
        page.contains("The line at 0.5 is chance") && page.contains("<title>0.5: chance</title>")
    );
    assert!(
        page.contains("evaluation, from <data value=\"0.5\">"),
        "{page}"
    );
    let page = page_of(&[older.path()], None);
    assert!(page.contains("of an older version, a tie counts as wrong"));
    assert!(
        !page.contains("from <data value=\"0.0\">") && !page.contains("from <data value=\"0\">")
    );
    let page = page_of(&[older.path(), newer.path()], None);
    well_formed(&page);
    // Both report the same divergence, so it is the axis, and its estimator is said.
    assert!(page.contains("<h3>Accuracy against KL</h3>"), "{page}");
    assert!(page.contains("KL(r || pi): the mean of log r - log pi"));
    let ids = data(&page)["charts"]["rewards/accuracies_ties_half"]["lines"].clone();
    let drawn: Vec<usize> = ids
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["x"].as_array().unwrap().len())
        .collect();
    assert_eq!(drawn.iter().sum::<usize>(), 6, "{drawn:?}");
}

#[test]
fn every_metric_of_a_page_says_what_it_means() {
    let record =
        json!({"step": 1, "loss": 0.5, "saturated": 0.9, "loss/dpo": 0.5, "rewards/margins": 0.1});
    let folder = by_hand(&[run_json("cexpo"), ("metrics.jsonl", lines([record]))]);
    let page = page_of(&[folder.path()], None);
    for meaning in [
        "share of pairs where sigma(d - margin) is too flat to learn from",
        "the term NAME, mean over rows, without its weight",
        "chosen reward minus rejected reward",
    ] {
        // With its chart and in the table.
        assert_eq!(page.matches(meaning).count(), 2, "{meaning}");
    }
}

#[test]
fn a_folder_without_a_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = Recorded::folders(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("holds no run") && error.contains("of a run or of a sweep"),
        "{error}"
    );
    let broken = by_hand(&[("run.json", "{".into())]);
    let error = Recorded::open(broken.path()).unwrap_err().to_string();
    assert!(error.contains("run.json: not JSON"), "{error}");
}
