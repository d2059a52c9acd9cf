//! The targets that a run was to show, each with its figure, printed as one table at the end.

/// One target and what came of it.
pub struct Target {
    what: String,
    limit: String,
    outcome: Outcome,
}

enum Outcome {
    Met(String),
    Missed(String),
    /// A figure without a limit.
    Note(String),
    /// No figure, and why. A void target is never a met one.
    Void(String),
}

/// Collects targets while the cases run.
#[derive(Default)]
pub struct Report {
    targets: Vec<Target>,
}

impl Report {
    /// A figure that must not exceed `limit`. A figure that is no number is void.
    pub fn at_most(&mut self, what: &str, figure: f64, limit: f64, unit: &str) {
        let text = format!("{figure:.3}{unit}");
        let outcome = if figure.is_nan() {
            Outcome::Void("nothing was measured".to_owned())
        } else if figure <= limit {
            Outcome::Met(text)
        } else {
            Outcome::Missed(text)
        };
        self.push(what, format!("<= {limit}{unit}"), outcome);
    }

    /// A condition that must hold.
    pub fn must_hold(&mut self, what: &str, holds: bool, figure: String) {
        let outcome = if holds {
            Outcome::Met(figure)
        } else {
            Outcome::Missed(figure)
        };
        self.push(what, "holds".to_owned(), outcome);
    }

    /// A figure that says how far the others can be trusted.
    pub fn note(&mut self, what: &str, figure: f64, unit: &str) {
        let text = format!("{figure:.3}{unit}");
        self.push(what, "-".to_owned(), Outcome::Note(text));
    }

    /// A case that could not be measured.
    pub fn void(&mut self, what: &str, why: &str) {
        self.push(what, "-".to_owned(), Outcome::Void(why.to_owned()));
    }

    fn push(&mut self, what: &str, limit: String, outcome: Outcome) {
        self.targets.push(Target {
            what: what.to_owned(),
            limit,
            outcome,
        });
    }

    /// Prints the table. A reason for a void figure may have several lines and stands below.
    pub fn print(&self) {
        println!("\n== targets ==");
        println!("{:<58} {:>12} {:>12}", "", "limit", "measured");
        for target in &self.targets {
            let (figure, verdict) = match &target.outcome {
                Outcome::Met(figure) => (figure.as_str(), "met"),
                Outcome::Missed(figure) => (figure.as_str(), "MISSED"),
                Outcome::Note(figure) => (figure.as_str(), ""),
                Outcome::Void(_) => ("-", "VOID"),
            };
            println!(
                "{:<58} {:>12} {figure:>12}  {verdict}",
                target.what, target.limit
            );
            if let Outcome::Void(why) = &target.outcome {
                println!("    {why}");
            }
        }
    }
}
