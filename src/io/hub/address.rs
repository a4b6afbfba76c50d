//! The address of the hub, and those it leads to.

use ureq::http::uri::{Authority, PathAndQuery, Scheme};
use ureq::http::{HeaderMap, Uri, header};

use super::failure::{Answer, Failure};
use super::settings::HubSettings;
use crate::error::{Error, Result};
use crate::io::http::is_loopback;

/// The public hub.
const PUBLIC: &str = "https://huggingface.co";

/// The address of the hub, checked.
pub(super) fn check(settings: &HubSettings) -> Result<Uri> {
    // An address that may hold a password is not repeated.
    let wrong = |what: &str, hint: &str| Err(Error::input(what).hint(hint).at("HF_ENDPOINT"));
    let valid = "e.g. https://huggingface.co or http://localhost:8080";
    let endpoint = settings.endpoint.as_deref().unwrap_or(PUBLIC);
    let Ok(base) = endpoint.parse::<Uri>() else {
        return wrong("is not an address", valid);
    };
    let (Some(scheme), Some(authority)) = (base.scheme(), base.authority()) else {
        return wrong("is not an address", valid);
    };
    if authority.host().is_empty() {
        return wrong("is not an address", valid);
    }
    if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
        return wrong("is neither http nor https", valid);
    }
    if base.query().is_some() {
        return wrong("has a query", valid);
    }
    if let Some(token) = &settings.token
        && !token.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(Error::input("the hub token is malformed")
            .hint("HF_TOKEN, or the file that `hf auth login` writes, holds one word of ASCII"));
    }
    let host = authority.host();
    if *scheme == Scheme::HTTP && !is_loopback(host) {
        let travels = |what: &str| format!("{what} would travel to {host} for everyone to read");
        if settings.token.is_some() {
            return wrong(
                &travels("the token"),
                "use https, or ask without a token: unset HF_TOKEN, or set \
                 HF_HUB_DISABLE_IMPLICIT_TOKEN=1 where it comes from a file",
            );
        }
        if user_of(authority).is_some() {
            return wrong(&travels("the password"), "use https");
        }
    }
    Ok(base)
}

/// What stands before the `@`.
pub(super) fn user_of(authority: &Authority) -> Option<&str> {
    authority.as_str().rsplit_once('@').map(|(user, _)| user)
}

/// What a token belongs to: the scheme, the host, the port.
pub(super) fn origin(uri: &Uri) -> (Option<&str>, String, Option<u16>) {
    let usual = match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    };
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    (uri.scheme_str(), host, uri.port_u16().or(usual))
}

