//! A new key on its way to whoever asked for it. It is shown once, so the place for it is made before
//! the key is.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::cli::client::{Answer, Api, Call};
use crate::cli::failure::Failure;
use crate::cli::interrupt::unless_interrupted;
use crate::cli::new_file::{self, NewFile};
use crate::cli::outcome::warn_of_unconfirmed;
use crate::cli::render;

/// Where a new key goes.
#[derive(clap::Args)]
pub struct Handover {
    /// Print the key alone, for pipes
    #[arg(long, short, conflicts_with = "key_file")]
    quiet: bool,
    /// Write the key to this new file, readable by you only, instead of showing it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl Handover {
    /// Sends `call`, whose answer holds a new key, and hands that over.
    pub async fn carry_out(&self, api: &Api, call: &Call) -> Result<(), Failure> {
        let asked = async {
            let file = self.new_file()?;
            Ok((file, api.send(call).await?))
        };
        let (file, answer) = unless_interrupted(
            asked,
            "it may have been carried out all the same, so look before trying again",
        )
        .await?;
        let mut body = answer.json()?;
        let Some(key) = body["key"].as_str().map(SecretString::from) else {
            return Err(Failure::failed(
                "the answer holds no key: give the URL of the admin port with --admin-url",
            ));
        };
        let id = body["api_key"]["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let written = match file {
            Some((path, file)) => store(file, &key).and_then(|()| {
                if let Some(members) = body.as_object_mut() {
                    members.shift_remove("key");
                }
                tell_of_file(api, &body, path)
            }),
            None => self.print(api, &answer, &body, &key),
        };
        warn_of_unconfirmed(answer.unconfirmed());
        written.map_err(|failure| not_handed_over(&id, failure))
    }

    fn new_file(&self) -> Result<Option<(&Path, NewFile)>, Failure> {
        let Some(path) = self.key_file.as_deref() else {
            return Ok(None);
        };
        Ok(Some((path, NewFile::create(path, new_file::PRIVATE)?)))
    }

    fn print(
        &self,
        api: &Api,
        answer: &Answer,
        body: &Value,
        key: &SecretString,
    ) -> Result<(), Failure> {
        if self.quiet {
            return render::line(key.expose_secret());
        }
        if api.json {
            return render::json(&answer.text);
        }
        render::out(&format!(
            "{}\nThe key, shown this once; store it now:\n\n  {}\n",
            render::members(&body["api_key"]),
            key.expose_secret()
        ))
    }
}

fn store(mut file: NewFile, key: &SecretString) -> Result<(), Failure> {
    file.write(key.expose_secret().as_bytes())?;
    file.write(b"\n")?;
    file.keep()
}

fn tell_of_file(api: &Api, body: &Value, path: &Path) -> Result<(), Failure> {
    if api.json {
        return render::json(&body.to_string());
    }
    let path = path.display().to_string();
    render::out(&format!(
        "{}\nThe key is in {}, and nowhere else.\n",
        render::members(&body["api_key"]),
        render::harmless(&path)
    ))
}

/// There is a new key that nobody has seen.
fn not_handed_over(id: &str, failure: Failure) -> Failure {
    let cause = match failure {
        Failure::Failed(text) | Failure::Arguments(text) => text,
        Failure::ClosedPipe | Failure::Told => "nobody reads the output".to_owned(),
    };
    Failure::Failed(format!(
        "key {id} has a new secret that could not be handed over ({cause}): get another with `sidekey keys regenerate {id}`"
    ))
}
