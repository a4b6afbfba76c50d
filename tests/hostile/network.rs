//! Hubs that steal tokens, hang, pour, lie and break off; caches that were cut short.

use std::fs;
use std::time::{Duration, Instant};

use crate::hub::client::{Client, TOKEN, message, model};
use crate::hub::server::{COMMIT, Fault, Hub, gzip, sha256};

const FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];
const WEIGHTS: &str = "weights of the model";

/// The text of the weights in a snapshot, after a download that must succeed.
fn weights(client: &Client) -> String {
    let snapshot = client.get(None).unwrap();
    fs::read_to_string(snapshot.join("model.safetensors")).unwrap()
}

/// The hub of [`model`], all whose files misbehave so.
fn with_files(fault: &Fault) -> Hub {
    let hub = model();
    FILES.iter().for_each(|file| hub.fault(file, fault.clone()));
    hub
}

#[test]
fn no_other_host_and_no_other_port_gets_the_token() {
    let storage = model();
    let port = storage.port();
    for to in [
        format!("http://localhost:{port}"),
        format!("http://127.0.0.1:{port}"),
        format!("//127.0.0.1:{port}"),
        format!("http://127.0.0.1:1@127.0.0.1:{port}"),
        format!("http://me:secret@localhost:{port}"),
    ] {
        storage.forget();
        let hub = with_files(&Fault::Storage(to.clone()));
        let client = Client::new(&hub.endpoint);
        assert_eq!(weights(&client), WEIGHTS, "{to}");
        let asked = storage.requests();
        // Commit, etag and size were in the hub's own answer: each file is asked for once.
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert!(asked.iter().all(|r| r.token.is_none()), "{asked:?}");
        assert!(
            hub.requests()
                .iter()
                .all(|r| r.token.as_deref() == Some(TOKEN))
        );
        let blob = client
            .repository()
            .join("blobs")
            .join(sha256(WEIGHTS.as_bytes()));
        assert!(blob.is_file(), "the etag is the hub's, not the storage's");
    }
}

#[test]
fn a_model_that_moved_to_another_host_comes_without_the_token_and_back_again_too() {
    let other = model();
    let hub = with_files(&Fault::Moved(301, other.endpoint.clone()));
    hub.fault("(model)", Fault::Moved(301, other.endpoint.clone()));
    let client = Client::new(&hub.endpoint);
    assert_eq!(weights(&client), WEIGHTS);
    assert!(other.requests().iter().all(|r| r.token.is_none()));
    // Nor does the other host get an answer for the user by sending the client back.
    hub.forget();
    other.fault("(model)", Fault::Location("http://127.0.0.1:1/"));
    let (text, _) = message(Client::new(&hub.endpoint).get(None));
    assert!(text.contains("cannot be reached"), "{text}");
    let back: &str = Box::leak(format!("{}/api/models/org/none", hub.endpoint).into_boxed_str());
    other.fault("(model)", Fault::Location(back));
    message(Client::new(&hub.endpoint).get(None));
    let last = hub.requests().pop().unwrap();
    assert_eq!(
        (last.path.as_str(), last.token),
        ("/api/models/org/none", None)
    );
}

#[test]
fn a_redirect_within_the_hub_keeps_the_token() {
    for (status, absolute) in [(301, false), (302, true), (307, false), (308, true)] {
        let hub = model();
        let to = match absolute {
            true => hub.endpoint.clone(),
            false => String::new(),
        };
        for name in FILES.iter().chain(&["(model)"]) {
            hub.fault(name, Fault::Moved(status, to.clone()));
        }
        assert_eq!(weights(&Client::new(&hub.endpoint)), WEIGHTS);
        let asked = hub.requests();
        assert!(asked.iter().any(|r| r.path.starts_with("/moved/")));
        assert!(
            asked.iter().all(|r| r.token.as_deref() == Some(TOKEN)),
            "{asked:?}"
        );
    }
}

