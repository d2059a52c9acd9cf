//! Environment twins: `SIDEKEY__SECTION__FIELD` lies over `section.field` of the file, and
//! `SIDEKEY__ROUTES__0__PATH` over `routes[0].path`.
//!
//! A value that starts with `[` or `{`, is `true`, `false` or a whole number, or stands in quotes
//! is read as TOML; everything else is text.

use toml::{Table, Value};

use super::{Environment, Problem};

const PREFIX: &str = "SIDEKEY__";
/// A list grows by environment variables to at most this many entries.
const LIST_LEN_MAX: usize = 1000;

/// `table` with the environment's values in it.
pub fn apply(
    mut table: Table,
    environment: &dyn Environment,
    problems: &mut Vec<Problem>,
) -> Table {
    let mut ours: Vec<(String, String)> = environment
        .variables()
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    // In order, so that UPSTREAMS comes before UPSTREAMS__0__SERVERS, and that before UPSTREAMS__10.
    ours.sort_by_cached_key(|(name, _)| {
        let parts = name.split("__");
        let keyed = parts.map(|part| (part.parse::<usize>().ok(), part.to_owned()));
        keyed.collect::<Vec<_>>()
    });
    for (name, text) in ours {
        let path: Vec<String> = name[PREFIX.len()..]
            .split("__")
            .map(str::to_ascii_lowercase)
            .collect();
        let placed = value(&text).and_then(|value| place(&mut table, &path, value));
        if let Err(detail) = placed {
            problems.push(Problem::new(format!("environment variable {name}"), detail));
        }
    }
    table
}

fn value(text: &str) -> Result<Value, String> {
    // `[::1]:8080` begins like a list.
    let is_address = text.parse::<std::net::SocketAddr>().is_ok();
    let is_toml = !is_address && text.starts_with(['[', '{', '"', '\''])
        || matches!(text, "true" | "false")
        || text.parse::<i64>().is_ok();
    if !is_toml {
        return Ok(Value::String(text.to_owned()));
    }
    // The value is not quoted back: it may be a secret.
    text.parse::<Value>()
        .map_err(|error| format!("is not a TOML value: {}", error.message()))
}

fn place(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    let (name, rest) = match path {
        [] => return Err("names no field".to_owned()),
        [name, ..] if name.is_empty() => return Err("has an empty part in its name".to_owned()),
        [name, rest @ ..] => (name, rest),
    };
    if rest.is_empty() {
        table.insert(name.clone(), value);
        return Ok(());
    }
    let is_index = rest[0].parse::<usize>().is_ok();
    let missing = if is_index {
        Value::Array(Vec::new())
    } else {
        Value::Table(Table::new())
    };
    match table.entry(name.clone()).or_insert(missing) {
        Value::Table(inner) => place(inner, rest, value),
        Value::Array(list) => place_in_list(list, rest, value),
        _ => Err(format!(
            "goes into {name}, which is neither a section nor a list"
        )),
    }
}

fn place_in_list(list: &mut Vec<Value>, path: &[String], value: Value) -> Result<(), String> {
    let index: usize = path[0].parse().map_err(|_| {
        format!(
            "needs a number in place of {}: it names an entry of a list",
            path[0]
        )
    })?;
    if index > list.len() || index >= LIST_LEN_MAX {
        return Err(format!(
            "names entry {index} of a list that has {} entries",
            list.len()
        ));
    }
    if path.len() == 1 {
        if index == list.len() {
            list.push(value);
        } else {
            list[index] = value;
        }
        return Ok(());
    }
    if index == list.len() {
        list.push(Value::Table(Table::new()));
    }
    match &mut list[index] {
        Value::Table(inner) => place(inner, &path[1..], value),
        _ => Err(format!(
            "names a field of entry {index}, which is not a table"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(file: &str, variables: &[(&str, &str)]) -> (Table, Vec<Problem>) {
        let environment: Vec<(String, String)> = variables
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect();
        let mut problems = Vec::new();
        let table = apply(file.parse().unwrap(), &environment, &mut problems);
        (table, problems)
    }

    #[test]
    fn values_take_their_natural_type() {
        let (table, problems) = applied(
            "[proxy]\nmode = \"enforce\"\n[[routes]]\npath = \"/\"\n",
            &[
                ("SIDEKEY__PROXY__MODE", "shadow"),
                ("SIDEKEY__PROXY__THREADS", "4"),
                ("SIDEKEY__CREDENTIALS__HIDE", "false"),
                ("SIDEKEY__PROXY__LISTEN", "[\"127.0.0.1:0\"]"),
                ("SIDEKEY__ROUTES__0__PATH", "/a"),
                ("SIDEKEY__ROUTES__1__PATH", "\"/b\""),
                ("SIDEKEY_ADMIN_KEY", "not ours"),
                ("PATH", "/bin"),
            ],
        );
        assert_eq!(problems, []);
        let expected = "[proxy]\nmode = \"shadow\"\nthreads = 4\nlisten = [\"127.0.0.1:0\"]\n\
            [credentials]\nhide = false\n[[routes]]\npath = \"/a\"\n[[routes]]\npath = \"/b\"\n";
        assert_eq!(table, expected.parse().unwrap());
    }

    #[test]
    fn addresses_that_begin_like_lists_are_text() {
        let (table, problems) = applied("", &[("SIDEKEY__ADMIN__LISTEN", "[::1]:8081")]);
        assert_eq!(problems, []);
        let expected = "[admin]\nlisten = \"[::1]:8081\"\n";
        assert_eq!(table, expected.parse().unwrap());
    }

    #[test]
    fn long_lists_grow_in_the_order_of_their_numbers() {
        let names: Vec<String> = (0..12)
            .map(|n| format!("SIDEKEY__SCOPES__{n}__NAME"))
            .collect();
        let variables: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "a:b")).collect();
        let (table, problems) = applied("", &variables);
        assert_eq!(problems, []);
        assert_eq!(table["scopes"].as_array().unwrap().len(), 12);
    }

    #[test]
    fn what_fits_nowhere_is_a_problem_and_its_value_is_not_shown() {
        for (name, value) in [
            ("SIDEKEY__PROXY__LISTEN", "[secret"),
            ("SIDEKEY__PROXY__MODE__X", "secret"),
            ("SIDEKEY__ROUTES__7__PATH", "secret"),
            ("SIDEKEY__ROUTES__X", "secret"),
            ("SIDEKEY__", "secret"),
        ] {
            let (_, problems) = applied(
                "routes = []\n[proxy]\nmode = \"enforce\"\n",
                &[(name, value)],
            );
            assert_eq!(problems.len(), 1, "{name}");
            assert!(problems[0].path.contains(name));
            assert!(
                !problems[0].to_string().contains("secret"),
                "{}",
                problems[0]
            );
        }
    }
}
