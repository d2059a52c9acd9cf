//! CSV, record by record: a record may have several lines of the file, but not so many that one quote
//! which is not closed would bring all of the file into memory.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{BufRead, ErrorKind, Read};
use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::lines::{Defaults, LINE_BYTES_MAX, Line, too_long, unreadable};
use crate::manage::IMPORT_COLUMNS as COLUMNS;

/// A record that is longer is not read to its end, and nothing behind it: where it ends can't be known.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// What was read of the file and is behind the last record's beginning.
#[derive(Default)]
struct Window {
    bytes: VecDeque<u8>,
    /// Where the window begins.
    position: u64,
    /// Lines that end before it.
    lines_ended: u64,
}

impl Window {
    /// The line of the record behind `position`, where the one before has ended; what is before that line
    /// is forgotten. The CSV library counts neither empty lines nor `\r\n` as people do.
    fn line_of(&mut self, position: u64) -> u64 {
        let passed = usize::try_from(position.saturating_sub(self.position)).unwrap_or(usize::MAX);
        self.forget(passed.min(self.bytes.len()));
        let is_end = |byte: &&u8| matches!(**byte, b'\r' | b'\n');
        self.forget(self.bytes.iter().take_while(is_end).count());
        self.lines_ended + 1
    }

    fn forget(&mut self, count: usize) {
        self.position += count as u64;
        let passed = self.bytes.drain(..count);
        self.lines_ended += passed.filter(|byte| *byte == b'\n').count() as u64;
    }
}

/// The file on its way to the CSV library, which asks for more as long as a record has not ended.
struct Limited<R> {
    inner: R,
    window: Rc<RefCell<Window>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut window = self.window.borrow_mut();
        if window.bytes.len() > RECORD_BYTES_MAX {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let length = self.inner.read(buffer)?;
        window.bytes.extend(&buffer[..length]);
        Ok(length)
    }
}

/// Gives each record of `input` to `take`, until that wants no more.
pub fn read(
    input: impl BufRead,
    defaults: &Defaults,
    take: &mut dyn FnMut(Line) -> bool,
) -> Result<(), String> {
    let window = Rc::new(RefCell::new(Window::default()));
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(Limited {
            inner: input,
            window: window.clone(),
        });
    let columns: Vec<String> = match reader.headers() {
        Ok(columns) => columns.iter().map(str::to_owned).collect(),
        Err(error) => {
            return Err(format!("its first line can't be read: {}", problem(&error)));
        }
    };
    check_columns(&columns)?;
    let mut record = csv::StringRecord::new();
    loop {
        let start = reader.position().byte();
        // Before, so that only this record counts; behind, because only then empty lines before it are read.
        window.borrow_mut().line_of(start);
        let read = reader.read_record(&mut record);
        let number = window.borrow_mut().line_of(start);
        let object = match read {
            Ok(false) => return Ok(()),
            Ok(true) => object(&columns, &record, defaults),
            Err(error) => match error.kind() {
                csv::ErrorKind::Io(_) => return Err(format!("line {number}: {}", problem(&error))),
                _ => Err(problem(&error)),
            },
        };
        if !take(Line { number, object }) {
            return Ok(());
        }
    }
}

/// The library's own words may quote a field.
fn problem(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8 text".to_owned(),
        csv::ErrorKind::Io(error) if error.kind() == ErrorKind::FileTooLarge => format!(
            "has more than {RECORD_BYTES_MAX} bytes up to its end, so nothing behind it was read: is a quote not closed?"
        ),
        csv::ErrorKind::Io(error) => unreadable(error),
        _ => "is not CSV".to_owned(),
    }
}

fn check_columns(columns: &[String]) -> Result<(), String> {
    let names = columns.iter().map(String::as_str);
    if !names.clone().all(|name| COLUMNS.contains(&name)) {
        return Err(format!(
            "its first line must name the columns, which may be {}",
            COLUMNS.join(", ")
        ));
    }
    match names
        .clone()
        .find(|name| names.clone().filter(|other| other == name).count() > 1)
    {
        Some(twice) => Err(format!("its first line names the column {twice} twice")),
        None => Ok(()),
    }
}

