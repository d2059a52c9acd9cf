//! Statements that are put together of parts, with their values.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe};

use super::Value;
use crate::clock::Timestamp;

/// What stands for a value that a key has not got: no time is as late.
pub(super) const NEVER: i64 = i64::MAX;

/// A value in a statement.
#[derive(Debug, Clone)]
pub enum Bind {
    Text(String),
    Integer(i64),
}

/// A statement with numbered placeholders.
#[derive(Debug, Default)]
pub struct Statement {
    pub sql: String,
    pub binds: Vec<Bind>,
}

impl Statement {
    pub(super) fn bind(&mut self, value: impl Into<Bind>) -> String {
        self.binds.push(value.into());
        format!("${}", self.binds.len())
    }

    pub(super) async fn fetch_all(
        self,
        connection: &mut AnyConnection,
    ) -> Result<Vec<AnyRow>, sqlx::Error> {
        let mut query = sqlx::query(AssertSqlSafe(self.sql));
        for bind in self.binds {
            query = match bind {
                Bind::Text(text) => query.bind(text),
                Bind::Integer(number) => query.bind(number),
            };
        }
        query.fetch_all(connection).await
    }
}

impl From<String> for Bind {
    fn from(text: String) -> Self {
        Bind::Text(text)
    }
}

impl From<&str> for Bind {
    fn from(text: &str) -> Self {
        Bind::Text(text.to_owned())
    }
}

impl From<i64> for Bind {
    fn from(number: i64) -> Self {
        Bind::Integer(number)
    }
}

impl From<Timestamp> for Bind {
    fn from(moment: Timestamp) -> Self {
        Bind::Integer(moment.as_millis())
    }
}

impl From<Value> for Bind {
    fn from(value: Value) -> Self {
        match value {
            Value::Number(number) => Bind::Integer(number),
            Value::Text(text) => Bind::Text(text),
            Value::Nothing => Bind::Integer(NEVER),
        }
    }
}

pub(super) fn where_all(conditions: &[String]) -> String {
    if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    }
}
