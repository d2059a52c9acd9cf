//! Reading a list of existing keys: JSON lines or CSV, line by line, so that a bad line costs the
//! others nothing. Secrets stand in these lines, maybe in the wrong column: no error quotes anything
//! that was sent.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::input::{self, FieldError};
use crate::clock::Timestamp;
use crate::key::{Catalogue, Login, MintKeys, PlainKey, ScopePattern, TenantId};
use crate::manage::{IMPORT_COLUMNS as COLUMNS, ImportSecret, ImportedKey};

/// Lines with keys that one request may have.
pub const LINES_MAX: usize = 1000;
/// An external id has at most this many characters.
pub const EXTERNAL_ID_LEN_MAX: usize = 200;

/// Those with secrets.
const SECRET_COLUMNS: [&str; 3] = ["key", "hash", "htpasswd"];
/// What an error is about that is about no column.
const WHOLE_LINE: &str = "line";
/// Parts of a line that are this short are not taken out of errors: they tell nothing.
const QUOTED_LEN_MIN: usize = 3;

/// One line with a key.
#[derive(Debug)]
pub struct Line {
    /// Counted from 1, with all lines of the body.
    pub number: u64,
    pub fields: Result<Map<String, Value>, FieldError>,
}

/// Why a whole list can't be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error("has more than {LINES_MAX} keys; send them in several requests")]
    TooManyLines,
    #[error("the header line of the CSV: {0}")]
    Header(String),
}

fn error(field: &str, detail: impl Into<String>) -> FieldError {
    FieldError {
        field: field.to_owned(),
        detail: detail.into(),
    }
}

/// Reads one JSON object a line. Empty lines are skipped.
pub fn json_lines(text: &str) -> Result<Vec<Line>, ListError> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.split('\n')) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let fields = match serde_json::from_str(line) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(error(WHOLE_LINE, "is not a JSON object")),
            // Where it broke, not what stood there.
            Err(broken) => Err(error(
                WHOLE_LINE,
                format!("is not JSON: column {}", broken.column()),
            )),
        };
        push(&mut lines, Line { number, fields })?;
    }
    Ok(lines)
}

fn push(lines: &mut Vec<Line>, line: Line) -> Result<(), ListError> {
    if lines.len() >= LINES_MAX {
        return Err(ListError::TooManyLines);
    }
    lines.push(line);
    Ok(())
}

/// Reads a header line and one record a key. Empty cells are absent.
pub fn csv_lines(text: &str) -> Result<Vec<Line>, ListError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_reader(text.as_bytes());
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(_) => return Err(ListError::Header("it can't be read".to_owned())),
    };
    check_header(&header)?;
    let mut lines = Vec::new();
    let mut counted = Counted::default();
    for record in reader.records() {
        let (position, fields) = match &record {
            Ok(record) => (record.position(), csv_fields(&header, record)),
            Err(broken) => (broken.position(), Err(error(WHOLE_LINE, "is not CSV"))),
        };
        let byte = position.map_or(0, csv::Position::byte);
        let number = counted.line_at(text, usize::try_from(byte).unwrap_or(usize::MAX));
        push(&mut lines, Line { number, fields })?;
    }
    Ok(lines)
}

/// How many lines end before a place. The reader's own count is one too low behind a `\r\n`.
#[derive(Default)]
struct Counted {
    byte: usize,
    ended: u64,
}

impl Counted {
    /// The line of the record that the reader has found at `byte`; places only go up.
    fn line_at(&mut self, text: &str, byte: usize) -> u64 {
        let bytes = text.as_bytes();
        let is_end = |b: &&u8| matches!(**b, b'\r' | b'\n');
        let rest = bytes.get(byte..).unwrap_or_default();
        let start = byte + rest.iter().take_while(is_end).count();
        let passed = bytes.get(self.byte..start).unwrap_or_default();
        self.ended += passed.iter().filter(|b| **b == b'\n').count() as u64;
        self.byte = start;
        self.ended + 1
    }
}

/// Where the header is missing, its place is taken by a key, which must not be quoted.
fn check_header(header: &csv::StringRecord) -> Result<(), ListError> {
    let mut seen = BTreeSet::new();
    for (number, name) in (1..).zip(header) {
        if !COLUMNS.contains(&name.trim()) {
            let known = COLUMNS.join(", ");
            return Err(ListError::Header(format!(
                "column {number} has none of these names: {known}"
            )));
        }
        if !seen.insert(name.trim()) {
            let detail = format!("column {number} has the name of an earlier one");
            return Err(ListError::Header(detail));
        }
    }
    Ok(())
}

