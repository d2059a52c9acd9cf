//! The request target: what is refused because proxies and servers read it differently, and the
//! form of the path that routes are compared with.
//!
//! A route protects a path only if the service behind reads the same path. Servers decode percent
//! signs, fold dot segments, turn backslashes around, cut at NUL and drop `;parameters`, each in
//! its own way. What can be read in more than one way is refused; what has exactly one reading is
//! compared in its decoded form, and forwarded as it came.

use std::borrow::Cow;

use crate::key::format::redact;

/// Why a target is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguity {
    /// Not UTF-8, or with control characters, spaces or a fragment.
    Malformed,
    /// A percent sign without two hexadecimal digits behind it.
    BadEscape,
    /// An encoded slash, backslash, percent sign before such, or control character.
    EncodedDelimiter,
    Backslash,
    /// `.` or `..`, plain, encoded or with parameters.
    DotSegment,
    /// `//`
    EmptySegment,
    /// Neither a path nor a URL of this server.
    NotAPath,
}

impl Ambiguity {
    /// What the caller did.
    pub fn detail(self) -> &'static str {
        match self {
            Ambiguity::Malformed => {
                "The path holds control characters, spaces, a fragment or bytes that are not UTF-8."
            }
            Ambiguity::BadEscape => "The path holds a percent sign without two hexadecimal digits.",
            Ambiguity::EncodedDelimiter => {
                "The path holds an encoded slash, backslash or control character."
            }
            Ambiguity::Backslash => "The path holds a backslash.",
            Ambiguity::DotSegment => "The path holds a dot segment.",
            Ambiguity::EmptySegment => "The path holds an empty segment.",
            Ambiguity::NotAPath => "The request target is not a path.",
        }
    }
}

/// A target with one reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// Percent-decoded.
    pub path: Cow<'a, str>,
    /// The path as a lenient server reads it: without `;parameters`, without what follows a decoded
    /// question mark or number sign, without spaces and dots at the end of a segment, and without
    /// segments of which nothing is left. `None` where it is the same.
    pub lenient: Option<String>,
}

/// The authority of a target in absolute-form, and what follows it: its origin-form.
pub fn absolute_form(raw: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| raw.len() > scheme.len() && raw[..scheme.len()].eq_ignore_ascii_case(scheme))
        .map(|scheme| &raw[scheme.len()..])?;
    let slash = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#'))?;
    (rest[slash] == b'/').then_some(rest.split_at(slash))
}

/// Splits an origin-form target at its first question mark.
pub fn split(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// Reads an origin-form target.
pub fn read(raw: &[u8]) -> Result<Target<'_>, Ambiguity> {
    if let Some(path) = plain_path(raw) {
        return Ok(Target {
            path: Cow::Borrowed(path),
            lenient: None,
        });
    }
    read_closely(raw)
}

fn read_closely(raw: &[u8]) -> Result<Target<'_>, Ambiguity> {
    if raw.first() != Some(&b'/') {
        return Err(Ambiguity::NotAPath);
    }
    let text = std::str::from_utf8(raw).map_err(|_| Ambiguity::Malformed)?;
    if text.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'#') {
        return Err(Ambiguity::Malformed);
    }
    let (path, _) = split(text);
    if path.contains('\\') {
        return Err(Ambiguity::Backslash);
    }
    let path = decode(path)?;
    // The first segment is what stands before the leading slash.
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        // What a lenient server may have in hand when it looks for dot segments.
        let name = segment.split([';', '?', '#']).next().unwrap_or(segment);
        if matches!(name.trim_matches(' '), "." | "..") {
            return Err(Ambiguity::DotSegment);
        }
        // `/;/a` too is `//a` to who drops parameters.
        let is_empty = segment.is_empty() || segment.starts_with(';');
        if is_empty && segments.peek().is_some() {
            return Err(Ambiguity::EmptySegment);
        }
    }
    let lenient = read_leniently(&path);
    Ok(Target { path, lenient })
}

/// The path of a target in which nothing can be read in two ways, as nearly every one is: found in
/// one pass, where [`read`] takes several.
fn plain_path(raw: &[u8]) -> Option<&str> {
    let end = raw.iter().position(|b| *b == b'?').unwrap_or(raw.len());
    let (path, query) = raw.split_at(end);
    let mut before = 0;
    let is_plain = path.iter().all(|&b| {
        let fits = b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'_' | b'~')
            || (b == b'/' && before != b'/');
        before = b;
        fits
    });
    let is_sound = |b: &u8| b.is_ascii_graphic() && *b != b'#';
    if path.first() == Some(&b'/') && is_plain && query.iter().all(is_sound) {
        std::str::from_utf8(path).ok()
    } else {
        None
    }
}

