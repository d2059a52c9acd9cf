//! The cookie that holds a session's token: scripts can't read it, and no other site's request carries it.
//! Where people reach the admin port by https, browsers send it over nothing else, and take it from this
//! host alone (`__Host-`).

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};

use super::token::Token;
use crate::config::settings::DashboardSettings;

/// Its name, and where it is sent.
#[derive(Debug, Clone, Copy)]
pub struct SessionCookie {
    name: &'static str,
    attributes: &'static str,
}

const PLAIN: SessionCookie = SessionCookie {
    name: "sidekey_session",
    attributes: "Path=/dashboard; HttpOnly; SameSite=Strict",
};
/// The prefix asks for this path.
const SECURE: SessionCookie = SessionCookie {
    name: "__Host-sidekey_session",
    attributes: "Path=/; HttpOnly; SameSite=Strict; Secure",
};

impl SessionCookie {
    /// The one for how people reach the admin port.
    pub fn of(settings: &DashboardSettings) -> Self {
        match &settings.url {
            Some(url) if url.starts_with("https://") => SECURE,
            _ => PLAIN,
        }
    }

    /// The token in a request. Of several the first that is one: browsers send that of the longest path
    /// first.
    pub fn read(self, headers: &HeaderMap) -> Option<Token> {
        let lines = headers.get_all(COOKIE).iter();
        let pairs = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'));
        pairs
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.name)
            .find_map(|(_, value)| Token::parse(value))
    }

    /// Hands `token` to the browser, until it is closed.
    pub fn set(self, token: &Token) -> HeaderValue {
        field(format!(
            "{}={}; {}",
            self.name,
            token.reveal(),
            self.attributes
        ))
    }

    /// Takes it back.
    pub fn cleared(self) -> HeaderValue {
        field(format!("{}=; {}; Max-Age=0", self.name, self.attributes))
    }
}

fn field(text: String) -> HeaderValue {
    // Plain ASCII by what it is made of.
    let field = HeaderValue::from_str(&text);
    let mut field = field.unwrap_or(HeaderValue::from_static(""));
    field.set_sensitive(true);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, line.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_token_is_found_among_others() {
        let token = "t".repeat(43);
        let ours = format!("sidekey_session={token}");
        for lines in [
            &[&*ours][..],
            &[&format!("a=1; {ours}")],
            &[&format!("sidekey_session=; {ours};b=2")],
            &["a=1", &ours],
            &[&format!("sidekey_session=broken;{ours}")],
        ] {
            let found = PLAIN.read(&sent(lines)).unwrap();
            assert_eq!(found.reveal(), token, "{lines:?}");
        }
        for lines in [
            &[][..],
            &["sidekey_session"],
            &["sidekey_session="],
            &[&*format!("other_{ours}")],
            &[&*format!("SIDEKEY_SESSION={token}")],
        ] {
            assert!(PLAIN.read(&sent(lines)).is_none(), "{lines:?}");
        }
        assert!(SECURE.read(&sent(&[&ours])).is_none());
    }
}
