//! The three forms of a file of keys, each line as the JSON object that the API takes. What can't be one
//! is refused here, with the reason and nothing of the line: it may hold a key.

use std::io::{BufRead, Read};

use serde_json::{Map, Value, json};

use super::csv_lines;

/// A line has at most this many bytes.
pub const LINE_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line
    Jsonl,
    /// A line with the columns' names, then one key a line; lists are separated by spaces
    Csv,
    /// USER:HASH lines
    Htpasswd,
}

impl Format {
    /// What a file's name says.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        match name.rsplit('.').next().unwrap_or_default() {
            "jsonl" | "ndjson" => Some(Format::Jsonl),
            "csv" => Some(Format::Csv),
            _ if name.contains("htpasswd") => Some(Format::Htpasswd),
            _ => None,
        }
    }
}

/// What lines get that don't say.
#[derive(Clone, Default)]
pub struct Defaults {
    pub tenant_id: Option<String>,
    pub environment: Option<String>,
    pub scopes: Vec<String>,
}

impl Defaults {
    /// The object of a line as JSON, with what it lacks.
    pub fn filled(&self, mut members: Map<String, Value>) -> String {
        let mut give = |name: &str, value: Value| {
            let stands = members.get(name).is_some_and(|value| !value.is_null());
            if !stands {
                members.insert(name.to_owned(), value);
            }
        };
        if let Some(tenant) = &self.tenant_id {
            give("tenant_id", json!(tenant));
        }
        if let Some(environment) = &self.environment {
            give("environment", json!(environment));
        }
        if !self.scopes.is_empty() {
            give("scopes", json!(self.scopes));
        }
        Value::Object(members).to_string()
    }
}

/// A line of the file: where it stands, and its object as JSON, or why there is none.
pub struct Line {
    pub number: u64,
    pub object: Result<String, String>,
}

/// Gives each line of `input` to `take`, until that wants no more. An error is of the file as a whole.
pub fn read(
    format: Format,
    input: impl BufRead,
    defaults: &Defaults,
    take: &mut dyn FnMut(Line) -> bool,
) -> Result<(), String> {
    match format {
        Format::Jsonl => read_texts(input, &|text| json_line(text, defaults), take),
        Format::Htpasswd => read_texts(input, &|text| htpasswd_line(text, defaults), take),
        Format::Csv => csv_lines::read(input, defaults, take),
    }
}

pub fn unreadable(error: &std::io::Error) -> String {
    format!("it can't be read: {error}")
}

/// Lines of text; those that are empty hold nothing.
fn read_texts(
    mut input: impl BufRead,
    object: &dyn Fn(&str) -> Option<Result<String, String>>,
    take: &mut dyn FnMut(Line) -> bool,
) -> Result<(), String> {
    let mut bytes = Vec::new();
    let mut number = 0;
    loop {
        bytes.clear();
        let mut limited = (&mut input).take(LINE_BYTES_MAX as u64 + 1);
        let length = limited
            .read_until(b'\n', &mut bytes)
            .map_err(|error| unreadable(&error))?;
        if length == 0 {
            return Ok(());
        }
        number += 1;
        let read = if length > LINE_BYTES_MAX && bytes.last() != Some(&b'\n') {
            input
                .skip_until(b'\n')
                .map_err(|error| unreadable(&error))?;
            Some(Err(too_long()))
        } else {
            match std::str::from_utf8(&bytes) {
                Ok(text) => object(text.trim_start_matches('\u{feff}').trim()),
                Err(_) => Some(Err("is not UTF-8 text".to_owned())),
            }
        };
        if read.is_some_and(|object| !take(Line { number, object })) {
            return Ok(());
        }
    }
}

pub fn too_long() -> String {
    format!("has more than {LINE_BYTES_MAX} bytes")
}

fn json_line(text: &str, defaults: &Defaults) -> Option<Result<String, String>> {
    if text.is_empty() {
        return None;
    }
    // Where it broke, not what stands there.
    let read: Result<Map<String, Value>, _> = serde_json::from_str(text);
    Some(match read {
        Ok(members) => Ok(defaults.filled(members)),
        Err(error) => Err(format!("is not a JSON object (column {})", error.column())),
    })
}

