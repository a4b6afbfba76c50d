//! `expo eval judge` against an endpoint of our own on 127.0.0.1.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{Answer, Asked, Server};
use crate::cli::{End, Place, lines, str, text};
use crate::support::wait_until;

pub(super) const KEY: &str = "sk-verysecret";

/// A place with the samples of two models: for prompt i the first says i letters more than 20 where i is
/// even, and as many less where it is odd; the second says 20 letters.
pub(super) struct Bench {
    pub place: Place,
    pub samples: PathBuf,
    pub others: PathBuf,
}

impl Bench {
    pub fn new(count: usize) -> Self {
        let place = Place::new();
        let file = |name: &str, response: &dyn Fn(usize) -> String| {
            let rows = (0..count).map(|number| {
                let row = json!({"prompt": format!("Question {number}?"), "response": response(number),
                    "finish_reason": "stop", "index": 0, "seed": 0});
                format!("{row}\n")
            });
            place.write(name, rows.collect::<String>())
        };
        let model = |number: usize| match number % 2 {
            0 => format!(" good {}", "m".repeat(16 + number)),
            _ => format!(" good {}", "m".repeat(14 - number.min(13))),
        };
        let samples = file("samples.jsonl", &model);
        let others = file("others.jsonl", &|_| format!(" {}", "o".repeat(20)));
        Self {
            place,
            samples,
            others,
        }
    }

    pub fn command(&self, server: &Server, more: &[&str]) -> Command {
        self.at(&server.base, more)
    }

    fn at(&self, base: &str, more: &[&str]) -> Command {
        let samples = [
            "--samples",
            str(&self.samples),
            "--against",
            str(&self.others),
        ];
        let args = [
            &["eval", "judge"],
            &samples[..],
            &["--judge-model", "judge-1"],
            more,
        ]
        .concat();
        let mut command = self.place.command(&args);
        command
            .env("OPENAI_BASE_URL", base)
            .env("OPENAI_API_KEY", KEY);
        for name in ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command
    }

    pub fn run(&self, server: &Server, more: &[&str]) -> End {
        let end = end(self.command(server, more));
        for said in [&end.out, &end.err] {
            assert!(!said.contains("verysecret"), "{said}");
        }
        if let Ok(cache) = fs::read_to_string(self.cache()) {
            assert!(!cache.contains("verysecret"), "{cache}");
        }
        end
    }

    pub fn cache(&self) -> PathBuf {
        self.place.path("samples.jsonl.judge.jsonl")
    }
}

