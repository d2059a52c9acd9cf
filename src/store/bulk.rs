//! Many rows in few statements, in their order.

use sqlx::{AnyConnection, AssertSqlSafe};

use super::StoreError;
use super::sql::Dialect;

/// Rows of one statement with a value a cell; a power of two. Each connection keeps its statements ready, and
/// those of 256 rows take some MiB together, to save a fifteenth of the time.
const ROWS_MAX: usize = 32;
/// A row on its way into a table.
pub type Cells = Vec<Cell>;

#[derive(Debug, Clone)]
pub enum Cell {
    Text(String),
    Number(i64),
}

/// How rows come into a table, and what happens to those that are there.
pub struct Target<'a> {
    pub table: &'a str,
    pub columns: String,
    pub on_conflict: String,
}

/// `rows` in parts whose lengths are powers of two, so that there are few different statements.
fn parts<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = match rows.len() {
            0 => return None,
            many if many >= ROWS_MAX => ROWS_MAX,
            few => 1 << few.ilog2(),
        };
        let (part, rest) = rows.split_at(length);
        rows = rest;
        Some(part)
    })
}

/// One column of `rows` as an array of PostgreSQL, and its type.
fn array(rows: &[Cells], column: usize) -> (String, &'static str) {
    let mut text = String::from("{");
    let mut kind = "BIGINT";
    for (n, row) in rows.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        match &row[column] {
            Cell::Number(number) => text.push_str(&number.to_string()),
            Cell::Text(word) => {
                kind = "TEXT";
                text.push('"');
                text.push_str(&word.replace('\\', "\\\\").replace('"', "\\\""));
                text.push('"');
            }
        }
    }
    text.push('}');
    (text, kind)
}

/// Writes `rows` in their order.
pub async fn write(
    transaction: &mut AnyConnection,
    dialect: Dialect,
    target: &Target<'_>,
    rows: &[Cells],
) -> Result<(), StoreError> {
    match (rows.first(), dialect.has_arrays) {
        (None, _) => Ok(()),
        (Some(first), true) => write_arrays(transaction, target, rows, first.len()).await,
        (Some(_), false) => write_values(transaction, target, rows).await,
    }
}

/// One statement with a value a column: PostgreSQL takes longer to read a list of values than to write
/// the rows.
async fn write_arrays(
    transaction: &mut AnyConnection,
    target: &Target<'_>,
    rows: &[Cells],
    width: usize,
) -> Result<(), StoreError> {
    let arrays: Vec<_> = (0..width).map(|column| array(rows, column)).collect();
    let places: Vec<String> = arrays
        .iter()
        .zip(1..)
        .map(|((_, kind), n)| format!("CAST(CAST(${n} AS TEXT) AS {kind}[])"))
        .collect();
    let sql = format!(
        "INSERT INTO {} ({}) SELECT * FROM unnest({}) ON CONFLICT {}",
        target.table,
        target.columns,
        places.join(", "),
        target.on_conflict
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for (text, _) in arrays {
        query = query.bind(text);
    }
    query.execute(transaction).await?;
    Ok(())
}

/// Statements with a value a cell. Their places have no numbers: SQLite takes these for names, and looks
/// for each among all of them, which takes longer than all else.
async fn write_values(
    transaction: &mut AnyConnection,
    target: &Target<'_>,
    rows: &[Cells],
) -> Result<(), StoreError> {
    for part in parts(rows) {
        let row = |cells: &Cells| format!("({})", vec!["?"; cells.len()].join(", "));
        let values: Vec<String> = part.iter().map(row).collect();
        let sql = format!(
            "INSERT INTO {} ({}) VALUES {} ON CONFLICT {}",
            target.table,
            target.columns,
            values.join(", "),
            target.on_conflict
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for cell in part.iter().flatten() {
            query = match cell {
                Cell::Text(text) => query.bind(text.clone()),
                Cell::Number(number) => query.bind(*number),
            };
        }
        query.execute(&mut *transaction).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_few_lengths() {
        let rows = [(); 1000];
        let lengths: Vec<usize> = parts(&rows).map(<[()]>::len).collect();
        assert_eq!(lengths[..31], [32; 31]);
        assert_eq!(lengths[31..], [8]);
        let lengths: Vec<usize> = parts(&rows[..31]).map(<[()]>::len).collect();
        assert_eq!(lengths, [16, 8, 4, 2, 1]);
        assert_eq!(parts::<()>(&[]).count(), 0);
        let rows = [("a", 1), ("b\\\"", -2)];
        let rows = rows.map(|(text, n)| vec![Cell::Text(text.to_owned()), Cell::Number(n)]);
        assert_eq!(array(&rows, 0), (r#"{"a","b\\\""}"#.to_owned(), "TEXT"));
        assert_eq!(array(&rows, 1), ("{1,-2}".to_owned(), "BIGINT"));
    }
}
