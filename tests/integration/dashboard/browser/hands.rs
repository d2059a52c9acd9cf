//! What a person does with a page, and reads on it.

use serde_json::{Value, json};
use thirtyfour::{Key, WebElement};

use super::Browser;

impl Browser {
    /// Clicks the link, button or tab that is called `name`.
    pub async fn press(&self, name: &str) {
        let attempt = async || {
            let Some(found) = self.find("press", name).await? else {
                return Ok(None);
            };
            found.click().await.map(Some)
        };
        self.wait(&format!("“{name}” can be pressed"), attempt)
            .await;
    }

    /// Clicks what leads to another page, and waits until that is there with its scripts.
    pub async fn follow(&self, name: &str) {
        self.run("window.isLeft = true", &[]).await;
        self.press(name).await;
        let script = "return window.isLeft === undefined && document.readyState === 'complete'";
        self.until_script(&format!("“{name}” leads on"), script, &[])
            .await;
    }

    /// The field whose label begins with `label`; or whose id it is, such as `#key`.
    pub async fn field(&self, label: &str) -> WebElement {
        let what = format!("there is a field “{label}”");
        self.wait(&what, async || self.find("field", label).await)
            .await
    }

    /// Types over what a field holds.
    pub async fn type_into(&self, label: &str, text: &str) {
        let attempt = async || {
            let Some(field) = self.find("field", label).await? else {
                return Ok(None);
            };
            field.clear().await?;
            field.send_keys(text).await.map(Some)
        };
        self.wait(&format!("“{label}” can be typed into"), attempt)
            .await;
    }

    /// Pastes into a field: all of the text is there at once.
    pub async fn paste_into(&self, label: &str, text: &str) {
        let attempt = async || {
            let Some(field) = self.find("field", label).await? else {
                return Ok(None);
            };
            field.click().await.map(Some)
        };
        self.wait(&format!("“{label}” can be pasted into"), attempt)
            .await;
        let text = json!({"text": text});
        self.chromium.tell("Input.insertText", text).await;
    }

    /// Ticks a checkbox or chooses a radio button, or the other way round.
    pub async fn tick(&self, label: &str) {
        let attempt = async || {
            let Some(field) = self.find("field", label).await? else {
                return Ok(None);
            };
            field.click().await.map(Some)
        };
        self.wait(&format!("“{label}” can be ticked"), attempt)
            .await;
    }

    /// Chooses an option by its text.
    pub async fn choose(&self, label: &str, option: &str) {
        self.set(label, option).await;
    }

    /// Gives a field that isn't typed into (a date, a choice) a value or an option's text, as its own
    /// surface would.
    pub async fn set(&self, label: &str, value: &str) {
        let field = self.field(label).await.to_json().expect("an element");
        let script = "
            const [field, wanted] = arguments;
            const options = [...(field.options ?? [])];
            const option = options.find((one) => one.text.trim() === wanted || one.value === wanted);
            if (field.options && !option) return options.map((one) => one.text);
            field.value = option ? option.value : wanted;
            field.dispatchEvent(new Event('input', { bubbles: true }));
            field.dispatchEvent(new Event('change', { bubbles: true }));
            return null;";
        let refused = self.run(script, &[field, json!(value)]).await;
        assert!(refused.is_null(), "“{label}” has {refused}, not {value}");
    }

    /// What a field holds.
    pub async fn value_of(&self, label: &str) -> String {
        let field = self.field(label).await;
        field
            .prop("value")
            .await
            .expect("a value")
            .unwrap_or_default()
    }

    /// What is told to be wrong with a field: the texts that describe it and are errors.
    pub async fn error_of(&self, label: &str) -> String {
        let script = "
            const [field] = arguments;
            if (field.getAttribute('aria-invalid') !== 'true') return '';
            const ids = (field.getAttribute('aria-describedby') ?? '').split(' ');
            const errors = ids.map((id) => document.getElementById(id)).filter((one) => one?.matches('.error'));
            return errors.filter((one) => one.checkVisibility()).map((one) => one.innerText).join(' ');";
        let attempt = async || {
            let Some(field) = self.find("field", label).await? else {
                return Ok(None);
            };
            let told = self.try_run(script, &[field.to_json()?]).await?;
            let told = told.as_str().unwrap_or_default().to_owned();
            Ok((!told.is_empty()).then_some(told))
        };
        self.wait(&format!("“{label}” is told to be wrong"), attempt)
            .await
    }