/// However often a path was encoded, a log's reader could undo it.
const DECODINGS_MAX: usize = 4;

/// `path` for a log: as it came, but without the secrets of what looks like keys. A path that
/// holds one in percent-encoding is shown decoded.
pub fn without_keys(path: &str) -> String {
    let mut decoded = path.to_owned();
    for _ in 0..DECODINGS_MAX {
        if !decoded.contains('%') {
            break;
        }
        let bytes = percent_encoding::percent_decode_str(&decoded);
        decoded = bytes.decode_utf8_lossy().into_owned();
    }
    match redact(&decoded) {
        Cow::Borrowed(_) => path.to_owned(),
        Cow::Owned(shown) => shown,
    }
}

fn read_leniently(path: &str) -> Option<String> {
    let cut = path.split(['?', '#']).next().unwrap_or(path);
    let is_plain = |segment: &str| !segment.contains(';') && !segment.ends_with(['.', ' ']);
    if cut.len() == path.len() && path.split('/').all(is_plain) {
        return None;
    }
    // Nothing may be left of a segment: `/.../a` is `//a` then, and that is `/a` to many.
    let names = cut.split('/').filter_map(|segment| {
        let name = segment.split(';').next().unwrap_or(segment);
        Some(name.trim_end_matches(['.', ' '])).filter(|name| !name.is_empty())
    });
    Some(names.fold(String::new(), |path, name| path + "/" + name))
}

fn decode(path: &str) -> Result<Cow<'_, str>, Ambiguity> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let value = hex_pair(bytes.next(), bytes.next()).ok_or(Ambiguity::BadEscape)?;
        match value {
            b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(Ambiguity::EncodedDelimiter),
            value => decoded.push(value),
        }
    }
    // A server that decodes twice would see another path. Its second escape may itself be written
    // with escapes, so what counts is the decoded form.
    let is_escape =
        |three: &[u8]| three[0] == b'%' && hex_pair(Some(three[1]), Some(three[2])).is_some();
    if decoded.windows(3).any(is_escape) {
        return Err(Ambiguity::EncodedDelimiter);
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| Ambiguity::Malformed)
}