/// The address that a location means in an answer from `from`.
fn join(from: &Uri, location: &str) -> String {
    let scheme = from.scheme_str().unwrap_or_default();
    let authority = from.authority().map_or("", Authority::as_str);
    let path = from.path();
    let named = location.split_once(':').is_some_and(|(before, _)| {
        before.starts_with(|c: char| c.is_ascii_alphabetic())
            && before
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    if named {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.is_empty() || location.starts_with('?') {
        format!("{scheme}://{authority}{path}{location}")
    } else {
        let directory = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
        format!("{scheme}://{authority}{directory}{location}")
    }
}

/// Where an answer leads. Users and passwords in it are left out.
pub(super) fn next(base: &Uri, from: &Uri, headers: &HeaderMap) -> Answer<Uri> {
    let nowhere = || Failure::odd("it leads to no address");
    let location = headers.get(header::LOCATION).ok_or_else(nowhere)?;
    let location = location.to_str().map_err(|_| nowhere())?;
    let location = location.split('#').next().unwrap_or_default();
    let next: Uri = join(from, location).parse().map_err(|_| nowhere())?;
    let mut parts = next.into_parts();
    let (Some(scheme), Some(authority)) = (&parts.scheme, &parts.authority) else {
        return Err(nowhere());
    };
    if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
        return Err(Failure::odd(format!("it leads to {scheme}:")));
    }
    if from.scheme() == Some(&Scheme::HTTPS) && *scheme == Scheme::HTTP {
        return Err(Failure::odd("it leads from https to http"));
    }
    let bare = authority.as_str().rsplit('@').next().unwrap_or_default();
    let bare: Authority = bare.parse().map_err(|_| nowhere())?;
    parts.authority = Some(bare);
    parts.path_and_query = parts
        .path_and_query
        .or_else(|| Some(PathAndQuery::from_static("/")));
    let next = Uri::from_parts(parts).map_err(|_| nowhere())?;
    if origin(&next) != origin(base) || origin(from) != origin(base) {
        return Ok(next);
    }
    // The user and the password of the endpoint go where the token would go.
    let mut parts = next.into_parts();
    parts.authority = base.authority().cloned();
    Uri::from_parts(parts).map_err(|_| nowhere())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_as_a_browser_reads_it() {
        let from: Uri = "https://hub.example:8443/org/name/resolve/x?a=b"
            .parse()
            .unwrap();
        for (location, address) in [
            ("https://cdn.example/y?z", "https://cdn.example/y?z"),
            ("//cdn.example/y", "https://cdn.example/y"),
            ("/y?z", "https://hub.example:8443/y?z"),
            ("y", "https://hub.example:8443/org/name/resolve/y"),
            ("?z", "https://hub.example:8443/org/name/resolve/x?z"),
            ("file:///etc/passwd", "file:///etc/passwd"),
            ("gopher://x/", "gopher://x/"),
        ] {
            assert_eq!(join(&from, location), address, "{location}");
        }
    }

    #[test]
    fn a_token_belongs_to_scheme_host_and_port() {
        let same = |one: &str, other: &str| {
            origin(&one.parse().unwrap()) == origin(&other.parse().unwrap())
        };
        assert!(same(
            "https://Hub.example/a",
            "https://me:pw@hub.example:443/b"
        ));
        for other in [
            "http://hub.example/a",
            "https://hub.example:8443/a",
            "https://hub.example.evil/a",
            "https://evil.example/hub.example",
            "https://hub.example@evil.example/a",
        ] {
            assert!(!same("https://hub.example/a", other), "{other}");
        }
    }

    #[test]
    fn a_redirect_never_leads_from_https_to_http_or_elsewhere_than_the_web() {
        let base: Uri = "https://me:pw@hub.example/x".parse().unwrap();
        let next = |from: &str, to: &str| {
            let headers = HeaderMap::from_iter([(header::LOCATION, to.parse().unwrap())]);
            match super::next(&base, &from.parse().unwrap(), &headers) {
                Ok(uri) => uri.to_string(),
                Err(failure) => format!("{failure:?}"),
            }
        };
        let home = "https://me:pw@hub.example/x/api";
        for (from, to, leads) in [
            (home, "/y", "https://me:pw@hub.example/y"),
            (
                home,
                "https://hub.example/y#z",
                "https://me:pw@hub.example/y",
            ),
            (
                home,
                "https://HUB.example:443",
                "https://me:pw@hub.example/",
            ),
            (home, "https://you:w@cdn.example/y", "https://cdn.example/y"),
            ("https://cdn.example/", "/y", "https://cdn.example/y"),
            (
                "https://cdn.example/",
                "https://hub.example/y",
                "https://hub.example/y",
            ),
            (
                "http://cdn.example/",
                "https://a.example/",
                "https://a.example/",
            ),
        ] {
            assert_eq!(next(from, to), leads, "{to}");
        }
        for to in [
            "http://hub.example/x",
            "http://127.0.0.1/",
            "file:///x",
            "gopher://x/",
            "x:y",
        ] {
            assert!(next(home, to).starts_with("Odd("), "{to}");
        }
    }

    fn checked(endpoint: &str, token: Option<&str>) -> String {
        let settings = HubSettings {
            endpoint: Some(endpoint.to_owned()),
            token: token.map(str::to_owned),
            ..HubSettings::default()
        };
        let error = check(&settings).err();
        error.map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn a_token_travels_encrypted_or_not_at_all() {
        for (endpoint, token) in [
            ("https://hub.example", Some("t")),
            ("https://me:secret@hub.example/x", Some("t")),
            ("http://localhost:8080", Some("t")),
            ("http://127.0.0.1", Some("t")),
            ("http://[::1]:1", Some("t")),
            ("http://hub.example", None),
        ] {
            assert_eq!(checked(endpoint, token), "", "{endpoint}");
        }
        for (endpoint, token, said) in [
            (
                "http://hub.example:80/x",
                Some("t"),
                "the token would travel to hub.example",
            ),
            ("http://127.example", Some("t"), "the token would travel"),
            (
                "http://me:secret@hub.example",
                None,
                "the password would travel",
            ),
            (
                "http://me:secret@hub.example",
                Some("t"),
                "the token would travel",
            ),
            ("ftp://hub.example", None, "neither http nor https"),
            ("https://hub.example?x=secret", None, "has a query"),
            ("hub.example", None, "is not an address"),
            ("/secret", None, "is not an address"),
            ("https://a b", None, "is not an address"),
            ("https://", None, "is not an address"),
        ] {
            let error = checked(endpoint, token);
            assert!(
                error.starts_with("HF_ENDPOINT: ") && error.contains(said),
                "{error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
        for token in ["two words", "caf\u{e9}", "a\u{7}b"] {
            let error = checked("https://hub.example", Some(token));
            assert!(
                error.contains("the hub token is malformed") && !error.contains(token),
                "{error}"
            );
        }
    }
}