/// `user:hash`; the user is the key's name. Lines that begin with # are comments.
fn htpasswd_line(text: &str, defaults: &Defaults) -> Option<Result<String, String>> {
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let Some((user, hash)) = text.split_once(':') else {
        return Some(Err("is not USER:HASH".to_owned()));
    };
    if user.is_empty() || hash.is_empty() {
        return Some(Err("has no user or no hash".to_owned()));
    }
    let mut members = Map::new();
    members.insert("name".to_owned(), json!(user));
    members.insert("htpasswd".to_owned(), json!(text));
    Some(Ok(defaults.filled(members)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            tenant_id: Some("acme".to_owned()),
            environment: Some("live".to_owned()),
            scopes: vec!["a:b".to_owned()],
        }
    }

    type Read = Vec<(u64, Result<Value, String>)>;

    fn read_all(format: Format, text: &[u8], defaults: &Defaults) -> Result<Read, String> {
        let mut lines = Vec::new();
        read(format, text, defaults, &mut |line| {
            let object = line.object.map(|text| serde_json::from_str(&text).unwrap());
            lines.push((line.number, object));
            true
        })?;
        Ok(lines)
    }

    #[test]
    fn htpasswd_lines_get_everything_else_from_the_options() {
        let text = b"# users\n\nalice:$2y$10$abc\r\n  bob:$apr1$x:y  \nnobody\n:$2y$\ncarol:\n";
        let key = |name: &str, line: &str| json!({"name": name, "htpasswd": line, "tenant_id": "acme", "environment": "live", "scopes": ["a:b"]});
        let lines = read_all(Format::Htpasswd, text, &defaults()).unwrap();
        assert_eq!(
            lines,
            [
                (3, Ok(key("alice", "alice:$2y$10$abc"))),
                (4, Ok(key("bob", "bob:$apr1$x:y"))),
                (5, Err("is not USER:HASH".to_owned())),
                (6, Err("has no user or no hash".to_owned())),
                (7, Err("has no user or no hash".to_owned())),
            ]
        );
    }

    #[test]
    fn json_lines_get_what_they_lack() {
        let text = "\u{feff}{\"name\":\"x\",\"tenant_id\":\"own\",\"scopes\":[]}\n\n[1]\n{\"secret\": sesame}\n{\"name\":\"y\",\"tenant_id\":null}";
        let lines = read_all(Format::Jsonl, text.as_bytes(), &defaults()).unwrap();
        assert_eq!(lines.len(), 4);
        assert_eq!(
            lines[0],
            (
                1,
                Ok(json!({"name": "x", "tenant_id": "own", "scopes": [], "environment": "live"}))
            )
        );
        for (line, number) in [(&lines[1], 3), (&lines[2], 4)] {
            assert_eq!(line.0, number);
            let problem = line.1.clone().unwrap_err();
            assert!(
                problem.starts_with("is not a JSON object (column") && !problem.contains("sesame"),
                "{problem}"
            );
        }
        let last = lines[3].1.clone().unwrap();
        assert_eq!((&last["tenant_id"], lines[3].0), (&json!("acme"), 5));
        let bare = read_all(Format::Jsonl, b"{\"name\":\"x\"}\n", &Defaults::default()).unwrap();
        assert_eq!(bare, [(1, Ok(json!({"name": "x"})))]);
    }

    #[test]
    fn long_lines_are_refused_alone() {
        let long = "x".repeat(LINE_BYTES_MAX * 3);
        let text = format!("{{\"name\":\"{long}\"}}\n{{\"name\":\"y\"}}\n");
        let lines = read_all(Format::Jsonl, text.as_bytes(), &Defaults::default()).unwrap();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].1.is_err());
        assert_eq!(lines[1], (2, Ok(json!({"name": "y"}))));
    }

    #[test]
    fn names_of_files_say_what_they_are() {
        for (name, format) in [
            ("keys.jsonl", Some(Format::Jsonl)),
            ("/x.csv/KEYS.NDJSON", Some(Format::Jsonl)),
            ("a.CSV", Some(Format::Csv)),
            ("/etc/nginx/.htpasswd", Some(Format::Htpasswd)),
            ("htpasswd-users", Some(Format::Htpasswd)),
            ("keys.txt", None),
            ("-", None),
        ] {
            assert_eq!(Format::of_name(name), format, "{name}");
        }
    }
}
