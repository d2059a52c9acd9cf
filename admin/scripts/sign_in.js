// Who follows a link from elsewhere comes without the session's cookie, which is only sent from pages of
// our own. This is one, so it asks again.
const form = document.querySelector("form[action='/dashboard/sign-in']");
const next = form?.elements.namedItem("next")?.value;
const isStranger = form?.hasAttribute("data-ask");

if (next && isStranger) {
  try {
    const answer = await fetch("/dashboard/session", { cache: "no-store", redirect: "manual" });
    if (answer.status === 204) {
      location.replace(next);
    }
  } catch {
    // The form is there.
  }
}