    /// Presses keys where the focus is.
    pub async fn keys(&self, keys: &str) {
        let chain = self.chromium.driver.action_chain().send_keys(keys);
        chain.perform().await.expect("keys are pressed");
    }

    pub async fn key(&self, key: Key) {
        self.keys(&key.value().to_string()).await;
    }

    /// Goes on by the Tab key until the focus is on what is called `name`.
    pub async fn tab_to(&self, name: &str) {
        const STOPS_MAX: usize = 80;
        for _ in 0..STOPS_MAX {
            if self.focused().await.starts_with(name) {
                return;
            }
            self.key(Key::Tab).await;
        }
        panic!("Tab never comes to “{name}”\n{}", self.state().await);
    }

    /// The name of what has the focus.
    pub async fn focused(&self) -> String {
        let name = self.run(include_str!("find.js"), &[json!("focused")]).await;
        name.as_str().unwrap_or_default().to_owned()
    }

    pub async fn is_focused(&self, name: &str) {
        let what = format!("“{name}” has the focus");
        self.until(&what, async || self.focused().await.starts_with(name))
            .await;
    }

    /// Waits until what a selector finds has the focus.
    pub async fn is_focused_css(&self, selector: &str) {
        let script = "return document.activeElement.matches(arguments[0])";
        let what = format!("{selector} has the focus");
        self.until_script(&what, script, &[json!(selector)]).await;
    }

    /// Presses the pointer's button on what a selector finds; [`Browser::let_go`] ends it.
    pub async fn hold(&self, selector: &str) {
        let attempt = async || {
            let Some(found) = self.find("css", selector).await? else {
                return Ok(None);
            };
            let chain = self.chromium.driver.action_chain();
            let held = chain.click_and_hold_element(&found).perform().await;
            held.map(Some)
        };
        self.wait(&format!("{selector} can be held"), attempt).await;
    }

    pub async fn let_go(&self) {
        let chain = self.chromium.driver.action_chain();
        chain.release().perform().await.expect("it is let go");
    }

    /// Moves the pointer over the middle of what a selector finds.
    pub async fn hover(&self, selector: &str) {
        let found = self.wait_for(selector).await;
        let chain = self.chromium.driver.action_chain();
        let moved = chain.move_to_element_center(&found).perform().await;
        moved.expect("the pointer moves");
    }

    /// Moves the pointer over the middle of what a selector finds, so far from its left as `part` says.
    pub async fn hover_at(&self, selector: &str, part: f64) {
        let found = self.wait_for(selector).await;
        found.scroll_into_view().await.expect("it can be seen");
        let width = found.rect().await.expect("a place").width;
        let from_the_middle = ((part - 0.5) * width) as i64;
        let chain = self.chromium.driver.action_chain();
        let chain = chain.move_to_element_with_offset(&found, from_the_middle, 0);
        chain.perform().await.expect("the pointer moves");
    }

    pub async fn refresh(&self) {
        self.chromium.driver.refresh().await.expect("a page");
    }

    pub async fn back(&self) {
        self.chromium.driver.back().await.expect("a page");
    }

    pub async fn forward(&self) {
        self.chromium.driver.forward().await.expect("a page");
    }

    /// Waits for what a selector finds first.
    pub async fn wait_for(&self, selector: &str) -> WebElement {
        let what = format!("there is {selector}");
        self.wait(&what, async || self.find("css", selector).await)
            .await
    }

    /// The text of what a selector finds first, as it is seen.
    pub async fn text_of(&self, selector: &str) -> String {
        let found = self.wait_for(selector).await;
        found.text().await.expect("a text")
    }

