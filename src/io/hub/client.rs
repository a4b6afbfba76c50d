//! Requests to the hub.
//!
//! Hides where the token goes, what a redirect may do, and how long and how often a server is waited
//! for.
//!
//! *Why*: a hub sends its clients to other hosts for large files, and anyone with the token can act as
//! the user. So redirects are followed here, one by one: the token goes to the scheme, host and port of
//! the endpoint, over https or to this machine, and nowhere else.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Method, Request, Response, Uri, header};
use ureq::{Agent, Body};

use super::address::{check, next, origin, user_of};
use super::failure::{Answer, Failure};
use super::settings::HubSettings;
use crate::error::Result;
use crate::io::http::{Secrets, is_loopback};
use crate::io::untrusted::guarded;

/// Redirects in a row that are followed.
const MOST_REDIRECTS: usize = 10;
/// Characters of another's message that are repeated.
const LONGEST_MESSAGE: usize = 300;

/// A request.
pub(super) struct Asked<'a> {
    pub method: Method,
    /// Below the endpoint.
    pub path: &'a str,
    /// The bytes of a file that are wanted; all if `None`.
    pub range: Option<String>,
    /// The longest wait for an answer, and for more of it.
    pub silence: Duration,
    /// The bytes that are expected.
    pub bytes: u64,
}

/// A hub and who asks it.
pub(super) struct Client<'a> {
    pub(super) settings: &'a HubSettings,
    agent: Agent,
    base: Uri,
    secrets: Secrets,
}

impl<'a> Client<'a> {
    /// Checks the settings; asks nothing.
    ///
    /// # Errors
    /// If a variable is wrong, or a secret would travel unencrypted to another machine.
    pub(super) fn new(settings: &'a HubSettings) -> Result<Self> {
        if let Some(error) = &settings.invalid {
            return Err(error.clone());
        }
        let base = check(settings)?;
        let user = base.authority().and_then(user_of).unwrap_or_default();
        let password = user.split_once(':').map_or("", |(_, password)| password);
        let token = settings.token.as_deref().unwrap_or_default();
        let patience = &settings.patience;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .user_agent(concat!("expo/", env!("CARGO_PKG_VERSION")))
            // Of a file that is compressed on its way neither length nor place is known.
            .accept_encoding("identity");
        Ok(Self {
            settings,
            agent: agent.build().into(),
            secrets: Secrets::new([token, user, password]),
            base,
        })
    }

    /// Asks for a path of the hub and follows where it leads. `enough` sees every answer that leads
    /// elsewhere; where it says so, no other host is asked. The result is a success, or an answer that is
    /// enough.
    pub(super) fn ask(
        &self,
        asked: &Asked,
        enough: &mut dyn FnMut(&HeaderMap) -> bool,
    ) -> Answer<Response<Body>> {
        let mut uri: Uri = format!(
            "{}{}",
            self.base.to_string().trim_end_matches('/'),
            asked.path
        )
        .parse()
        .map_err(|_| Failure::odd("a file has a name that no address has"))?;
        let mut home = true;
        for _ in 0..=MOST_REDIRECTS {
            let response = self.send(asked, &uri, home)?;
            let status = response.status();
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return match status.is_success() {
                    true => Ok(response),
                    false => Err(Failure::of_status(status, response.headers())),
                };
            }
            let next = next(&self.base, &uri, response.headers())?;
            let stays = origin(&next) == origin(&self.base);
            let enough = enough(response.headers());
            if !stays && enough {
                return Ok(response);
            }
            // Whoever else was asked on the way is not to get the token by sending the request back.
            home = home && stays;
            uri = next;
        }
        Err(Failure::odd("it leads in a circle"))
    }

    fn send(&self, asked: &Asked, uri: &Uri, home: bool) -> Answer<Response<Body>> {
        let mut request = Request::builder().method(&asked.method).uri(uri);
        if let Some(range) = &asked.range {
            request = request.header(header::RANGE, range);
        }
        if let (true, Some(token)) = (home, &self.settings.token) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(())
            .map_err(|_| Failure::odd("it leads to no address"))?;
        let mut request = self
            .agent
            .configure_request(request)
            .timeout_send_request(Some(asked.silence))
            .timeout_recv_response(Some(asked.silence))
            .timeout_per_read(Some(asked.silence))
            // What comes between the bytes, around chunks for instance, counts as time alone.
            .timeout_recv_body(Some(self.settings.patience.longest(asked.bytes)));
        if uri.host().is_some_and(is_loopback) {
            // What may go unencrypted to this machine may not go so to a proxy.
            request = request.proxy(None);
        }
        let sent = guarded("the hub", || Ok(self.agent.run(request.build())));
        let sent = sent.map_err(|_| Failure::odd("no client can read it"))?;
        sent.map_err(|error| self.failure(&error))
    }

    /// What went wrong with a request or its answer.
    fn failure(&self, error: &ureq::Error) -> Failure {
        use ureq::Error as E;
        let why = match error {
            E::Io(error) => self.line(&error.to_string()),
            _ => self.line(&error.to_string()),
        };
        match error {
            E::Timeout(_) => Failure::Late(why),
            E::Io(error) if error.kind() == io::ErrorKind::TimedOut => Failure::Late(why),
            E::Protocol(_) | E::Http(_) | E::BadUri(_) | E::LargeResponseHeader(..) => {
                Failure::Odd(why)
            }
            _ => Failure::Broken { why, grown: false },
        }
    }

    /// What went wrong with a body.
    pub(super) fn failure_of_body(&self, error: io::Error) -> Failure {
        self.failure(&ureq::Error::from(error))
    }

    /// The body of an answer, which has to come at some speed.
    pub(super) fn body(&self, response: Response<Body>) -> impl Read + use<> {
        let patience = &self.settings.patience;
        Paced {
            body: response.into_body().into_reader(),
            window: patience.window,
            least: patience.least,
            since: Instant::now(),
            bytes: 0,
        }
    }

    /// Another's message on one line, short, without the token and the password.
    pub(super) fn line(&self, text: &str) -> String {
        self.secrets.line(text, "(secret)", LONGEST_MESSAGE)
    }
}

/// A body that fails where it comes too slowly, however regularly.
struct Paced<R> {
    body: R,
    window: Duration,
    least: u64,
    since: Instant,
    bytes: u64,
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(buffer)?;
        self.bytes += read as u64;
        if read > 0 && self.since.elapsed() >= self.window {
            if self.bytes < self.least {
                let (bytes, time) = (self.bytes, self.window.as_secs_f64());
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no more than {bytes} bytes in {time} s"),
                ));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_trickles_ends() {
        struct Trickle;
        impl Read for Trickle {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                std::thread::sleep(Duration::from_millis(5));
                buffer[0] = b'x';
                Ok(1)
            }
        }
        let mut body = Paced {
            body: Trickle,
            window: Duration::from_millis(50),
            least: 100,
            since: Instant::now(),
            bytes: 0,
        };
        let error = body.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
