//! The three forms of a file of keys, each line as the JSON object that the API takes. What can't be one
//! is refused here, with the reason and nothing of the line: it may hold a key.

use std::io::{BufRead, Read};

use serde_json::{Map, Value, json};

/// A line has at most this many bytes.
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// What a CSV file may tell of a key.
const COLUMNS: [&str; 15] = [
    "name",
    "tenant_id",
    "environment",
    "scopes",
    "rate_limits",
    "expires_at",
    "allowed_ips",
    "contact_email",
    "rotation_days",
    "metadata",
    "external_id",
    "key",
    "user",
    "hash",
    "htpasswd",
];

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
    fn fill(&self, members: &mut Map<String, Value>) {
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
        Format::Csv => read_csv(input, defaults, take),
    }
}

fn unreadable(error: &std::io::Error) -> String {
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

fn too_long() -> String {
    format!("has more than {LINE_BYTES_MAX} bytes")
}

fn json_line(text: &str, defaults: &Defaults) -> Option<Result<String, String>> {
    if text.is_empty() {
        return None;
    }
    // Where it broke, not what stands there.
    let read: Result<Map<String, Value>, _> = serde_json::from_str(text);
    Some(match read {
        Ok(mut members) => {
            defaults.fill(&mut members);
            Ok(Value::Object(members).to_string())
        }
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
    defaults.fill(&mut members);
    Some(Ok(Value::Object(members).to_string()))
}

fn read_csv(
    input: impl BufRead,
    defaults: &Defaults,
    take: &mut dyn FnMut(Line) -> bool,
) -> Result<(), String> {
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(input);
    let columns: Vec<String> = match reader.headers() {
        Ok(columns) => columns.iter().map(str::to_owned).collect(),
        Err(error) => {
            return Err(format!(
                "its first line can't be read: {}",
                csv_problem(&error)
            ));
        }
    };
    check_columns(&columns)?;
    for record in reader.records() {
        let line = match record {
            Ok(record) => Line {
                number: record.position().map_or(0, csv::Position::line),
                object: csv_line(&columns, &record, defaults),
            },
            Err(error) => {
                if let csv::ErrorKind::Io(error) = error.kind() {
                    return Err(unreadable(error));
                }
                Line {
                    number: error.position().map_or(0, csv::Position::line),
                    object: Err(csv_problem(&error)),
                }
            }
        };
        if !take(line) {
            break;
        }
    }
    Ok(())
}

/// The library's own words may quote a field.
fn csv_problem(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8 text".to_owned(),
        csv::ErrorKind::Io(error) => unreadable(error),
        _ => "is not CSV".to_owned(),
    }
}

fn check_columns(columns: &[String]) -> Result<(), String> {
    let unknown = columns
        .iter()
        .find(|column| !COLUMNS.contains(&column.as_str()));
    match unknown {
        None => Ok(()),
        Some(_) => Err(format!(
            "its first line must name the columns, which may be {}",
            COLUMNS.join(", ")
        )),
    }
}

fn csv_line(
    columns: &[String],
    record: &csv::StringRecord,
    defaults: &Defaults,
) -> Result<String, String> {
    if record.as_slice().len() > LINE_BYTES_MAX {
        return Err(too_long());
    }
    if record.len() != columns.len() {
        return Err(format!(
            "has {} columns in place of {}",
            record.len(),
            columns.len()
        ));
    }
    let mut members = Map::new();
    for (column, text) in columns.iter().zip(record) {
        if !text.is_empty() {
            members.insert(column.clone(), csv_value(column, text));
        }
    }
    defaults.fill(&mut members);
    Ok(Value::Object(members).to_string())
}

/// What can't be read as its kind goes as text, and the API says what it should be.
fn csv_value(column: &str, text: &str) -> Value {
    match column {
        "scopes" | "allowed_ips" => text.split_whitespace().collect(),
        "rate_limits" | "metadata" | "rotation_days" => {
            serde_json::from_str(text).unwrap_or_else(|_| json!(text))
        }
        _ => json!(text),
    }
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
    fn csv_columns_become_members() {
        let text = b"name,scopes,rate_limits,rotation_days,metadata,key\n\
            x,a:b c:d,\"[{\"\"name\"\":\"\"d\"\",\"\"quota\"\":1,\"\"window_seconds\"\":1}]\",30,\"{\"\"note\"\":\"\"two\nlines\"\"}\",k1\n\
            y,,,soon,,k2\n\
            z,a\n\
            \xff,,,,,\n";
        let lines = read_all(Format::Csv, text, &defaults()).unwrap();
        assert_eq!(lines.len(), 4, "{lines:?}");
        let first = lines[0].1.clone().unwrap();
        assert_eq!(first["scopes"], json!(["a:b", "c:d"]));
        assert_eq!(first["rate_limits"][0]["quota"], 1);
        assert_eq!(
            (&first["rotation_days"], &first["key"]),
            (&json!(30), &json!("k1"))
        );
        // A raw line break in a JSON string is none: the API says so.
        assert!(first["metadata"].is_string());
        let second = lines[1].1.clone().unwrap();
        assert_eq!(second["rotation_days"], "soon");
        assert_eq!(
            (&second["scopes"], second.get("rate_limits")),
            (&json!(["a:b"]), None)
        );
        assert_eq!(
            lines.iter().map(|line| line.0).collect::<Vec<_>>(),
            [2, 4, 5, 6]
        );
        assert_eq!(lines[2].1, Err("has 2 columns in place of 6".to_owned()));
        assert_eq!(lines[3].1, Err("is not UTF-8 text".to_owned()));
    }

    #[test]
    fn a_csv_without_its_first_line_is_refused_unread() {
        let told = read_all(Format::Csv, b"x,acme,hunter2\n", &defaults()).unwrap_err();
        assert!(
            told.contains("must name the columns") && !told.contains("hunter2"),
            "{told}"
        );
    }

    #[test]
    fn long_lines_are_refused_alone() {
        let long = "x".repeat(LINE_BYTES_MAX * 3);
        let text = format!("{{\"name\":\"{long}\"}}\n{{\"name\":\"y\"}}\n");
        let lines = read_all(Format::Jsonl, text.as_bytes(), &Defaults::default()).unwrap();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].1.is_err());
        assert_eq!(lines[1], (2, Ok(json!({"name": "y"}))));
        let csv = format!("name\n{long}\ny\n");
        let lines = read_all(Format::Csv, csv.as_bytes(), &Defaults::default()).unwrap();
        assert!(lines[0].1.is_err() && lines[1].1.is_ok());
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
