//! The form above the list, and what of it is in force.

use super::asked::{Asked, FILTERS, PAGE_LENS};
use crate::admin::input::FieldError;
use crate::key::format::redact;
use crate::key::{Environment, Status};

/// A field of the form.
pub struct Field {
    pub name: &'static str,
    pub label: &'static str,
    pub value: String,
    /// What is wrong with it.
    pub error: Option<String>,
    /// What can be chosen, where it is not typed.
    pub choices: Vec<Choice>,
}

/// Something that can be chosen.
pub struct Choice {
    pub value: String,
    pub text: String,
    pub is_chosen: bool,
}

/// A filter that is in force.
pub struct Active {
    pub label: &'static str,
    pub value: String,
    /// The list without it.
    pub href: String,
}

/// A parameter that is wrong.
pub struct Wrong {
    pub label: String,
    pub detail: String,
}

const DAYS_AHEAD: [u32; 3] = [7, 30, 90];
const DAYS_UNUSED: [u32; 2] = [30, 90];

fn label(name: &str) -> Option<&'static str> {
    Some(match name {
        "q" => "Search",
        "tenant_id" => "Tenant",
        "status" => "Status",
        "environment" => "Environment",
        "expiring_within_days" => "Expires",
        "unused_for_days" => "Last use",
        "limit" => "Per page",
        "sort" => "Sorting",
        "cursor" | "before" => "Place in the list",
        _ => return None,
    })
}

/// What a value is called.
fn in_words(name: &str, value: &str) -> String {
    match name {
        "expiring_within_days" => format!("within {value} days"),
        "unused_for_days" => format!("not for {value} days"),
        _ => redact(value).into_owned(),
    }
}

/// What can be chosen as `name`, with what is chosen now even where it is something else.
fn choices(name: &str, values: &[String], all: Option<&str>, chosen: &str) -> Vec<Choice> {
    let choice = |value: &str, text: String| Choice {
        value: value.to_owned(),
        text,
        is_chosen: value == chosen,
    };
    let mut choices: Vec<Choice> = Vec::new();
    choices.extend(all.map(|text| choice("", text.to_owned())));
    choices.extend(
        values
            .iter()
            .map(|value| choice(value, in_words(name, value))),
    );
    if !choices.iter().any(|choice| choice.is_chosen) {
        choices.push(choice(chosen, in_words(name, chosen)));
    }
    choices
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

/// The fields of the form, for a caller who sees all tenants or only one.
pub fn fields(asked: &Asked, errors: &[FieldError], has_tenant: bool) -> Vec<Field> {
    let field = |name: &'static str, choices| Field {
        name,
        label: label(name).unwrap_or(name),
        value: redact(asked.get(name)).into_owned(),
        error: errors
            .iter()
            .find(|error| error.field == name)
            .map(|error| redact(&error.detail).into_owned()),
        choices,
    };
    let chosen = |name: &'static str, values: &[String], all| {
        field(name, choices(name, values, all, asked.get(name)))
    };
    let environments = [Environment::Live, Environment::Test].map(Environment::as_str);
    let mut fields = vec![field("q", vec![])];
    if has_tenant {
        fields.push(field("tenant_id", vec![]));
    }
    fields.extend([
        chosen(
            "status",
            &texts(Status::ALL.map(Status::as_str)),
            Some("any"),
        ),
        chosen("environment", &texts(environments), Some("any")),
        chosen("expiring_within_days", &texts(DAYS_AHEAD), Some("any time")),
        chosen("unused_for_days", &texts(DAYS_UNUSED), Some("any time")),
    ]);
    let lens = texts(PAGE_LENS);
    let limit = Some(asked.get("limit")).filter(|limit| !limit.is_empty());
    let limit = limit.unwrap_or(&lens[0]);
    fields.push(field("limit", choices("limit", &lens, None, limit)));
    fields
}

/// The filters in force.
pub fn active(asked: &Asked) -> Vec<Active> {
    let set = FILTERS.iter().filter(|name| !asked.get(name).is_empty());
    set.map(|name| Active {
        label: label(name).unwrap_or(name),
        value: in_words(name, asked.get(name)),
        href: asked.with(&[(name, "")]),
    })
    .collect()
}

/// What is wrong, as it is told to people. Neither names nor values were chosen here.
pub fn wrong(errors: &[FieldError]) -> Vec<Wrong> {
    let told = |error: &FieldError| Wrong {
        label: label(&error.field).map_or_else(|| redact(&error.field).into_owned(), str::to_owned),
        detail: redact(&error.detail).into_owned(),
    };
    errors.iter().map(told).collect()
}
