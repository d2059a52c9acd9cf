//! A new key on its way to whoever asked for it. It is shown once, so the place for it is made before
//! the key is.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::warn_of_unconfirmed;
use crate::cli::client::{Answer, Api, Call};
use crate::cli::failure::Failure;
use crate::cli::render;

/// Only its owner may read a file with a key.
const KEY_FILE_MODE: u32 = 0o600;

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
        let file = self.key_file.as_deref().map(NewFile::create).transpose()?;
        let answer = api.send(call).await?;
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
            Some(file) => file.write(&key).and_then(|path| {
                if let Some(members) = body.as_object_mut() {
                    members.shift_remove("key");
                }
                self.tell_of_file(api, &body, &path)
            }),
            None => self.print(api, &answer, &body, &key),
        };
        warn_of_unconfirmed(&answer);
        written.map_err(|failure| not_handed_over(&id, failure))
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

    fn tell_of_file(&self, api: &Api, body: &Value, path: &Path) -> Result<(), Failure> {
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

/// A file that is made for a key, and goes again where none comes.
struct NewFile {
    path: PathBuf,
    file: File,
    is_kept: bool,
}

impl NewFile {
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(KEY_FILE_MODE)
            .open(path);
        match file {
            Ok(file) => Ok(NewFile {
                path: path.to_owned(),
                file,
                is_kept: false,
            }),
            Err(error) => Err(Failure::Arguments(format!(
                "{} can't be made ({error}): name a file that is not there yet",
                path.display()
            ))),
        }
    }

    fn write(mut self, key: &SecretString) -> Result<PathBuf, Failure> {
        let written =
            writeln!(self.file, "{}", key.expose_secret()).and_then(|()| self.file.sync_all());
        written.map_err(|error| {
            Failure::Failed(format!("{} can't be written: {error}", self.path.display()))
        })?;
        self.is_kept = true;
        Ok(self.path.clone())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // It is empty, so it does no harm where it can't be removed.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
