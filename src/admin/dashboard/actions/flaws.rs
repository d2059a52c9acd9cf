//! What is wrong with a form, to be told beside its fields.

use crate::admin::answer::ApiError;
use crate::admin::dashboard::words::sentence;
use crate::admin::input::FieldError;

/// The bad fields of a form, by the names that the API has for them.
#[derive(Debug, Default)]
pub struct Flaws {
    errors: Vec<FieldError>,
    /// The first bad field, in the order of the form.
    first: String,
}

impl Flaws {
    /// What `error` says of fields; `order` is that of the form.
    pub fn of_error(error: &ApiError, order: &[String]) -> Self {
        let listed = error.problem.members.get("errors");
        let listed = listed.and_then(|errors| errors.as_array());
        let read = listed.into_iter().flatten().map(|error| FieldError {
            field: error["field"].as_str().unwrap_or_default().to_owned(),
            detail: sentence(error["detail"].as_str().unwrap_or_default()),
        });
        let mut flaws = Flaws {
            errors: read.collect(),
            first: String::new(),
        };
        let mut known = order.iter();
        let first = known.find(|field| flaws.of(field).is_some());
        flaws.first = first.cloned().unwrap_or_default();
        flaws
    }

    /// What is wrong with `field`.
    pub fn of(&self, field: &str) -> Option<&str> {
        let found = self.errors.iter().find(|error| error.field == field);
        found.map(|error| &*error.detail)
    }

    /// Whether `field` is the first bad one.
    pub fn leads(&self, field: &str) -> bool {
        self.first == field
    }

    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// What is wrong with fields that are not in `order`.
    pub fn others(&self, order: &[String]) -> Vec<String> {
        let others = self.errors.iter();
        let others = others.filter(|error| !order.contains(&error.field));
        others
            .map(|error| format!("{}: {}", error.field, error.detail))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flaws_stand_with_their_fields_and_the_first_of_the_form_leads() {
        let error = |field: &str, detail: &str| FieldError {
            field: field.to_owned(),
            detail: detail.to_owned(),
        };
        let errors = [
            error("scopes", "\"x\" is not known"),
            error("name", "is missing"),
            error("colour", "is not known here"),
        ];
        let order = ["name", "scopes"].map(str::to_owned);
        let flaws = Flaws::of_error(&ApiError::fields(&errors), &order);
        assert_eq!(flaws.of("name"), Some("Is missing."));
        assert_eq!(flaws.of("scopes"), Some("\"x\" is not known."));
        assert_eq!(flaws.of("tenant_id"), None);
        assert!(flaws.leads("name") && !flaws.leads("scopes"));
        assert_eq!(flaws.others(&order), ["colour: Is not known here."]);
        assert!(!flaws.leads("") || flaws.is_empty());
    }
}
