//! Where requests may go.

use ureq::http::Uri;

use crate::error::{Error, Result};
use crate::io::http::is_loopback;

/// Refuses an address that no request should go to. Whether it is this machine's.
pub(super) fn check_address(base: &str, key: bool) -> Result<bool> {
    // An address that may hold a password is not repeated.
    let wrong = |what: &str, hint: &str| Err(Error::input(what).hint(hint).at("OPENAI_BASE_URL"));
    let valid = "e.g. https://api.openai.com/v1 or http://localhost:8000/v1";
    let Ok(uri) = base.parse::<Uri>() else {
        return wrong("is not an address", valid);
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return wrong("is not an address", valid);
    };
    if authority.as_str().contains('@') {
        return wrong(
            "carries a user or a password",
            "the key is in OPENAI_API_KEY",
        );
    }
    if uri.query().is_some() {
        return wrong("has a query", valid);
    }
    let host = authority.host();
    let local = is_loopback(host);
    match scheme {
        "https" => Ok(local),
        "http" if local || !key => Ok(local),
        "http" => wrong(
            &format!("the key would travel to {host} for everyone to read"),
            "use https, or unset OPENAI_API_KEY where no key is needed",
        ),
        _ => wrong("is neither http nor https", valid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_travels_encrypted_or_not_at_all() {
        for (base, key, local) in [
            ("https://x.example/v1", true, false),
            ("https://localhost/v1", true, true),
            ("http://localhost:8000/v1", true, true),
            ("http://127.0.0.1:1", true, true),
            ("http://[::1]:1/v1", true, true),
            ("http://x.example", false, false),
        ] {
            assert_eq!(check_address(base, key), Ok(local), "{base}");
        }
        for (base, key, said) in [
            ("http://x.example", true, "would travel to x.example"),
            ("http://localhost.x.example", true, "would travel"),
            ("http://127.x.example", true, "would travel"),
            ("https://me:secret@x.example", true, "carries a user"),
            ("https://x.example/v1?a=b", true, "has a query"),
            ("x.example/v1", true, "is not an address"),
            ("", false, "is not an address"),
            ("ftp://x.example/v1", false, "neither http nor https"),
        ] {
            let error = check_address(base, key).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{error}");
        }
    }
}
