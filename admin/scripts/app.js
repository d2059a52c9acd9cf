// Makes the dashboard's pages more comfortable. Without it everything works as pages and forms.

import { announce } from "./content.js";
import "./times.js";
import "./dialogs.js";
import "./regions.js";
import "./copying.js";
import "./parts.js";
import "./form.js";

// What needs a script is shown where there is one.
document.documentElement.dataset.script = "";

// A word on what was done is for now, and not for whoever loads the page again.
const here = new URL(location.href);
if (here.searchParams.has("done")) {
  here.searchParams.delete("done");
  history.replaceState(null, "", here);
}
const done = document.getElementById("done");
if (done) announce(done.textContent);