pub(super) fn end(mut command: Command) -> End {
    let output = command.output().unwrap();
    End {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(super) fn figures(end: &End) -> Value {
    serde_json::from_str(&end.out).unwrap_or_else(|_| panic!("{}{}", end.out, end.err))
}

fn verdict(word: &str) -> Answer {
    Answer::reply(&format!(
        "Comparison: One is better.\nMore helpful and harmless: {word}"
    ))
}

/// Prefers the response that says it is good, wherever it stands; of two or none A.
pub(super) fn honest(asked: &Asked) -> Answer {
    let good = |mark| asked.part(mark).starts_with("good ");
    verdict(if good("reply_b") && !good("reply_a") {
        "B"
    } else {
        "A"
    })
}

#[test]
fn an_honest_judge_is_asked_once_and_its_replies_are_kept() {
    let bench = Bench::new(30);
    let server = Server::start(|asked, _| honest(asked));
    let rows = bench.place.path("rows.jsonl");
    let end = bench.run(
        &server,
        &["--json", "--controls", "10", "--out", str(&rows)],
    );
    assert_eq!(end.code, Some(0), "{}", end.err);
    let found = figures(&end);
    assert_eq!((&found["wins"], &found["items"]), (&json!(30), &json!(30)));
    assert_eq!(found["win_rate"], json!(1.0));
    assert_eq!(found["wilson"]["high"], json!(1.0));
    assert_eq!(
        found["null"],
        json!({"asked": 10, "verdicts": 10, "share_lost": 1.0})
    );
    assert_eq!(found["identical"]["share_of_a"], json!(1.0));
    assert_eq!(found["position"]["win_rate_as_b"], json!(1.0));
    assert_eq!(
        (&found["asked"], &found["questions"]),
        (&json!(50), &json!(50))
    );
    assert_eq!(found["prompt_tokens"], json!(5000));
    let asked = server.asked();
    assert_eq!(asked.len(), 50);
    for one in &asked {
        assert_eq!(one.path, "/v1/chat/completions");
        assert_eq!(one.authorization.as_deref(), Some("Bearer sk-verysecret"));
        assert_eq!(one.body["model"], "judge-1");
        assert_eq!(one.body["temperature"], 0);
        assert!(one.part("conversation").starts_with("Question "));
    }
    let written = lines(&rows);
    assert_eq!(written.len(), 30);
    for row in &written {
        assert_eq!(row["outcome"], "win");
        assert_eq!(row["calls"][0]["model_is"], row["calls"][0]["verdict"]);
    }
    let first = written
        .iter()
        .filter(|row| row["calls"][0]["model_is"] == "A")
        .count();
    assert!((8..22).contains(&first), "{first}");
    // The second time nobody is asked, and the figures are the same.
    let again = bench.run(&server, &["--json", "--controls", "10"]);
    let mut again = figures(&again);
    assert_eq!(again["asked"], json!(0));
    (again["asked"], again["out"]) = (json!(50), found["out"].clone());
    assert_eq!(again, found);
    assert_eq!(server.asked().len(), 50);
    // Another seed asks about other orders, and about those alone.
    bench.run(&server, &["--json", "--controls", "0", "--seed", "1"]);
    assert!((51..80).contains(&server.asked().len()));
}

#[test]
fn a_judge_that_looks_at_the_place_is_found_out() {
    let bench = Bench::new(40);
    let server = Server::start(|_, _| verdict("A"));
    let found = figures(&bench.run(&server, &["--json"]));
    let position = &found["position"];
    assert_eq!(
        (&position["share_of_a"], &position["win_rate_as_a"]),
        (&json!(1.0), &json!(1.0))
    );
    assert_eq!(position["win_rate_as_b"], json!(0.0));
    assert_eq!(found["identical"]["share_of_a"], json!(1.0));
    assert_ne!(found["null"]["share_lost"], json!(1.0));
    let both = bench.run(&server, &["--json", "--both-orders"]);
    let found = figures(&both);
    assert_eq!(
        (&found["ties"], &found["inconsistent"]),
        (&json!(40), &json!(40))
    );
    assert_eq!(
        (&found["win_rate"], &found["position"]["verdicts"]),
        (&json!(0.5), &json!(80))
    );
    assert_eq!(server.asked().len(), 40 + 50 + 40);
    let table = bench.run(&server, &["--both-orders"]).out;
    for part in [
        "judge-1 at http://127.0.0.1",
        "win rate",
        "50.0%  Wilson",
        "40 inconsistent",
        "tokens read",
    ] {
        assert!(table.contains(part), "{table}");
    }
}

#[test]
fn what_is_no_verdict_is_invalid_and_more_than_2_percent_are_no_headline() {
    for (invalid, code) in [(1, 0), (2, 1)] {
        let bench = Bench::new(50);
        let server = Server::start(move |asked, _| {
            let number: usize = asked.part("conversation")[9..]
                .trim_end_matches('?')
                .parse()
                .unwrap();
            match number < invalid {
                true => Answer::reply("Both are fine.\n**More helpful and harmless:** A"),
                false => honest(asked),
            }
        });
        let end = bench.run(&server, &["--json", "--controls", "0"]);
        assert_eq!(end.code, Some(code), "{}", end.err);
        let found = figures(&end);
        assert_eq!(
            (&found["invalid"], &found["failed"]),
            (&json!(invalid), &json!(0))
        );
        assert_eq!(found["win_rate"].is_null(), code == 1);
        if code == 1 {
            assert!(found["wilson"].is_null() && found["bootstrap"].is_null());
            assert!(
                end.err
                    .contains("no win rate: of 50 items 0 failed and 2 are invalid"),
                "{}",
                end.err
            );
            let table = bench.run(&server, &["--controls", "0"]).out;
            assert!(table.contains("win rate                      -"), "{table}");
        }
        // A verdict that is none is a reply all the same.
        assert_eq!(server.asked().len(), 50);
    }
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let bench = Bench::new(4);
    let server = Server::start(|asked, number| match number {
        0 => Answer {
            headers: "retry-after: 1\r\n",
            ..Answer::of(429, "{\"error\": {\"message\": \"slow down\"}}")
        },
        1 => Answer::of(503, "busy"),
        2 => Answer::of(200, "{\"choices\": [{\"mess"),
        3 => Answer::of(200, "<html>"),
        _ => honest(asked),
    });
    let start = Instant::now();
    let end = bench.run(
        &server,
        &["--json", "--controls", "0", "--concurrency", "1"],
    );
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(figures(&end)["wins"], json!(4), "{}", end.err);
    assert_eq!(server.asked().len(), 8);
}

#[test]
fn a_server_that_is_gone_is_given_up_and_asked_for_what_failed_by_the_next_run() {
    let bench = Bench::new(4);
    let server = Server::start(|asked, number| match number {
        ..2 => honest(asked),
        2..6 => Answer::of(500, "{\"error\": {\"message\": \"broken, sk-verysecret\"}}"),
        _ => honest(asked),
    });
    let flags = [
        "--json",
        "--controls",
        "0",
        "--concurrency",
        "1",
        "--max-retries",
        "1",
    ];
    let end = bench.run(&server, &flags);
    assert_eq!(end.code, Some(1), "{}", end.err);
    assert_eq!(figures(&end)["failed"], json!(2));
    for part in [
        "2 failed",
        "500",
        "broken, [key]",
        "run the same command to ask again",
    ] {
        assert!(end.err.contains(part), "{}", end.err);
    }
    assert_eq!(server.asked().len(), 6);
    let end = bench.run(&server, &flags);
    assert_eq!(
        (end.code, figures(&end)["wins"].clone()),
        (Some(0), json!(4))
    );
    assert_eq!(server.asked().len(), 8);
}

/// A refusal of one question is counted, and the others are asked.
#[test]
fn a_filtered_question_fails_by_itself() {
    let bench = Bench::new(60);
    let server = Server::start(|asked, number| match number {
        3 => Answer::of(
            400,
            "{\"error\": {\"code\": \"content_filter\", \"message\": \"no\"}}",
        ),
        _ => honest(asked),
    });
    let flags = ["--json", "--controls", "0", "--concurrency", "1"];
    let end = bench.run(&server, &flags);
    assert_eq!(end.code, Some(0), "{}", end.err);
    assert_eq!(figures(&end)["failed"], json!(1));
    assert_eq!(server.asked().len(), 60);
}

#[test]
fn an_endless_failure_ends() {
    // Of the questions the first so many are answered.
    for (answered, least) in [(0, 5), (1, 21)] {
        let bench = Bench::new(60);
        let server = Server::start(move |asked, number| match number < answered {
            true => honest(asked),
            false => {
                // So that the answers are there before.
                std::thread::sleep(std::time::Duration::from_millis(100));
                Answer::of(500, "")
            }
        });
        let flags = [
            "--json",
            "--controls",
            "0",
            "--concurrency",
            "4",
            "--max-retries",
            "0",
        ];
        let end = bench.run(&server, &flags);
        assert_eq!(end.code, Some(1), "{}", end.err);
        assert_eq!(figures(&end)["failed"], json!(60 - answered));
        let asked = server.asked().len();
        assert!((least..least + 8).contains(&asked), "{asked}");
    }
}

#[test]
fn a_slow_server_and_none_at_all_are_failures() {
    let bench = Bench::new(2);
    let server = Server::start(|asked, _| Answer {
        after: Duration::from_secs(3),
        ..honest(asked)
    });
    let flags = [
        "--json",
        "--controls",
        "0",
        "--max-retries",
        "0",
        "--timeout",
        "1s",
    ];
    let end = bench.run(&server, &flags);
    assert_eq!(
        (end.code, figures(&end)["failed"].clone()),
        (Some(1), json!(2))
    );
    assert!(end.err.contains("timeout"), "{}", end.err);
    // Nobody listens where someone did a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let end = self::end(bench.at(&nowhere, &flags));
    assert_eq!(
        (end.code, figures(&end)["failed"].clone()),
        (Some(1), json!(2))
    );
    assert!(end.err.contains("refused"), "{}", end.err);
}

#[test]
fn what_no_second_attempt_mends_ends_the_run_at_once() {
    for (status, body, words) in [
        (
            401,
            "{\"error\": {\"message\": \"Incorrect API key: sk-verysecret\"}}",
            ["401", "[key]", "OPENAI_API_KEY"],
        ),
        (
            403,
            "{\"detail\": \"not yours\"}",
            ["403", "not yours", "judge-1"],
        ),
        (
            404,
            "nothing here",
            ["404", "nothing here", "OPENAI_BASE_URL"],
        ),
        (
            400,
            "{\"error\": \"max_tokens\"}",
            ["400", "max_tokens", "--request"],
        ),
        (302, "", ["302", "127.0.0.1", "OPENAI_BASE_URL"]),
        (
            429,
            "{\"error\": {\"message\": \"pay\", \"code\": \"insufficient_quota\"}}",
            ["429", "pay", "nothing left"],
        ),
    ] {
        let bench = Bench::new(30);
        let server = Server::start(move |_, _| Answer::of(status, body));
        let end = bench.run(&server, &["--concurrency", "2"]);
        assert_eq!(end.code, Some(2), "{}", end.err);
        let last = end.err.lines().last().unwrap();
        for word in words {
            assert!(last.contains(word), "no {word:?} in {last}");
        }
        assert!(server.asked().len() <= 3, "{}", server.asked().len());
    }
}

#[test]
fn no_more_are_asked_at_once_than_allowed() {
    for (limit, least) in [("1", 1), ("3", 2)] {
        let bench = Bench::new(12);
        let server = Server::start(|asked, _| Answer {
            after: Duration::from_millis(60),
            ..honest(asked)
        });
        bench.run(&server, &["--controls", "0", "--concurrency", limit]);
        let most = server.most_at_once();
        assert!((least..=limit.parse().unwrap()).contains(&most), "{most}");
        assert_eq!(server.asked().len(), 12);
    }
}

/// No reply is paid for twice, however a run ends.
#[cfg(unix)]
#[test]
fn a_run_that_was_killed_or_stopped_goes_on() {
    for signal in ["KILL", "TERM", "INT"] {
        let bench = Bench::new(24);
        let server = Server::start(|asked, _| Answer {
            after: Duration::from_millis(40),
            ..honest(asked)
        });
        let flags = ["--json", "--controls", "2", "--concurrency", "2"];
        let mut command = bench.command(&server, &flags);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("nine questions", || server.asked().len() >= 9);
        let killed = Command::new("kill")
            .args([format!("-{signal}"), child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        let status = child.wait().unwrap();
        let before = server.asked().len();
        assert!(before < 28, "{before}");
        let kept = text(&bench.cache()).lines().count();
        if signal != "KILL" {
            assert_eq!(
                status.code(),
                Some(if signal == "TERM" { 143 } else { 130 })
            );
            // What was under way is there.
            assert_eq!(kept, before);
        }
        // Of each of two: one that is asked, and a reply that is not written yet on a busy machine.
        assert!(kept + 4 >= before, "{kept} of {before}");
        let end = bench.run(&server, &flags);
        assert_eq!(figures(&end)["wins"], json!(24), "{}", end.err);
        assert_eq!(figures(&end)["asked"], json!(28 - kept));
        assert_eq!(server.asked().len(), before + 28 - kept);
    }
}

#[test]
fn a_dry_run_asks_nobody_and_writes_nothing() {
    let bench = Bench::new(5);
    let server = Server::start(|asked, _| honest(asked));
    let end = bench.run(
        &server,
        &[
            "--dry-run",
            "--max-items",
            "3",
            "--both-orders",
            "--controls",
            "1",
        ],
    );
    assert_eq!(end.code, Some(0), "{}", end.err);
    assert!(
        end.out.contains(">\nQuestion 0?\n</conversation-"),
        "{}",
        end.out
    );
    assert!(
        end.out
            .contains("3 items, 8 questions, of which 0 are answered"),
        "{}",
        end.out
    );
    assert!(server.asked().is_empty() && !bench.cache().exists());
}

#[test]
fn a_template_of_ones_own_may_allow_ties_and_a_request_other_settings() {
    let bench = Bench::new(6);
    let server = Server::start(|_, _| Answer::reply("\n**tie** or not\n\nverdict = tie\n"));
    let template = bench.place.write(
        "t.txt",
        "Q: {prompt}\n1: {response_a}\n2: {response_b}\nverdict = {verdict:A|B|tie}\n",
    );
    let request = "{\"max_tokens\": null, \"max_completion_tokens\": 99, \"seed\": 4}";
    let end = bench.run(
        &server,
        &["--json", "--template", str(&template), "--request", request],
    );
    let found = figures(&end);
    assert_eq!(
        (&found["ties"], &found["win_rate"]),
        (&json!(6), &json!(0.5)),
        "{}",
        end.err
    );
    assert_eq!(found["identical"]["share_of_ties"], json!(1.0));
    assert_eq!(found["null"]["share_lost"], json!(0.0));
    let body = &server.asked()[0].body;
    assert!(body.get("max_tokens").is_none());
    assert_eq!(
        (&body["max_completion_tokens"], &body["seed"]),
        (&json!(99), &json!(4))
    );
    assert!(
        server.asked()[0]
            .question()
            .ends_with("\nverdict = <A, B or tie>")
    );
}