    /// The texts of everything that a selector finds in the page, hidden or not, spaces made one.
    pub async fn texts_of(&self, selector: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])]
            .map((found) => found.textContent.replace(/\\s+/g, ' ').trim())";
        let texts = self.run(script, &[json!(selector)]).await;
        serde_json::from_value(texts).expect("texts")
    }

    pub async fn count_of(&self, selector: &str) -> usize {
        self.texts_of(selector).await.len()
    }

    /// Waits until `text` is to be read: in the dialog, where one is open.
    pub async fn sees(&self, text: &str) {
        self.until_script(&format!("“{text}” is seen"), SEES, &[json!(text)])
            .await;
    }

    /// Waits until `text` is nowhere to be read.
    pub async fn sees_no(&self, text: &str) {
        let script = format!("return !(() => {{ {SEES} }}).apply(null, arguments)");
        self.until_script(&format!("“{text}” is gone"), &script, &[json!(text)])
            .await;
    }

    /// Waits until no dialog is open.
    pub async fn sees_no_dialog(&self) {
        let script = "return !document.querySelector('dialog[open]')";
        self.until_script("no dialog is open", script, &[]).await;
    }

    /// Waits until screen readers are told something with `text` in it: in the dialog, where one is open,
    /// for they hear nothing of what is beneath it.
    pub async fn hears(&self, text: &str) {
        let script = "
            const open = [...document.querySelectorAll('dialog[open]')].at(-1);
            return [...(open ?? document).querySelectorAll('[role=status], [role=alert], [aria-live]')]
            .some((place) => place.textContent.includes(arguments[0]))";
        self.until_script(&format!("“{text}” is announced"), script, &[json!(text)])
            .await;
    }

    /// Notes what buttons of the dialog say from now on, for some of it stands there for a moment.
    pub async fn listen_to_buttons(&self) {
        let script = "
            window.said = [];
            const note = ({ target }) => {
                const button = target.parentElement?.closest('button');
                if (!button?.checkVisibility()) return;
                window.said.push(button.innerText.replace(/\\s+/g, ' ').trim());
            };
            new MutationObserver((changes) => changes.forEach(note))
                .observe(document.getElementById('dialog'), { characterData: true, subtree: true });";
        self.run(script, &[]).await;
    }

    /// Waits until a button has said `text` since [`Browser::listen_to_buttons`].
    pub async fn button_has_said(&self, text: &str) {
        let script = "return window.said.includes(arguments[0])";
        self.until_script(
            &format!("a button has said “{text}”"),
            script,
            &[json!(text)],
        )
        .await;
    }

    /// What was copied.
    pub async fn clipboard(&self) -> String {
        let script = "const done = arguments[0];
            navigator.clipboard.readText().then(done, (error) => done(String(error)))";
        let driver = &self.chromium.driver;
        let text = driver.execute_async(script, Vec::new()).await;
        let text = text.expect("the clipboard is read");
        text.json().as_str().expect("a text").to_owned()
    }

    /// Waits until the clipboard holds a text, and empties it.
    pub async fn copied(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let attempt = async || {
            let text = self.clipboard().await;
            Ok(fits(&text).then_some(text))
        };
        let text = self.wait(&format!("{what} is copied"), attempt).await;
        self.run("navigator.clipboard.writeText('')", &[]).await;
        text
    }

    /// The content of a file that was saved.
    pub async fn saved(&self, name: &str) -> String {
        let file = self.chromium.downloads().join(name);
        let attempt = async || Ok(std::fs::read_to_string(&file).ok());
        self.wait(&format!("{name} is saved"), attempt).await
    }

    /// The rows of a table's body, each a list of texts.
    pub async fn rows_of(&self, selector: &str) -> Vec<Vec<String>> {
        let script =
            "return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map((row) =>
            [...row.cells].map((cell) => cell.textContent.replace(/\\s+/g, ' ').trim()))";
        let rows = self.run(script, &[json!(selector)]).await;
        serde_json::from_value(rows).expect("rows")
    }

    /// Whether a planted script has run.
    pub async fn is_hacked(&self) -> bool {
        let value: Value = self.run("return window.hacked !== undefined", &[]).await;
        value == true
    }
}

const SEES: &str = "
    const open = [...document.querySelectorAll('dialog[open]')].at(-1);
    const text = (open ?? document.body).innerText.replace(/\\s+/g, ' ');
    return text.includes(arguments[0]);";
