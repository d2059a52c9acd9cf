//! What became of each line, and of all.

use serde_json::{Value, json};

use super::batch::Batch;
use crate::cli::client::Answer;
use crate::cli::failure::{Failure, tell};
use crate::cli::progress::Progress;
use crate::cli::render;

/// What became of all lines so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub created: u64,
    pub existing: u64,
    pub refused: u64,
}

impl Totals {
    pub fn lines(&self) -> u64 {
        self.created + self.existing + self.refused
    }
}

/// The report, written while it grows: as lines for people, or as one JSON document.
pub struct Report {
    pub totals: Totals,
    /// Instances that have not confirmed what was changed last.
    pub unconfirmed: Option<String>,
    /// The file's name, for people.
    source: String,
    is_dry_run: bool,
    is_json: bool,
    is_first: bool,
}

impl Report {
    pub fn start(source: &str, is_dry_run: bool, is_json: bool) -> Result<Self, Failure> {
        if is_json {
            render::out(&format!("{{\"dry_run\":{is_dry_run},\"results\":["))?;
        }
        Ok(Report {
            totals: Totals::default(),
            unconfirmed: None,
            source: source.to_owned(),
            is_dry_run,
            is_json,
            is_first: true,
        })
    }

    /// Adds what became of the first lines of `batch`, and takes them away; `answer` is the API's, where
    /// it was asked.
    pub fn add(
        &mut self,
        batch: &mut Batch,
        answer: Option<&Answer>,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let told = answer.map(Answer::json).transpose()?.unwrap_or_default();
        let (results, done) = results(batch, &told)?;
        if let Some(answer) = answer {
            // What confirms a later change has seen the earlier ones.
            self.unconfirmed = answer.unconfirmed().map(str::to_owned);
        }
        batch.done(done);
        progress.beside(|| results.iter().try_for_each(|result| self.add_one(result)))
    }

    fn add_one(&mut self, result: &Value) -> Result<(), Failure> {
        match result["status"].as_str() {
            Some("created" | "would_create") => self.totals.created += 1,
            Some("existing") => self.totals.existing += 1,
            _ => {
                self.totals.refused += 1;
                tell(&self.refusal(result));
            }
        }
        if self.is_json {
            let separator = if self.is_first { "\n" } else { ",\n" };
            self.is_first = false;
            render::out(separator)?;
            render::json_part(&result.to_string())?;
        }
        Ok(())
    }

