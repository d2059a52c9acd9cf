//! What the page looks like, and to whom.

use std::path::Path;

use serde_json::{Value, json};

use super::Browser;

/// What axe-core is asked to do; without content outside of a modal dialog, which nobody can reach.
const RUN_AXE: &str = "
    const done = arguments[0];
    const open = [...document.querySelectorAll('dialog[open]')].at(-1);
    axe.run(open ?? document, { resultTypes: ['violations'] }).then((result) => done(result.violations),
        (error) => done([{ id: 'failed', help: String(error), nodes: [] }]));";

/// The system's setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Light,
    Dark,
}

impl Browser {
    /// Sets light or dark; nothing moves.
    pub async fn scheme(&self, scheme: Scheme) {
        let name = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let features = json!([
            {"name": "prefers-color-scheme", "value": name},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.tell("Emulation.setEmulatedMedia", json!({"features": features}))
            .await;
    }

    /// The viewer's time zone.
    pub async fn zone(&self, name: &str) {
        self.tell("Emulation.setTimezoneOverride", json!({"timezoneId": name}))
            .await;
    }

    /// The window's size in CSS pixels.
    pub async fn size(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.tell("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Whether pages run scripts, from the next one on.
    pub async fn scripts(&self, are_run: bool) {
        let value = json!({"value": !are_run});
        self.tell("Emulation.setScriptExecutionDisabled", value)
            .await;
    }

    async fn tell(&self, command: &str, parameters: Value) {
        self.chromium.tell(command, parameters).await;
    }

    /// Fails where the page is wider than the window.
    pub async fn fits_the_window(&self, what: &str) {
        if let Some(wide) = self.too_wide().await {
            let picture = self.screenshot("failed-width").await;
            panic!("{what} is too wide: {wide:#} ({})", picture.display());
        }
    }

    /// What makes the page wider than the window.
    pub async fn too_wide(&self) -> Option<Value> {
        let script = "const page = document.documentElement;
            if (page.scrollWidth <= page.clientWidth) return null;
            const wide = [...document.querySelectorAll('body *')].filter((element) =>
                element.getBoundingClientRect().right > page.clientWidth + 1);
            return [page.clientWidth, page.scrollWidth,
                wide.slice(0, 5).map((element) => element.outerHTML.slice(0, 200))];";
        let wide = self.run(script, &[]).await;
        (!wide.is_null()).then_some(wide)
    }

    /// Fails where axe-core finds something that keeps people out, in either colour scheme.
    pub async fn is_accessible(&self, what: &str) {
        for scheme in [Scheme::Dark, Scheme::Light] {
            self.scheme(scheme).await;
            let violations = self.axe().await;
            if !violations.is_empty() {
                let picture = self.screenshot("failed-axe").await;
                panic!(
                    "axe-core finds in {what} ({scheme:?}, {}):\n{}\n{}",
                    self.address().await,
                    violations.join("\n"),
                    picture.display(),
                );
            }
        }
    }

    /// What axe-core finds in the dialog that is open, or in the page.
    pub async fn axe(&self) -> Vec<String> {
        if self.run("return typeof axe", &[]).await == "undefined" {
            let path = "target/tools/node/node_modules/axe-core/axe.min.js";
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            let script = std::fs::read_to_string(&file).unwrap_or_else(|error| {
                panic!("{path}: {error}: run `tools/setup test` (make test does)")
            });
            self.run(&script, &[]).await;
        }
        let driver = &self.chromium.driver;
        let found = driver.execute_async(RUN_AXE, Vec::new()).await;
        let found = found.expect("axe-core runs");
        let violations = found.json().as_array().expect("violations").iter();
        violations.map(told).collect()
    }
}

/// A violation, for people.
fn told(violation: &Value) -> String {
    let mut text = format!("{}: {}", violation["id"], violation["help"]);
    for node in violation["nodes"].as_array().into_iter().flatten() {
        let summary = node["failureSummary"].as_str().unwrap_or_default();
        text.push_str(&format!("\n    {}\n        {summary}", node["html"]));
    }
    text
}
