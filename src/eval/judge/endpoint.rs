//! A language model behind an OpenAI-compatible chat endpoint.
//!
//! Hides the protocol: what is asked again and how long after, what ends a run at once, and the key.
//!
//! *Why*: a judge is asked thousands of times over hours, and a server that is busy or away for a while
//! is the normal case. What no second attempt can mend, a wrong key, name or request, is said at the
//! first one. The key comes from the environment, goes into one header, and is in no message and no
//! file, whatever the server repeats of it.

mod address;
mod completion;
mod wait;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::{Map, Value, json};
use ureq::Agent;
use ureq::http::StatusCode;

use self::address::check_address;
use self::completion::reply;
use self::wait::sleep;
use super::reply::{Miss, Reply};
use crate::error::{Error, Result};
use crate::io::http::{Secrets, read_bounded, retry_after};

/// OpenAI's own.
const OPENAI: &str = "https://api.openai.com/v1";
/// The wait before the second attempt; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait of our own.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The longest wait that a server may ask for; a longer one is cut to it.
const LONGEST_ASKED: Duration = Duration::from_secs(600);
/// The bytes that an answer may have, after decompression: an attempt needs no more memory.
const LONGEST_ANSWER: u64 = 8 << 20;

/// The same of a refusal.
const LONGEST_REFUSAL: u64 = 1 << 20;
/// Characters of another's message that are repeated.
const LONGEST_MESSAGE: usize = 300;
/// What stands in the place of the key.
const KEY: &str = "[key]";

/// Where and how a judge is asked.
pub struct Settings {
    /// `OPENAI_BASE_URL`; OpenAI's own if `None`.
    pub base: Option<String>,
    /// `OPENAI_API_KEY`.
    pub key: Option<String>,
    /// The name of the model there.
    pub model: String,
    /// Keys of the request beside `model` and `messages`, or in their defaults' place; one that is null
    /// is taken out.
    pub request: Map<String, Value>,
    /// Further attempts after the first.
    pub max_retries: u32,
    /// The longest that one attempt may take.
    pub timeout: Duration,
    /// Questions that are asked at the same time, at most.
    pub concurrency: usize,
}

/// A chat endpoint with one model.
pub struct Endpoint {
    agent: Agent,
    base: String,
    key: Option<String>,
    /// The key, where it is not to be seen.
    secrets: Secrets,
    model: String,
    request: Map<String, Value>,
    max_retries: u32,
    /// Before it nobody asks: the server said so.
    not_before: Mutex<Option<Instant>>,
}

/// What became of one attempt.
enum Attempt {
    Done(Reply),
    /// Why not, and how long the server wants to be left alone.
    Again(String, Option<Duration>),
    /// Why not, for this question alone.
    Refused(String),
    Fatal(Error),
}

/// Codes of errors that say of one question what says nothing of the next.
const OF_ONE: [&str; 4] = [
    "content_filter",
    "content_policy_violation",
    "context_length_exceeded",
    "string_above_max_length",
];