fn csv_fields(
    header: &csv::StringRecord,
    record: &csv::StringRecord,
) -> Result<Map<String, Value>, FieldError> {
    if record.len() != header.len() {
        let detail = format!(
            "has {} columns where the header has {}",
            record.len(),
            header.len()
        );
        return Err(error(WHOLE_LINE, detail));
    }
    let mut fields = Map::new();
    for (name, cell) in header.iter().zip(record) {
        if !cell.is_empty() {
            let name = name.trim();
            fields.insert(name.to_owned(), csv_value(name, cell)?);
        }
    }
    Ok(fields)
}

/// Lists are separated by spaces, objects are JSON.
fn csv_value(name: &str, cell: &str) -> Result<Value, FieldError> {
    match name {
        "scopes" | "allowed_ips" => Ok(cell.split_whitespace().map(Value::from).collect()),
        "rate_limits" | "metadata" => {
            serde_json::from_str(cell).map_err(|_| error(name, "must be JSON"))
        }
        "rotation_days" => {
            let number = cell.trim().parse::<u64>();
            number
                .map(Value::from)
                .map_err(|_| error(name, "must be a whole number"))
        }
        _ => Ok(Value::from(cell)),
    }
}

/// What lines are read with.
pub struct Rules<'a> {
    /// Whose keys they are where a line doesn't say.
    pub own_tenant: Option<&'a TenantId>,
    pub catalogue: &'a Catalogue,
    pub mint_keys: &'a MintKeys,
    pub allow_weak: bool,
    pub now: Timestamp,
}

/// Reads the key of a line, by the rules of a creation.
pub fn imported_key(
    fields: Map<String, Value>,
    rules: &Rules<'_>,
) -> Result<ImportedKey, Vec<FieldError>> {
    let mut errors = Vec::new();
    let sent = Value::Object(fields.clone());
    let mut fields = fields;
    if fields.keys().any(|name| !COLUMNS.contains(&name.as_str())) {
        let detail = format!("has something that is not one of: {}", COLUMNS.join(", "));
        errors.push(error(WHOLE_LINE, detail));
        fields.retain(|name, _| COLUMNS.contains(&name.as_str()));
    }
    if let Some(column) = repeats_secret(&fields) {
        errors.push(error(
            column,
            "holds the secret itself, which is kept nowhere",
        ));
    }
    let secret = secret(&mut fields, rules).map_err(|error| errors.push(error));
    if let Err(error) = move_external_id(&mut fields) {
        errors.push(error);
    }
    let new = input::new_key(fields, rules.own_tenant, rules.catalogue, rules.now);
    let new = new.map_err(|more| errors.extend(more));
    match (new, secret) {
        (Ok(new), Ok(secret)) if errors.is_empty() => {
            let key = ImportedKey { new, secret };
            check_administration(&key).map_err(|error| vec![error])?;
            Ok(key)
        }
        _ => Err(errors
            .into_iter()
            .map(|error| unquoted(error, &sent))
            .collect()),
    }
}

/// Takes the secret out of a line.
fn secret(fields: &mut Map<String, Value>, rules: &Rules<'_>) -> Result<ImportSecret, FieldError> {
    let mut take = |name: &'static str| match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(error(name, "must be a text")),
    };
    let (key, user, hash, htpasswd) = (
        take("key")?,
        take("user")?,
        take("hash")?,
        take("htpasswd")?,
    );
    match (key, user, hash, htpasswd) {
        (Some(key), None, None, None) => {
            let key = PlainKey::new(&key, rules.mint_keys, rules.allow_weak);
            let key = key.map_err(|refused| error("key", refused.to_string()))?;
            Ok(ImportSecret::Plain(key))
        }
        (None, Some(user), Some(hash), None) => login(&user, &hash, ["user", "hash"]),
        (None, None, None, Some(line)) => {
            let (user, hash) = line
                .trim()
                .split_once(':')
                .ok_or_else(|| error("htpasswd", "must be a line user:hash"))?;
            login(user, hash, ["htpasswd", "htpasswd"])
        }
        (None, Some(_), None, None) => Err(error("hash", "is missing")),
        (None, None, Some(_), None) => Err(error("user", "is missing")),
        _ => Err(error(
            "key",
            "a line needs exactly one of: key; user and hash; htpasswd",
        )),
    }
}

