//! What is shown of an answer: the thing that it is about, or that something was done; and who has not
//! confirmed a change.

use super::client::{Answer, Api};
use super::failure::{Failure, tell};
use super::render;

/// Shows the thing that was answered.
pub fn show(api: &Api, answer: &Answer) -> Result<(), Failure> {
    if api.json {
        return render::json(&answer.text);
    }
    render::out(&render::members(&answer.json()?))
}

/// Shows the thing as it is after a change.
pub fn changed(api: &Api, answer: &Answer) -> Result<(), Failure> {
    show(api, answer)?;
    warn_of_unconfirmed(answer.unconfirmed());
    Ok(())
}

/// Says that something was done.
pub fn done(api: &Api, answer: &Answer, what: &str) -> Result<(), Failure> {
    if api.json {
        render::json(&answer.text)?;
    } else {
        render::line(&render::harmless(what))?;
    }
    warn_of_unconfirmed(answer.unconfirmed());
    Ok(())
}

/// The change holds, but the instances with these names have not said that they know of it.
pub fn warn_of_unconfirmed(names: Option<&str>) {
    if let Some(names) = names {
        tell(&format!(
            "not yet confirmed by {names}: look whether these instances are well"
        ));
    }
}
