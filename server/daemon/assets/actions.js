// Buttons that ask something of the server: `data-method` and `data-url` say what, `data-question` what is asked before,
// and `data-then` which page comes after.

import { refresh } from "/assets/live.js";

const dialog = document.getElementById("confirm");
const problem = document.getElementById("problem");

// Buttons are shown only where they work.
document.body.classList.add("has-script");

function isConfirmed(question) {
  if (!question) return Promise.resolve(true);
  document.getElementById("question").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise(answer => {
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
  });
}

document.addEventListener("click", async event => {
  const button = event.target.closest("button[data-url]");
  if (!button) return;
  const { method, url, question, then } = button.dataset;
  if (!await isConfirmed(question)) return;
  button.disabled = true;
  problem.hidden = true;
  try {
    const answer = await fetch(url, { method });
    if (!answer.ok) throw new Error((await answer.json()).detail);
    if (then) location.assign(then);
    else await refresh();
  } catch (error) {
    problem.textContent = error.message === "Failed to fetch" ? "The server does not answer." : error.message;
    problem.hidden = false;
    button.disabled = false;
  }
});