    fn refusal(&self, result: &Value) -> String {
        let errors = result["errors"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let reasons: Vec<String> = errors
            .iter()
            .map(|error| match error["field"].as_str() {
                Some(field) if !field.is_empty() => {
                    format!("{field} {}", render::cell(&error["detail"]))
                }
                _ => render::cell(&error["detail"]),
            })
            .collect();
        format!(
            "{}:{}: refused: {}",
            self.source,
            result["line"],
            reasons.join("; ")
        )
    }

    /// Ends the report.
    pub fn end(&self, elapsed_ms: u64) -> Result<(), Failure> {
        let Totals {
            created,
            existing,
            refused,
        } = self.totals;
        if self.is_json {
            return render::out(&format!(
                "\n],\"created\":{created},\"existing\":{existing},\"refused\":{refused},\"elapsed_ms\":{elapsed_ms}}}\n"
            ));
        }
        let made = if self.is_dry_run {
            "would be created"
        } else {
            "created"
        };
        render::line(&format!(
            "{} lines in {}.{} s: {created} {made}, {existing} there already, {refused} refused",
            self.totals.lines(),
            elapsed_ms / 1000,
            elapsed_ms % 1000 / 100
        ))
    }
}

/// The results of a batch in the order of the file, with its lines' numbers in place of the call's; and
/// how many of its objects are done.
fn results(batch: &Batch, answer: &Value) -> Result<(Vec<Value>, usize), Failure> {
    let mut results = answer["results"].as_array().cloned().unwrap_or_default();
    let done = results.len();
    // Where there was no time for all, it says where to go on; at least one has to be done.
    let is_sound = match answer["next_line"].as_u64() {
        None => done == batch.numbers.len(),
        Some(next) => done > 0 && next == done as u64 + 1 && done < batch.numbers.len(),
    };
    if !is_sound {
        return Err(wrong_answer());
    }
    for result in &mut results {
        let line = number_in_file(batch, &result["line"]).ok_or_else(wrong_answer)?;
        result["line"] = json!(line);
        for error in result["errors"].as_array_mut().into_iter().flatten() {
            name_earlier_line(batch, &mut error["detail"]);
        }
    }
    for (number, detail) in &batch.refused {
        results.push(json!({
            "line": number, "status": "refused", "key_id": null,
            "errors": [{"field": "line", "detail": detail}],
        }));
    }
    results.sort_by_key(|result| result["line"].as_u64());
    Ok((results, done))
}

/// The file's number of a line of the call.
fn number_in_file(batch: &Batch, line: &Value) -> Option<u64> {
    let line = usize::try_from(line.as_u64()?).ok()?;
    batch.numbers.get(line.checked_sub(1)?).copied()
}

/// "... as line 3" means the call's third line; people look into the file.
fn name_earlier_line(batch: &Batch, detail: &mut Value) {
    let text = detail.as_str().unwrap_or_default();
    let Some((before, number)) = text.rsplit_once(" as line ") else {
        return;
    };
    let number: Option<u64> = number.parse().ok();
    if let Some(line) = number.and_then(|number| number_in_file(batch, &json!(number))) {
        *detail = json!(format!("{before} as line {line}"));
    }
}

fn wrong_answer() -> Failure {
    Failure::failed(
        "the answer does not say what became of each line: is it of a Sidekey of this version? Run it again: nothing is imported twice",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::lines::Line;

    fn batch() -> Batch {
        let mut batch = Batch::default();
        for number in [2, 3, 5, 9] {
            let object = match number {
                3 => Err("is not a JSON object".to_owned()),
                _ => Ok("{}".to_owned()),
            };
            batch.add(Line { number, object });
        }
        batch
    }

    #[test]
    fn results_have_the_numbers_of_the_file() {
        let twin = json!([{"field": "line", "detail": "has the same key or user as line 2"}]);
        let answer = json!({"next_line": null, "results": [
            {"line": 1, "status": "created", "errors": []},
            {"line": 2, "status": "created", "errors": []},
            {"line": 3, "status": "refused", "errors": twin},
        ]});
        let (results, done) = results(&batch(), &answer).unwrap();
        let lines: Vec<_> = results
            .iter()
            .map(|result| result["line"].as_u64().unwrap())
            .collect();
        assert_eq!((lines, done), (vec![2, 3, 5, 9], 3));
        let detail = &results[3]["errors"][0]["detail"];
        assert_eq!(detail, "has the same key or user as line 5");
    }

    #[test]
    fn an_answer_may_be_for_the_first_lines() {
        let line = json!({"line": 1, "status": "created"});
        let answer = json!({"next_line": 2, "results": [line]});
        let (results, done) = results(&batch(), &answer).unwrap();
        assert_eq!((results.len(), done), (2, 1));
    }

    #[test]
    fn an_answer_must_name_each_line() {
        let one = json!({"line": 1, "status": "created"});
        for answer in [
            json!(null),
            json!({"results": [one]}),
            json!({"next_line": 1, "results": []}),
            json!({"next_line": 3, "results": [one]}),
            json!({"next_line": 4, "results": [one, one, one]}),
            json!({"results": [{"line": 1}, {"line": 4}, {"line": 3}]}),
            json!({"results": [{"line": 0}, {"line": 1}, {"line": 2}]}),
        ] {
            assert!(results(&batch(), &answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn a_refusal_names_the_line_and_every_reason() {
        let report = Report::start("keys.csv", false, false).unwrap();
        let result = json!({"line": 7, "errors": [{"field": "scopes", "detail": "is missing"}, {"field": "", "detail": "b"}]});
        assert_eq!(
            report.refusal(&result),
            "keys.csv:7: refused: scopes is missing; b"
        );
    }
}