impl Endpoint {
    /// Checks the settings; asks nothing.
    ///
    /// # Errors
    /// If the address is none, carries a password or a query, or a key would travel unencrypted to
    /// another machine; if OpenAI's own endpoint is meant and there is no key.
    pub fn new(settings: Settings) -> Result<Self> {
        let base = settings.base.as_deref().unwrap_or(OPENAI);
        let base = base.trim().trim_end_matches('/').to_owned();
        let local = check_address(&base, settings.key.is_some())?;
        let key = settings.key.map(|key| key.trim().to_owned());
        match &key {
            None if base == OPENAI => {
                return Err(Error::input("OPENAI_API_KEY is not set")
                    .hint(
                        "export it, name another endpoint in OPENAI_BASE_URL, or choose a judge that \
                         needs none: length, lexicon:FILE or model:DIR",
                    )
                    .option("judge", ""));
            }
            Some(key) if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                return Err(Error::input("OPENAI_API_KEY is no key")
                    .hint("it is one word of ASCII letters, digits and signs"));
            }
            _ => {}
        }
        for reserved in ["model", "messages", "stream", "n"] {
            if settings.request.contains_key(reserved) {
                return Err(Error::input(format!("the request sets `{reserved}`"))
                    .hint("it can set e.g. temperature, max_tokens, seed, top_p, reasoning_effort")
                    .at_parameter("request"));
            }
        }
        let mut request = Map::new();
        request.insert("temperature".into(), json!(0));
        request.insert("max_tokens".into(), json!(512));
        for (name, value) in settings.request {
            match value.is_null() {
                true => request.shift_remove(&name),
                false => request.insert(name, value),
            };
        }
        let mut agent = Agent::config_builder();
        if local {
            // What may go unencrypted to this machine may not go so to a proxy.
            agent = agent.proxy(None);
        }
        let agent = agent
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(settings.timeout))
            .max_idle_connections_per_host(settings.concurrency)
            .max_idle_connections(settings.concurrency)
            .user_agent(concat!("expo/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            agent: Agent::new_with_config(agent),
            base,
            secrets: Secrets::new(key.as_deref()),
            key,
            model: settings.model,
            request,
            max_retries: settings.max_retries,
            not_before: Mutex::default(),
        })
    }

    /// Its address.
    pub fn name(&self) -> &str {
        &self.base
    }

    /// The name of the model there.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The request that asks `question`.
    pub fn body(&self, question: &str) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), json!(self.model));
        body.insert(
            "messages".into(),
            json!([{"role": "user", "content": question}]),
        );
        body.extend(self.request.clone());
        body.into()
    }

    /// Sends a request until it is answered. `stopped` ends the waits between attempts.
    pub fn ask(
        &self,
        body: &Value,
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> std::result::Result<Reply, Miss> {
        let bytes = body.to_string().into_bytes();
        let mut wait = FIRST_WAIT;
        for attempt in 0.. {
            self.wait_for_turn(stopped)?;
            let (why, asked) = match self.attempt(&bytes) {
                Attempt::Done(reply) => return Ok(reply),
                Attempt::Fatal(error) => return Err(Miss::Fatal(error)),
                Attempt::Refused(why) => return Err(Miss::Refused(why)),
                Attempt::Again(why, asked) => (why, asked),
            };
            if attempt == self.max_retries {
                return Err(Miss::Failed(why));
            }
            if let Some(asked) = asked {
                self.hold(asked.min(LONGEST_ASKED));
            }
            // Of two who failed together, one comes back sooner.
            sleep(wait.mul_f64(rand::rng().random_range(0.5..1.0)), stopped)?;
            wait = (2 * wait).min(LONGEST_WAIT);
        }
        Err(Miss::Stopped)
    }

    /// Keeps everybody from asking for so long.
    fn hold(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut not_before = self
            .not_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *not_before = Some(not_before.map_or(until, |other| other.max(until)));
    }

    fn wait_for_turn(&self, stopped: &(dyn Fn() -> bool + Sync)) -> std::result::Result<(), Miss> {
        loop {
            let until = *self
                .not_before
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match left.filter(|left| !left.is_zero()) {
                Some(left) => sleep(left, stopped)?,
                None => {
                    return if stopped() {
                        Err(Miss::Stopped)
                    } else {
                        Ok(())
                    };
                }
            }
        }
    }

    fn attempt(&self, body: &[u8]) -> Attempt {
        let url = format!("{}/chat/completions", self.base);
        let mut request = self
            .agent
            .post(&url)
            .header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return self.unanswered(&error),
        };
        let status = response.status();
        let asked = retry_after(response.headers());
        let most = match status {
            StatusCode::OK => LONGEST_ANSWER,
            _ => LONGEST_REFUSAL,
        };
        let read = read_bounded(response.into_body().into_reader(), most);
        match (status, read.map_err(ureq::Error::from)) {
            (StatusCode::OK, Ok(Some(bytes))) => match reply(&bytes) {
                Some(reply) => Attempt::Done(Reply {
                    text: self.secrets.hide_long(&reply.text, KEY),
                    ..reply
                }),
                None => Attempt::Again(
                    format!("its answer is no chat completion: {}", self.said(&bytes)),
                    None,
                ),
            },
            (StatusCode::OK, Ok(None)) => {
                let mib = most >> 20;
                Attempt::Again(format!("its answer has more than {mib} MiB"), None)
            }
            (StatusCode::OK, Err(error)) => self.unanswered(&error),
            (status, read) => {
                let body = read.ok().flatten().unwrap_or_default();
                self.refused(status, &body, asked)
            }
        }
    }

    /// There is no answer, or half of one.
    fn unanswered(&self, error: &ureq::Error) -> Attempt {
        use ureq::Error as E;
        match error {
            E::BadUri(_) | E::Http(_) | E::InvalidProxyUrl | E::Pem(_) => {
                Attempt::Fatal(Error::input(self.hidden(&error.to_string())).at(&self.base))
            }
            _ => Attempt::Again(self.hidden(&error.to_string()), None),
        }
    }

    fn refused(&self, status: StatusCode, body: &[u8], asked: Option<Duration>) -> Attempt {
        let what = match self.said(body) {
            said if said.is_empty() => format!("the endpoint answers {status}"),
            said => format!("the endpoint answers {status}: {said}"),
        };
        let body = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let code = body["error"]["code"].as_str().unwrap_or_default();
        if matches!(status.as_u16(), 400 | 413 | 422) && OF_ONE.contains(&code) {
            return Attempt::Refused(what);
        }
        let mut options = &[][..];
        let spent = code == "insufficient_quota";
        let hint = match status.as_u16() {
            408 | 425 | 429 | 500..=599 if !spent => return Attempt::Again(what, asked),
            429 => "the account behind OPENAI_API_KEY has nothing left to spend".to_owned(),
            401 if self.key.is_none() => "it wants a key: export OPENAI_API_KEY".to_owned(),
            401 => "OPENAI_API_KEY must hold a key that is valid there".to_owned(),
            403 => format!("the key must be allowed to use {:?}", self.model),
            404 => format!(
                "OPENAI_BASE_URL must be an address that /chat/completions can follow, and {:?} a judge \
                 model there",
                self.model
            ),
            300..=399 => {
                "OPENAI_BASE_URL must be the address itself, not one that leads there".to_owned()
            }
            _ => {
                options = &["judge_model", "request", "template"];
                "check the judge model, the request and the template; a null takes a key out of the \
                 request: {\"max_tokens\": null}"
                    .to_owned()
            }
        };
        let error = Error::input(what).hint(hint).at(&self.base);
        let named = options
            .iter()
            .fold(error, |error, name| error.option(name, ""));
        Attempt::Fatal(named)
    }

    /// What an answer says that is not the one hoped for: on one line, short, without the key.
    fn said(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body);
        let short = (body.len() as u64 <= LONGEST_REFUSAL).then_some(&text);
        let body = short.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let message = body.and_then(|body| {
            let message = [
                &body["error"]["message"],
                &body["message"],
                &body["error"],
                &body["detail"],
            ];
            message
                .iter()
                .find_map(|message| message.as_str().map(str::to_owned))
        });
        self.hidden(&message.unwrap_or_else(|| text.into_owned()))
    }

    fn hidden(&self, text: &str) -> String {
        self.secrets.line(text, KEY, LONGEST_MESSAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openais_own_endpoint_needs_a_key_that_is_one() {
        let said = |key| {
            endpoint(None, key, json!({}))
                .err()
                .map(|error| error.to_string())
        };
        assert_eq!(said(Some(" sk-1\n")), None);
        assert!(said(None).unwrap().contains("OPENAI_API_KEY is not set"));
        let error = said(Some("a b")).unwrap();
        assert!(
            error.contains("is no key") && !error.contains("a b"),
            "{error}"
        );
    }

    fn endpoint(base: Option<&str>, key: Option<&str>, request: Value) -> Result<Endpoint> {
        Endpoint::new(Settings {
            base: base.map(str::to_owned),
            key: key.map(str::to_owned),
            model: "judge".into(),
            request: request.as_object().unwrap().clone(),
            max_retries: 0,
            timeout: Duration::from_secs(1),
            concurrency: 1,
        })
    }

    #[test]
    fn the_request_is_what_was_asked_for() {
        let request = json!({"max_tokens": null, "max_completion_tokens": 9, "temperature": 0.5});
        let endpoint = endpoint(None, Some("k"), request).unwrap();
        let body = json!({"model": "judge", "messages": [{"role": "user", "content": "?"}],
            "temperature": 0.5, "max_completion_tokens": 9});
        assert_eq!(endpoint.body("?"), body);
        let said = endpoint.said(b"{\"error\": {\"message\": \"bad\\n key k.\"}}");
        assert_eq!(said, "bad [key]ey [key].");
    }
}
