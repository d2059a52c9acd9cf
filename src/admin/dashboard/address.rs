//! Addresses in which a key was pasted. They end up in histories and in logs, so nobody is answered at one:
//! whoever comes with a key in it is led on to where only the key's id stands.

use std::borrow::Cow;

use axum::http::Uri;

use crate::key::format::{Presented, redact};

/// The same path and query without the secrets in it; nothing where there are none.
pub fn without_secrets(uri: &Uri) -> Option<String> {
    let mut is_changed = false;
    let mut clean = |text: &str| {
        let harmless = harmless(text);
        is_changed |= harmless != text;
        harmless.into_owned()
    };
    let path: Vec<String> = uri.path().split('/').map(&mut clean).collect();
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        query.append_pair(&clean(&name), &clean(&value));
    }
    let (path, query) = (path.join("/"), query.finish());
    let mark = if query.is_empty() { "" } else { "?" };
    is_changed.then(|| format!("{path}{mark}{query}"))
}

/// A key becomes its id, by which it is found; of a text with one in it the secret is left out.
fn harmless(text: &str) -> Cow<'_, str> {
    match Presented::parse(text.trim()) {
        Some(key) => Cow::Owned(key.id().to_string()),
        None => redact(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4fzN8cQ2pLrT";

    fn cleaned(address: &str) -> Option<String> {
        let key = format!("sk_live_{ID}_{}", "s".repeat(54));
        without_secrets(&address.replace("KEY", &key).parse().unwrap())
    }

    #[test]
    fn addresses_without_a_key_stay() {
        for address in [
            "/",
            "/a?q=b+c&q=%00&x",
            "/a/%2F?q=sk_live_4fzN8cQ2pLrT",
            "/?",
        ] {
            assert_eq!(cleaned(address), None, "{address}");
        }
    }

    #[test]
    fn keys_become_ids_and_what_is_beside_them_stays() {
        for (given, expected) in [
            ("/a?q=KEY&sort=name", format!("/a?q={ID}&sort=name")),
            ("/a?q=++KEY%0A", format!("/a?q={ID}")),
            ("/a/KEY/edit", format!("/a/{ID}/edit")),
            ("/a?KEY", format!("/a?{ID}=")),
            ("/a?x=y&q=of+KEY", format!("/a?x=y&q=of+sk_live_{ID}_...")),
            (
                "/a?next=%2Fdashboard%3Fq%3DKEY%26r%3Ds",
                format!("/a?next=%2Fdashboard%3Fq%3Dsk_live_{ID}_...%26r%3Ds"),
            ),
        ] {
            let clean = cleaned(given).unwrap();
            assert_eq!(clean, expected);
            assert_eq!(cleaned(&clean), None, "it ends there");
        }
    }
}
