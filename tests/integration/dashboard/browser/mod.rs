//! A person at a real browser, as tests see one: looks for things by what they are called, clicks, types,
//! waits until something is there, and is shown no error, not even one of those that only developers see.

mod chromium;
mod hands;
mod look;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thirtyfour::WebElement;
use thirtyfour::error::{WebDriverErrorInner, WebDriverResult};

use crate::harness::DEADLINE;
use crate::harness::sidekey::Sidekey;
use chromium::Chromium;

pub use look::Scheme;

/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(15);
/// Of the page's text, what a failed test shows.
const TEXT_SHOWN_MAX: usize = 4000;

/// Where tests look for keys.
pub const KEYS_PAGE: &str = "/dashboard/settings/developers/api-keys";

/// A browser with a profile of its own. [`Browser::close`] has to end it.
pub struct Browser {
    chromium: Chromium,
    /// Such as `http://127.0.0.1:8081`.
    origin: String,
    /// Parts of messages to developers that the test brings about.
    expected: RefCell<Vec<String>>,
    messages: RefCell<Vec<String>>,
    is_closed: Cell<bool>,
}

impl Browser {
    /// A browser that visits the admin port of `sidekey`.
    pub async fn open(sidekey: &Sidekey) -> Self {
        let browser = Browser {
            chromium: Chromium::start().await,
            origin: format!("http://{}", sidekey.admin),
            expected: RefCell::default(),
            messages: RefCell::default(),
            is_closed: Cell::new(false),
        };
        // Charts and dialogs don't move while they are looked at.
        browser.scheme(Scheme::Light).await;
        browser
    }

    /// Opens a browser and signs in with the first admin key.
    pub async fn signed_in(sidekey: &Sidekey) -> Self {
        let browser = Browser::open(sidekey).await;
        browser.sign_in(&sidekey.admin_key()).await;
        browser
    }

    /// Ends the browser; fails where it has told developers of something that is wrong.
    pub async fn close(self) {
        let wrong = self.complaints().await;
        assert!(
            wrong.is_empty(),
            "the browser complained:\n{}",
            wrong.join("\n")
        );
        self.is_closed.set(true);
    }

    /// Messages with `part` in them are what this test is about.
    pub fn expect(&self, part: &str) {
        self.expected.borrow_mut().push(part.to_owned());
    }

    /// What was wrong so far: errors of scripts, what the security policy has kept from happening,
    /// answers that should not be.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.chromium.driver.browser_log().await.expect("a log");
        let mut messages = self.messages.borrow_mut();
        for entry in entries {
            let is_wrong = matches!(&*entry.level, "SEVERE" | "WARNING");
            // Bad fields are told by an answer that browsers note as well.
            if is_wrong && !entry.message.contains("status of 422") {
                messages.push(format!("{} {}", entry.level, entry.message));
            }
        }
        let expected = self.expected.borrow();
        let is_expected = |message: &&String| !expected.iter().any(|part| message.contains(part));
        messages.iter().filter(is_expected).cloned().collect()
    }

    /// Visits a path of the admin port.
    pub async fn visit(&self, path: &str) {
        let url = format!("{}{path}", self.origin);
        let visited = self.chromium.driver.goto(&url).await;
        visited.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// Signs in with `key`; leads to the keys.
    pub async fn sign_in(&self, key: &str) {
        self.visit("/dashboard/sign-in").await;
        self.type_into("Admin key", key).await;
        self.press("Sign in").await;
        self.sees("API keys").await;
    }

    /// Path and query of the page.
    pub async fn address(&self) -> String {
        let url = self.chromium.driver.current_url().await.expect("a URL");
        url.as_str().replacen(&self.origin, "", 1)
    }

    /// Waits until the address holds `part`.
    pub async fn is_at(&self, part: &str) {
        let what = format!("the address holds {part}");
        self.until(&what, async || self.address().await.contains(part))
            .await;
    }

    /// What `script`, the body of a function, makes of `arguments`.
    pub async fn run(&self, script: &str, arguments: &[Value]) -> Value {
        let answer = self.try_run(script, arguments).await;
        answer.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    async fn try_run(&self, script: &str, arguments: &[Value]) -> WebDriverResult<Value> {
        let answer = self.chromium.driver.execute(script, arguments).await?;
        Ok(answer.json().clone())
    }

    /// Waits until `condition` holds.
    pub async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        self.wait(what, async || Ok(condition().await.then_some(())))
            .await;
    }

    /// Waits until `script` gives something true.
    pub async fn until_script(&self, what: &str, script: &str, arguments: &[Value]) {
        let attempt = async || {
            let value = self.try_run(script, arguments).await?;
            Ok((value == true).then_some(()))
        };
        self.wait(what, attempt).await;
    }

    /// Waits until an attempt comes to something. What is not there yet, covered or just gone may be there
    /// the next time.
    async fn wait<T>(
        &self,
        what: &str,
        attempt: impl AsyncFn() -> WebDriverResult<Option<T>>,
    ) -> T {
        let start = Instant::now();
        loop {
            let reason = match attempt().await {
                Ok(Some(value)) => return value,
                Ok(None) => String::new(),
                Err(error) => {
                    let is_asked = matches!(&*error, WebDriverErrorInner::UnexpectedAlertOpen(_));
                    assert!(!is_asked, "{what}: the browser asks something: {error}");
                    error.to_string()
                }
            };
            if start.elapsed() > DEADLINE {
                panic!(
                    "waited too long until {what}. {reason}\n{}",
                    self.state().await
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The element of a kind in find.js with a name.
    async fn find(&self, kind: &str, name: &str) -> WebDriverResult<Option<WebElement>> {
        let arguments = [json!(kind), json!(name)];
        let script = include_str!("find.js");
        let found = self.chromium.driver.execute(script, arguments).await?;
        if found.json().is_null() {
            return Ok(None);
        }
        found.element().map(Some)
    }

    /// What a failed test has to show.
    async fn state(&self) -> String {
        let script = "return [document.title, document.body.innerText]";
        let page = self.try_run(script, &[]).await.unwrap_or_default();
        let text: String = page[1]
            .as_str()
            .unwrap_or_default()
            .chars()
            .take(TEXT_SHOWN_MAX)
            .collect();
        let test = std::thread::current()
            .name()
            .map(|name| name.replace("::", "-"));
        let picture = self
            .screenshot(&format!("failed-{}", test.unwrap_or_default()))
            .await;
        format!(
            "---- {} {} (picture: {}):\n{text}\n---- the browser complained:\n{}",
            self.address().await,
            page[0],
            picture.display(),
            self.complaints().await.join("\n")
        )
    }

    /// A picture of what is seen, outside the repository's files.
    pub async fn screenshot(&self, name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join(format!("{name}.png"));
        let _ = self.chromium.driver.screenshot(&file).await;
        file
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let is_looked_through = self.is_closed.get() || std::thread::panicking();
        assert!(is_looked_through, "a test has to close its browser");
    }
}