fn object(
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
            members.insert(column.clone(), value(column, text));
        }
    }
    Ok(defaults.filled(members))
}

/// What can't be read as its kind goes as text, and the API says what it should be.
fn value(column: &str, text: &str) -> Value {
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

    type Records = Vec<(u64, Result<Value, String>)>;

    fn read_to_the_end(input: impl BufRead, defaults: &Defaults) -> (Records, Result<(), String>) {
        let mut lines = Vec::new();
        let ended = read(input, defaults, &mut |line| {
            let object = line.object.map(|text| serde_json::from_str(&text).unwrap());
            lines.push((line.number, object));
            true
        });
        (lines, ended)
    }

    fn read_all(text: &[u8]) -> Result<Records, String> {
        let (lines, ended) = read_to_the_end(text, &Defaults::default());
        ended.map(|()| lines)
    }

    fn numbers(text: &str) -> Vec<u64> {
        let lines = read_all(text.as_bytes()).unwrap();
        lines.iter().map(|line| line.0).collect()
    }

    #[test]
    fn columns_become_members() {
        let text = b"name,scopes,rate_limits,rotation_days,metadata,key\n\
            x,a:b c:d,\"[{\"\"name\"\":\"\"d\"\",\"\"quota\"\":1,\"\"window_seconds\"\":1}]\",30,\"{\"\"note\"\":\"\"two\nlines\"\"}\",k1\n\
            y,,,soon,,k2\n\
            z,a\n\
            \xff,,,,,\n";
        let defaults = Defaults {
            scopes: vec!["a:b".to_owned()],
            ..Defaults::default()
        };
        let (lines, ended) = read_to_the_end(&text[..], &defaults);
        assert_eq!((lines.len(), ended), (4, Ok(())), "{lines:?}");
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
    fn lines_are_counted_as_people_do() {
        assert_eq!(numbers("name,key\na,1\n\n\nb,2\n"), [2, 5]);
        assert_eq!(
            numbers("name,key\r\na,1\r\n\r\nb,\"2\r\n2\"\r\nc,3"),
            [2, 4, 6]
        );
        assert_eq!(numbers("\n\u{feff}name,key\na,1\n".trim_start()), [2]);
        let many = format!("name,key\n{}", "a,1\n".repeat(50_000));
        assert_eq!(numbers(&many).last(), Some(&50_001));
    }

    #[test]
    fn without_a_first_line_it_is_refused_unread() {
        for text in ["x,acme,hunter2\n", "name,key,name\nx,y,z\n", "\"hunter2"] {
            let told = read_all(text.as_bytes()).unwrap_err();
            assert!(
                told.contains("its first line") && !told.contains("hunter2"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_long_record_is_refused_alone() {
        let csv = format!("name\n{}\ny\n", "x".repeat(LINE_BYTES_MAX * 3));
        let lines = read_all(csv.as_bytes()).unwrap();
        assert!(lines[0].1.is_err() && lines[1].1.is_ok());
    }

    /// Text without an end, which counts what is read of it.
    struct Endless<'a>(&'a std::cell::Cell<usize>);

    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(b'x');
            self.0.set(self.0.get() + buffer.len());
            Ok(buffer.len())
        }
    }

    #[test]
    fn a_quote_that_is_not_closed_ends_the_reading() {
        let count = std::cell::Cell::new(0);
        let text = b"name,key\na,1\n\nb,\"hunter2\nc,3\n";
        let input = std::io::BufReader::new(text.chain(Endless(&count)));
        let (lines, ended) = read_to_the_end(input, &Defaults::default());
        assert_eq!(lines, [(2, Ok(json!({"name": "a", "key": "1"})))]);
        let told = ended.unwrap_err();
        assert!(
            told.starts_with("line 4: has more than") && told.contains("quote"),
            "{told}"
        );
        assert!(!told.contains("hunter2"), "{told}");
        assert!(count.get() < RECORD_BYTES_MAX + (64 << 10), "{count:?}");
    }
}