fn hex_pair(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The short way through leads where the long one leads.
        #[test]
        fn a_plain_path_is_read_as_any_other(raw in "/?[a~/.;%2f ?#\\\\é-]{0,8}") {
            if let Some(path) = plain_path(raw.as_bytes()) {
                let target = read_closely(raw.as_bytes()).unwrap();
                prop_assert_eq!(target.path, path);
                prop_assert_eq!(target.lenient, None);
            }
        }
    }

    #[test]
    fn what_has_one_reading() {
        for (raw, path) in [
            ("/", "/"),
            ("/orders/1", "/orders/1"),
            ("/orders/", "/orders/"),
            ("/%6frders?x=../..%2f", "/orders"),
            ("/a.b/..c/d..", "/a.b/..c/d.."),
            ("/caf%C3%A9", "/café"),
            ("/café", "/café"),
            ("/100%25", "/100%"),
            ("/a%20b", "/a b"),
            ("/a?b?c", "/a"),
            ("/a/;jsessionid=1", "/a/;jsessionid=1"),
        ] {
            assert_eq!(read(raw.as_bytes()).unwrap().path, path, "{raw}");
        }
        for (raw, lenient) in [
            ("/admin;v=1/x;y", "/admin/x"),
            ("/admin%3fx/y", "/admin"),
            ("/admin%23x", "/admin"),
            ("/admin./x", "/admin/x"),
            ("/admin%20/x", "/admin/x"),
            ("/.../admin", "/admin"),
            ("/a/%20/...;x/b/;y", "/a/b"),
            ("/...", ""),
        ] {
            let target = read(raw.as_bytes()).unwrap();
            assert_eq!(target.lenient.as_deref(), Some(lenient), "{raw}");
        }
        assert_eq!(read(b"/a.b/c").unwrap().lenient, None);
    }

    #[test]
    fn what_has_more_than_one_reading() {
        use Ambiguity::*;
        for (raw, why) in [
            (&b"/a/../b"[..], DotSegment),
            (b"/a/./b", DotSegment),
            (b"/..", DotSegment),
            (b"/a/%2e%2E/b", DotSegment),
            (b"/a/.%2e/b", DotSegment),
            (b"/a/..;/b", DotSegment),
            (b"/a/..;x=y/b", DotSegment),
            (b"/a%2fb", EncodedDelimiter),
            (b"/a%2Fb", EncodedDelimiter),
            (b"/a%5cb", EncodedDelimiter),
            (b"/a%00", EncodedDelimiter),
            (b"/a%0d%0ab", EncodedDelimiter),
            (b"/a%252fb", EncodedDelimiter),
            (b"/a%252e%252e/b", EncodedDelimiter),
            (b"/a%25252e", EncodedDelimiter),
            (b"/a/%25%32%65%252e", EncodedDelimiter),
            (b"/a%25%32f", EncodedDelimiter),
            (b"/a\\b", Backslash),
            (b"/a//b", EmptySegment),
            (b"//a", EmptySegment),
            (b"/;/a", EmptySegment),
            (b"/;x=1/a", EmptySegment),
            (b"/%3b/a", EmptySegment),
            (b"/%2561", EncodedDelimiter),
            (b"/a/..%20/b", DotSegment),
            (b"/a/%20..;x/b", DotSegment),
            (b"/a/.%20", DotSegment),
            (b"/a/..%3Fx", DotSegment),
            (b"/a/..%23", DotSegment),
            (b"/a%", BadEscape),
            (b"/a%2", BadEscape),
            (b"/a%zz", BadEscape),
            (b"/a%u002e", BadEscape),
            (b"/a#b", Malformed),
            (b"/a b", Malformed),
            (b"/a\tb", Malformed),
            (b"/a\x00b", Malformed),
            (b"/a\xff", Malformed),
            (b"/%c0%ae%c0%ae/", Malformed),
            (b"/%ff", Malformed),
            (b"*", NotAPath),
            (b"", NotAPath),
            (b"a/b", NotAPath),
        ] {
            assert_eq!(read(raw), Err(why), "{}", String::from_utf8_lossy(raw));
        }
    }

    #[test]
    fn a_log_shows_paths_without_secrets() {
        let secret = "a1B2".repeat(13);
        let shown = "/x/sk_live_4fzN8cQ2pLrT_...";
        for (path, expected) in [
            ("/a%20b/c".to_owned(), "/a%20b/c"),
            (format!("/x/sk_live_4fzN8cQ2pLrT_{secret}"), shown),
            (format!("/x/%73k%5flive_4fzN8cQ2pLrT_{secret}"), shown),
            (format!("/x/%2573k%255flive_4fzN8cQ2pLrT_{secret}"), shown),
            (format!("/x/sk_live_4fzN8cQ2pLrT_{secret}%41%42"), shown),
        ] {
            assert_eq!(without_keys(&path), expected);
        }
    }

    #[test]
    fn absolute_form_has_an_authority_and_an_origin_form() {
        for (raw, parts) in [
            ("http://host/a?b", Some(("host", "/a?b"))),
            ("HTTPS://host:1/a", Some(("host:1", "/a"))),
            ("http:///a", Some(("", "/a"))),
            ("http://host", None),
            ("http://host?x/y", None),
            ("http://host#x/y", None),
            ("ftp://host/a", None),
            ("/a?b", None),
            ("*", None),
            ("", None),
        ] {
            let expected = parts.map(|(host, path)| (host.as_bytes(), path.as_bytes()));
            assert_eq!(absolute_form(raw.as_bytes()), expected, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = absolute_form(&raw);
            let _ = read(&raw);
        }

        /// Whatever is accepted is stable: no second decoding, no folding changes it any more.
        #[test]
        fn what_is_accepted_has_no_traps(raw in "/[a-c./%25e;\\\\]{0,20}") {
            if let Ok(target) = read(raw.as_bytes()) {
                prop_assert!(!target.path.split('/').any(|segment| segment == "." || segment == ".."));
                prop_assert!(!target.path.contains("//") && !target.path.contains('\\'));
                let twice = read(target.path.as_bytes());
                let is_dotted = matches!(twice, Err(Ambiguity::DotSegment | Ambiguity::EncodedDelimiter));
                prop_assert!(!is_dotted, "{:?} -> {:?}", raw, target);
            }
        }
    }
}