/// `columns` are those of the user and of the hash.
fn login(user: &str, hash: &str, columns: [&str; 2]) -> Result<ImportSecret, FieldError> {
    use crate::key::imported::LoginError;
    let login = Login::new(user, hash).map_err(|refused| match refused {
        LoginError::User => error(columns[0], format!("the user {refused}")),
        LoginError::Hash | LoginError::Cost(_) => error(columns[1], format!("the hash {refused}")),
    })?;
    Ok(ImportSecret::Login(login))
}

/// The id that the key has elsewhere stands in its metadata.
fn move_external_id(fields: &mut Map<String, Value>) -> Result<(), FieldError> {
    const NAME: &str = "external_id";
    let id = match fields.remove(NAME) {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(id)) if (1..=EXTERNAL_ID_LEN_MAX).contains(&id.chars().count()) => id,
        Some(_) => {
            let detail = format!("must be a text of 1 to {EXTERNAL_ID_LEN_MAX} characters");
            return Err(error(NAME, detail));
        }
    };
    let metadata = fields
        .entry("metadata")
        .and_modify(|metadata| {
            if metadata.is_null() {
                *metadata = Value::Object(Map::new());
            }
        })
        .or_insert_with(|| Value::Object(Map::new()));
    // What is no object is reported where metadata are read.
    if let Value::Object(metadata) = metadata
        && metadata.insert(NAME.to_owned(), id.into()).is_some()
    {
        return Err(error(NAME, "stands in metadata too"));
    }
    Ok(())
}

/// An imported key may administrate where it is as strong as ours, and where the admin port takes it.
fn check_administration(key: &ImportedKey) -> Result<(), FieldError> {
    if !key.new.scopes.iter().any(ScopePattern::is_own) {
        return Ok(());
    }
    match &key.secret {
        ImportSecret::Plain(key) if key.is_weak() => Err(error(
            "scopes",
            "a key that is easy to guess can't have scopes of Sidekey itself",
        )),
        ImportSecret::Plain(_) => Ok(()),
        ImportSecret::Login(_) => Err(error(
            "scopes",
            "the admin port takes no user and password, so a login can't have scopes of Sidekey itself",
        )),
    }
}

/// The column that repeats the line's secret, where it would be kept and shown.
fn repeats_secret(fields: &Map<String, Value>) -> Option<&'static str> {
    let secrets: Vec<&str> = SECRET_COLUMNS
        .iter()
        .filter_map(|column| fields.get(*column)?.as_str())
        .filter(|secret| !secret.is_empty())
        .collect();
    let repeats = |column: &str| {
        let mut texts = BTreeSet::new();
        if let Some(value) = fields.get(column) {
            collect_texts(value, &mut texts);
        }
        let mut texts = texts.iter();
        texts.any(|text| secrets.iter().any(|secret| text.contains(secret)))
    };
    COLUMNS
        .into_iter()
        .filter(|column| !SECRET_COLUMNS.contains(column))
        .find(|column| repeats(column))
}

/// Everything in `value` that an error might quote.
fn collect_texts(value: &Value, texts: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(texts.insert(text.clone())),
        Value::Number(number) => drop(texts.insert(number.to_string())),
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        Value::Object(object) => object.iter().for_each(|(name, value)| {
            texts.insert(name.clone());
            collect_texts(value, texts);
        }),
        Value::Null | Value::Bool(_) => {}
    }
}