#[test]
fn a_redirect_that_no_hub_sends_is_one_line() {
    for (to, said) in [
        ("file:///etc/passwd", "it leads to"),
        ("gopher://127.0.0.1/", "it leads to gopher:"),
        ("data:text/plain,x", "it leads to"),
        ("http://", "it leads to no address"),
        ("http://a b/", "it leads to no address"),
        ("", "it leads in a circle"),
        ("?again", "it leads in a circle"),
    ] {
        for name in ["(model)", "config.json"] {
            let hub = model();
            hub.fault(name, Fault::Location(to));
            let client = Client::new(&hub.endpoint);
            let (text, code) = message(client.get(None));
            assert!(
                text.contains(said) && text.contains("is HF_ENDPOINT right?"),
                "{text}"
            );
            let what = if name == "(model)" {
                "about the model"
            } else {
                "about `config.json`"
            };
            assert!(text.contains(what), "{text}");
            assert_eq!(code, 1);
            assert_eq!(client.finished(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_token_does_not_travel_in_the_clear() {
    let client = Client::new("http://hub.example:8080");
    let (text, code) = message(client.get(None));
    assert_eq!(
        text,
        "org/name: HF_ENDPOINT: the token would travel to hub.example for everyone to read; use https, or \
         ask without a token: unset HF_TOKEN, or set HF_HUB_DISABLE_IMPLICIT_TOKEN=1 where it comes from \
         a file"
    );
    assert_eq!(code, 2);
}

#[test]
fn a_server_that_says_nothing_or_little_is_given_up() {
    for fault in [Fault::Silent, Fault::Trickle, Fault::Chunks] {
        for name in ["(model)", "config.json", "model.safetensors"] {
            let skipped = match fault {
                // Two bytes are there before it is slow.
                Fault::Trickle => "config.json",
                // It may have many more bytes, and so more time.
                Fault::Chunks => "(model)",
                _ => "",
            };
            if name == skipped {
                continue;
            }
            let hub = model();
            hub.fault(name, fault.clone());
            let client = Client::impatient(&hub.endpoint);
            let start = Instant::now();
            let (text, code) = message(client.get(None));
            assert!(start.elapsed() < Duration::from_secs(20), "{text}");
            // Of few bytes the time runs out before they are counted.
            let said = ["timeout", "no more than "];
            assert!(said.iter().any(|said| text.contains(said)), "{text}");
            assert_eq!(code, 1);
        }
    }
}

#[test]
fn an_answer_is_bounded_by_what_comes_out_of_it() {
    let hub = model();
    let bomb = gzip(&vec![b' '; 40 << 20]);
    assert!(bomb.len() < 100_000);
    hub.fault("(model)", Fault::Compressed(bomb));
    let (text, code) = message(Client::new(&hub.endpoint).get(None));
    assert!(
        text.contains("about the model") && text.contains("more than 16 MiB"),
        "{text}"
    );
    assert_eq!(code, 1);
    hub.fault("(model)", Fault::Gzip);
    assert_eq!(weights(&Client::new(&hub.endpoint)), WEIGHTS);
}

#[test]
fn a_file_has_the_bytes_that_were_declared_and_not_one_more() {
    let bomb = Fault::Compressed(gzip(&[0; 1 << 20]));
    for fault in [Fault::Endless, Fault::Twice, bomb] {
        let hub = model();
        hub.fault("model.safetensors", fault);
        let client = Client::new(&hub.endpoint);
        let (text, code) = message(client.get(None));
        let said = "about `model.safetensors` that a hub does not give (more than the 20 bytes that it has)";
        assert!(text.contains(said), "{text}");
        assert_eq!(code, 1);
        assert_eq!(client.finished().len(), 4, "two files and their blobs");
        for entry in fs::read_dir(client.repository().join(".downloading")).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().len(), 0);
        }
    }
}

#[test]
fn a_file_that_is_compressed_on_its_way_has_its_own_size() {
    let hub = with_files(&Fault::Gzip);
    let client = Client::new(&hub.endpoint);
    assert_eq!(weights(&client), WEIGHTS);
}

#[test]
fn a_busy_hub_is_asked_again_when_it_says() {
    for name in ["(model)", "config.json", "model.safetensors"] {
        for (status, headers) in [
            (429, "Retry-After: 0.1\r\n"),
            (503, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n"),
            (500, "Retry-After: soon\r\n"),
        ]
        .into_iter()
        .take(if name == "(model)" { 3 } else { 1 })
        {
            let hub = model();
            hub.fault(name, Fault::Times(2, status, headers));
            let start = Instant::now();
            assert_eq!(weights(&Client::new(&hub.endpoint)), WEIGHTS);
            let waited = start.elapsed() >= Duration::from_millis(200);
            assert!(waited || !headers.contains("0.1"), "{name} {status}");
        }
        let hub = model();
        hub.fault(name, Fault::Status(503));
        let (text, code) = message(Client::new(&hub.endpoint).get(None));
        assert!(text.contains("answered 503"), "{text}");
        assert_eq!(code, 1);
        let asked = hub.requests().len();
        assert!(asked < 12, "{asked}");
    }
    // Where a copy would do, nobody waits.
    let hub = model();
    let client = Client::new(&hub.endpoint);
    client.get(None).unwrap();
    hub.fault("(model)", Fault::Times(9, 503, "Retry-After: 30\r\n"));
    hub.forget();
    client.get(None).unwrap();
    assert_eq!(hub.requests().len(), 1);
}

#[test]
fn mirrors_may_refuse_head_and_ignore_ranges() {
    for fault in [
        Fault::NoHead(403),
        Fault::NoHead(405),
        Fault::NoHead(501),
        Fault::NoHead(400),
        Fault::NoRange,
    ] {
        for sizes in [true, false] {
            let hub = with_files(&fault);
            let hub = if sizes { hub } else { hub.without_sizes() };
            assert_eq!(weights(&Client::new(&hub.endpoint)), WEIGHTS);
        }
    }
}

#[test]
fn a_download_goes_on_where_it_was_cut_or_begins_over() {
    // 7 bytes are there; 0 stands for a server that goes on.
    for status in [0, 200, 206, 416] {
        let hub = model();
        hub.fault("model.safetensors", Fault::CutOnce(7));
        let client = Client::new(&hub.endpoint);
        let mut impatient = Client::new(&hub.endpoint);
        impatient.settings.cache = client.settings.cache.clone();
        impatient.settings.patience.attempts = 1;
        let (text, code) = message(impatient.get(None));
        assert!(text.contains("cannot be downloaded"), "{text}");
        assert_eq!(code, 1);
        if status > 0 {
            hub.fault("model.safetensors", Fault::NoResume(status));
        }
        hub.forget();
        assert_eq!(weights(&client), WEIGHTS, "{status}");
        let asked = hub.requests();
        let resumed = asked
            .iter()
            .filter(|r| r.range.as_deref() == Some("bytes=7-"));
        assert_eq!(resumed.count(), 1, "{asked:?}");
        assert!(!client.repository().join(".downloading").exists());
    }
}

/// A blob that another program left, or a power cut.
#[cfg(unix)]
#[test]
fn a_file_that_was_cut_short_in_the_cache_is_fetched_again() {
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    let text = format!("{}{header}abcd", str::from_utf8(&length).unwrap());
    let files = [
        ("config.json", "{\"a\": 1}"),
        ("tokenizer.json", "{}"),
        ("model.safetensors", &text),
    ];
    for (name, whole) in files {
        for revision in [None, Some(COMMIT)] {
            for sizes in [true, false] {
                let hub = Hub::start(&files);
                let hub = if sizes { hub } else { hub.without_sizes() };
                let client = Client::new(&hub.endpoint);
                let snapshot = client.get(None).unwrap();
                let blob = fs::canonicalize(snapshot.join(name)).unwrap();
                fs::write(&blob, &whole[..whole.len() - 1]).unwrap();
                let here = client.offline();
                if name != "tokenizer.json" {
                    let (text, code) = message(here.get(revision));
                    let said = format!("{name} in the hub cache is cut short");
                    assert!(
                        text.contains(&said) && text.contains("HF_HUB_OFFLINE"),
                        "{text}"
                    );
                    assert_eq!(code, 2);
                }
                let mut online = here;
                online.settings.offline = false;
                if name == "tokenizer.json" && revision.is_some() {
                    continue;
                }
                online.get(revision).unwrap();
                assert_eq!(fs::read_to_string(&blob).unwrap(), whole, "{name} {sizes}");
            }
        }
    }
}

#[test]
fn many_that_want_one_model_download_it_once() {
    let hub = model();
    let client = Client::new(&hub.endpoint);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| weights(&client))).collect();
        for one in all {
            assert_eq!(one.join().unwrap(), WEIGHTS);
        }
    });
    let asked = hub.requests();
    for file in FILES {
        let bodies = asked
            .iter()
            .filter(|r| r.method == "GET" && r.path.ends_with(file));
        assert_eq!(bodies.count(), 1, "{file}");
    }
    assert!(!client.repository().join(".downloading").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_line() {
    let hub = model();
    let client = Client::new(&hub.endpoint);
    let staging = client.repository().join(".downloading");
    fs::create_dir_all(&staging).unwrap();
    let part = staging.join(format!("{}.part", sha256(WEIGHTS.as_bytes())));
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let (text, code) = message(client.get(None));
    assert!(text.contains("No space left on device"), "{text}");
    assert_eq!(code, 1);
    fs::remove_file(part).unwrap();
    assert_eq!(weights(&client), WEIGHTS);
}
