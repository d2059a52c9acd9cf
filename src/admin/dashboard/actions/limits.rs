//! The rows of a form in which somebody writes limits.

use serde_json::{Value, json};

use crate::admin::input::FieldError;
use crate::key::Policy;
use crate::key::policy::POLICIES_MAX;

/// Rows that a form has for limits, at least: without a script nobody can add one.
const ROWS_MIN: usize = 3;

/// A limit as it is typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitRow {
    pub name: String,
    pub quota: String,
    pub window_seconds: String,
    pub burst: String,
}

impl From<&Policy> for LimitRow {
    fn from(policy: &Policy) -> Self {
        LimitRow {
            name: policy.name.clone(),
            quota: policy.quota.to_string(),
            window_seconds: policy.window_seconds.to_string(),
            burst: policy
                .burst
                .map(|burst| burst.to_string())
                .unwrap_or_default(),
        }
    }
}

impl LimitRow {
    pub fn is_blank(&self) -> bool {
        let fields = [&self.name, &self.quota, &self.window_seconds, &self.burst];
        fields.iter().all(|field| field.trim().is_empty())
    }

    /// The policy of the row of that number, or which fields are wrong. It needs no name of its own.
    fn read(&self, row: usize) -> Result<Policy, Vec<(&'static str, String)>> {
        let mut errors = Vec::new();
        let mut number = |field, text: &str| {
            let read = text.trim().parse::<u64>();
            read.map_err(|_| errors.push((field, "must be a whole number".to_owned())))
                .unwrap_or_default()
        };
        let quota = number("quota", &self.quota);
        let window_seconds = number("window_seconds", &self.window_seconds);
        let has_burst = !self.burst.trim().is_empty();
        let burst = has_burst.then(|| number("burst", &self.burst));
        let policy = Policy {
            name: match self.name.trim() {
                "" => format!("limit-{}", row + 1),
                name => name.to_owned(),
            },
            quota,
            window_seconds,
            burst,
        };
        for problem in policy.problems() {
            let field = problem.field();
            if errors.iter().all(|(bad, _)| *bad != field) {
                errors.push((field, problem.to_string()));
            }
        }
        if errors.is_empty() {
            Ok(policy)
        } else {
            Err(errors)
        }
    }
}

/// Adds blank rows, so that there are some to write in.
pub fn padded(mut rows: Vec<LimitRow>) -> Vec<LimitRow> {
    rows.resize(rows.len().max(ROWS_MIN), LimitRow::default());
    rows
}

/// The rows of a form's fields, in their order.
pub fn rows_of(pairs: &[(String, String)]) -> Vec<LimitRow> {
    let mut rows: Vec<LimitRow> = Vec::new();
    for (name, value) in pairs {
        if name == "limit_name" && rows.len() <= POLICIES_MAX {
            rows.push(LimitRow::default());
        }
        let Some(row) = rows.last_mut() else { continue };
        match name.as_str() {
            "limit_name" => row.name.clone_from(value),
            "limit_quota" => row.quota.clone_from(value),
            "limit_window" => row.window_seconds.clone_from(value),
            "limit_burst" => row.burst.clone_from(value),
            _ => {}
        }
    }
    rows
}

/// The limits that rows say, as the API reads them; blank rows say nothing.
pub fn value_of(rows: &[LimitRow]) -> Result<Value, Vec<FieldError>> {
    let (mut policies, mut errors) = (Vec::new(), Vec::new());
    for (number, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_blank()) {
        match row.read(number) {
            Ok(policy) => policies.push(json!(policy)),
            Err(bad) => errors.extend(bad.into_iter().map(|(field, detail)| FieldError {
                field: field_name(number, field),
                detail,
            })),
        }
    }
    if policies.is_empty() && errors.is_empty() {
        errors.push(FieldError {
            field: field_name(0, "quota"),
            detail: "is missing: write a limit, or choose that there is none".to_owned(),
        });
    }
    if errors.is_empty() {
        Ok(Value::Array(policies))
    } else {
        Err(errors)
    }
}

/// What a field of the row of that number is called.
pub fn field_name(row: usize, field: &str) -> String {
    format!("rate_limits[{row}].{field}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, quota: &str, window: &str, burst: &str) -> LimitRow {
        LimitRow {
            name: name.to_owned(),
            quota: quota.to_owned(),
            window_seconds: window.to_owned(),
            burst: burst.to_owned(),
        }
    }

    #[test]
    fn rows_become_policies_and_blank_ones_nothing() {
        let rows = [
            row("", " ", "", ""),
            row("a", "10", "60", ""),
            row("b", "5", "1", " 7 "),
        ];
        assert_eq!(
            value_of(&[row("", "1", "1", "")]).unwrap(),
            json!([{"name": "limit-1", "quota": 1, "window_seconds": 1, "burst": null}])
        );
        assert_eq!(
            value_of(&rows).unwrap(),
            json!([
                {"name": "a", "quota": 10, "window_seconds": 60, "burst": null},
                {"name": "b", "quota": 5, "window_seconds": 1, "burst": 7},
            ])
        );
    }

    #[test]
    fn every_bad_field_of_a_row_is_named() {
        let bad = |rows: &[LimitRow]| -> Vec<String> {
            let errors = value_of(rows).unwrap_err();
            errors.into_iter().map(|error| error.field).collect()
        };
        assert_eq!(
            bad(&[row("a", "1", "1", ""), row("a b", "x", "-1", "0")]),
            [
                "rate_limits[1].quota",
                "rate_limits[1].window_seconds",
                "rate_limits[1].name",
                "rate_limits[1].burst"
            ]
        );
        assert_eq!(bad(&[]), ["rate_limits[0].quota"]);
        assert_eq!(
            bad(&[row("a", "1", "", "")]),
            ["rate_limits[0].window_seconds"]
        );
    }

    #[test]
    fn rows_are_read_in_their_order_and_no_more_than_can_be() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let pairs = [
            pair("limit_quota", "lost"),
            pair("limit_name", "a"),
            pair("limit_quota", "1"),
            pair("name", "of the key"),
            pair("limit_window", "2"),
            pair("limit_name", "b"),
            pair("limit_burst", "3"),
        ];
        assert_eq!(
            rows_of(&pairs),
            [row("a", "1", "2", ""), row("b", "", "", "3")]
        );
        let many = vec![pair("limit_name", "x"); 1000];
        assert_eq!(rows_of(&many).len(), POLICIES_MAX + 1);
    }
}