/// `error` without anything that stands in the line.
fn unquoted(mut error: FieldError, sent: &Value) -> FieldError {
    let mut texts = BTreeSet::new();
    // The names of the line's own members are no secrets: they have been looked at.
    let values = sent.as_object().into_iter().flatten();
    values.for_each(|(_, value)| collect_texts(value, &mut texts));
    // The longest first, so that no part of one is left where another is part of it.
    let mut texts: Vec<String> = texts.into_iter().collect();
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    for text in texts.iter().filter(|text| text.len() >= QUOTED_LEN_MIN) {
        let escaped = Value::from(text.as_str()).to_string();
        for form in [escaped.trim_matches('"'), text] {
            error.detail = error.detail.replace(form, "...");
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::MintKey;
    use proptest::prelude::*;
    use serde_json::json;

    const KEY: &str = "kq83nd02mxp5w7vz1rt6uy4HJ";

    fn base() -> Map<String, Value> {
        json!({"name": "n", "tenant_id": "t", "environment": "live", "scopes": ["orders:write"]})
            .as_object()
            .cloned()
            .unwrap()
    }

    fn read_with(
        fields: Map<String, Value>,
        allow_weak: bool,
    ) -> Result<ImportedKey, Vec<FieldError>> {
        let rules = Rules {
            own_tenant: None,
            catalogue: &Catalogue::new(vec!["orders:write".parse().unwrap()]),
            mint_keys: &MintKeys::new(MintKey::new(&[1; 32]), vec![]),
            allow_weak,
            now: Timestamp::from_millis(1_000_000),
        };
        imported_key(fields, &rules)
    }

    /// `more` over a sound line; the fields that are refused.
    fn read(more: Value) -> Result<ImportedKey, Vec<String>> {
        let mut fields = base();
        fields.extend(more.as_object().cloned().unwrap());
        read_with(fields, false)
            .map_err(|errors| errors.into_iter().map(|error| error.field).collect())
    }

    fn hash() -> String {
        bcrypt::non_truncating_hash("x", 4).unwrap()
    }

    #[test]
    fn a_line_has_one_secret() {
        assert!(read(json!({"key": KEY})).is_ok());
        assert!(read(json!({"user": "u", "hash": hash()})).is_ok());
        assert!(read(json!({"htpasswd": format!("u:{}\n", hash())})).is_ok());
        for (more, field) in [
            (json!({}), "key"),
            (json!({"key": null}), "key"),
            (json!({"key": 12_345_678}), "key"),
            (json!({"key": KEY, "htpasswd": "u:h"}), "key"),
            (json!({"key": "password"}), "key"),
            (json!({"user": "u"}), "hash"),
            (json!({"hash": hash()}), "user"),
            (json!({"user": "u", "hash": "plain"}), "hash"),
            (json!({"user": "a:b", "hash": hash()}), "user"),
            (json!({"htpasswd": "no colon"}), "htpasswd"),
            (json!({"htpasswd": "u:$apr1$x$y"}), "htpasswd"),
        ] {
            assert_eq!(read(more.clone()).unwrap_err(), [field], "{more}");
        }
    }

    #[test]
    fn an_external_id_stands_in_the_metadata() {
        let key = read(json!({"key": KEY, "external_id": "42", "metadata": {"a": 1}})).unwrap();
        assert_eq!(
            Value::from(key.new.metadata),
            json!({"a": 1, "external_id": "42"})
        );
        let key = read(json!({"key": KEY, "external_id": "42", "metadata": null})).unwrap();
        assert_eq!(Value::from(key.new.metadata), json!({"external_id": "42"}));
        for bad in [json!(""), json!(42), json!("x".repeat(201))] {
            let refused = read(json!({"key": KEY, "external_id": bad}));
            assert_eq!(refused.unwrap_err(), ["external_id"]);
        }
        let twice = json!({"key": KEY, "external_id": "1", "metadata": {"external_id": "2"}});
        assert_eq!(read(twice).unwrap_err(), ["external_id"]);
    }

    #[test]
    fn a_secret_in_a_second_place_is_refused() {
        for more in [
            json!({"key": KEY, "name": format!("key {KEY}")}),
            json!({"key": KEY, "metadata": {"a": [KEY]}}),
            json!({"key": KEY, "metadata": {KEY: 1}}),
            json!({"key": KEY, "external_id": KEY}),
        ] {
            assert_eq!(read(more.clone()).unwrap_err().len(), 1, "{more}");
        }
    }

    #[test]
    fn administration_wants_a_strong_key() {
        let own = json!(["sidekey:keys:read"]);
        assert!(read(json!({"key": KEY, "scopes": own})).is_ok());
        let login = json!({"htpasswd": format!("u:{}", hash()), "scopes": own});
        assert_eq!(read(login).unwrap_err(), ["scopes"]);
        let mut weak = base();
        weak.insert("key".to_owned(), json!("password1"));
        assert!(read_with(weak.clone(), true).is_ok());
        weak.insert("scopes".to_owned(), own);
        assert_eq!(read_with(weak, true).unwrap_err()[0].field, "scopes");
    }

    #[test]
    fn every_line_is_counted_and_a_bad_one_spoils_no_other() {
        let lines = json_lines("{\"a\":1}\r\n\n  \n[1]\n{\"a\"\n{\"b\":2}").unwrap();
        let numbers: Vec<(u64, bool)> =
            lines.iter().map(|l| (l.number, l.fields.is_ok())).collect();
        assert_eq!(numbers, [(1, true), (4, false), (5, false), (6, true)]);
        let text = "name,scopes,metadata,rotation_days\r\nn,a:b  c:d,,\r\n\
                    \"two\nlines\",,\"{\"\"x\"\":1}\",30\r\nshort\r\nn,,{,\r\nn,,,ten\r\n";
        let lines = csv_lines(text).unwrap();
        let numbers: Vec<(u64, bool)> =
            lines.iter().map(|l| (l.number, l.fields.is_ok())).collect();
        assert_eq!(
            numbers,
            [(2, true), (3, true), (5, false), (6, false), (7, false)]
        );
        let first = lines[0].fields.as_ref().unwrap();
        assert_eq!(json!(first), json!({"name": "n", "scopes": ["a:b", "c:d"]}));
        let second = lines[1].fields.as_ref().unwrap();
        assert_eq!(
            json!(second),
            json!({"name": "two\nlines", "metadata": {"x": 1}, "rotation_days": 30})
        );
    }

    #[test]
    fn lists_have_a_length() {
        let text = "{}\n".repeat(LINES_MAX);
        assert_eq!(json_lines(&text).unwrap().len(), LINES_MAX);
        let more = json_lines(&format!("{text}{{}}"));
        assert_eq!(more.unwrap_err(), ListError::TooManyLines);
        let text = format!("name\n{}", "n\n".repeat(LINES_MAX + 1));
        assert_eq!(csv_lines(&text).unwrap_err(), ListError::TooManyLines);
    }

    #[test]
    fn a_missing_header_is_not_quoted() {
        for text in [
            format!("n,{KEY}\n"),
            "name,name\n".to_owned(),
            format!("{KEY}\n"),
        ] {
            let error = csv_lines(&text).unwrap_err();
            assert!(matches!(error, ListError::Header(_)), "{text}");
            assert!(!error.to_string().contains(KEY));
        }
        assert_eq!(csv_lines("").unwrap().len(), 0);
        assert_eq!(csv_lines("\u{feff}name,key\nn,k").unwrap().len(), 1);
    }

    /// What a secret may look like that slipped into the wrong column.
    fn slipped() -> impl Strategy<Value = String> {
        prop_oneof!["[!-~]{8,40}", "[a-z:*]{8,40}", "[0-9]{8,15}"]
    }

    proptest! {
        #[test]
        fn no_error_quotes_a_value(secret in slipped(), column in 0..COLUMNS.len(), shape in 0..5) {
            let column = COLUMNS[column];
            let mut fields = base();
            fields.insert("key".to_owned(), json!(KEY));
            let value = match shape {
                0 => json!(secret),
                1 => json!([secret]),
                2 => json!({&secret: 1}),
                3 => json!([{"name": secret, "quota": 0, "window_seconds": 1}]),
                _ => json!([{"name": "x", "quota": secret, &secret: 1}]),
            };
            fields.insert(column.to_owned(), value);
            fields.insert("environment".to_owned(), json!("prod"));
            let errors = read_with(fields, false).unwrap_err();
            for error in errors {
                prop_assert!(!error.detail.contains(&secret), "{} in {:?}", secret, error);
                prop_assert!(!error.field.contains(&secret));
            }
        }

        #[test]
        fn an_unknown_name_is_not_quoted(secret in "[!-~]{16,40}") {
            let mut fields = base();
            fields.insert(secret.clone(), json!(1));
            for error in read_with(fields, false).unwrap_err() {
                let shown = format!("{error:?}");
                prop_assert!(!shown.contains(&secret), "{}", shown);
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,200}", lines in "[{}\\[\\]\":,a-z0-9\n\r]{0,200}") {
            for text in [text, lines.clone(), format!("name,key\n{lines}")] {
                let _ = json_lines(&text);
                let _ = csv_lines(&text);
            }
        }
    }
}
