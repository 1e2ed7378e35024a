// Keeps a page up to date: asks for it again and takes over its live parts, those with `data-live`. Each has an id. How
// often stands in the body's `data-refresh`, in milliseconds; where it names the events of a job (`data-events`), the
// page is asked for when something happens, too.

const interval = Number(document.body.dataset.refresh || 0);
const events = document.body.dataset.events;
// A server that does not answer for as long is not waited for.
const PATIENCE = 8000;
// Events come in bursts.
const PAUSE = 400;

const asOf = document.getElementById("as-of");
const stale = document.getElementById("stale");

// What the reader did to a part stays: what is unfolded, and where the focus is.
function takeOver(old, fresh) {
  if (old.innerHTML === fresh.innerHTML) return;
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const place = focused && [...old.querySelectorAll("a, button, summary, [tabindex]")].indexOf(focused);
  const text = focused && focused.textContent;
  for (const details of old.querySelectorAll("details[open][id]")) {
    const same = fresh.querySelector(`#${CSS.escape(details.id)}`);
    if (same) same.open = true;
  }
  const scrolled = [...old.querySelectorAll(".scroll")].map(region => region.scrollLeft);
  old.replaceChildren(...fresh.childNodes);
  [...old.querySelectorAll(".scroll")].forEach((region, at) => { region.scrollLeft = scrolled[at] || 0; });
  if (!focused) return;
  const others = [...old.querySelectorAll("a, button, summary, [tabindex]")];
  const again = others[place] && others[place].textContent === text ? others[place]
    : others.find(other => other.textContent === text);
  if (again) again.focus({ preventScroll: true });
}

// A list to choose from keeps what is chosen.
function takeOverOptions(old, fresh) {
  const values = select => [...select.options].map(option => option.value);
  if (values(old).join("\n") === values(fresh).join("\n")) return;
  const chosen = new Set([...old.selectedOptions].map(option => option.value));
  const lost = [...old.selectedOptions].filter(option => !values(fresh).includes(option.value));
  old.replaceChildren(...fresh.options, ...lost);
  for (const option of old.options) option.selected = chosen.has(option.value);
}

let waiting = null;
let asking = null;

// Asks for the page now, or when the answer that is on its way has come.
export function refresh() {
  if (asking) return asking.then(refresh);
  clearTimeout(waiting);
  asking = ask().finally(() => {
    asking = null;
    const again = Number(document.body.dataset.refresh || 0);
    if (again) waiting = setTimeout(refresh, again);
  });
  return asking;
}

async function ask() {
  try {
    const answer = await fetch(location.href, { signal: AbortSignal.timeout(PATIENCE), cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!answer.ok) {
      const problem = page.querySelector("main .notice.bad:not([hidden])");
      return say(problem ? problem.textContent : `the server answers ${answer.status}`);
    }
    for (const old of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(old.id);
      if (fresh) takeOver(old, fresh);
    }
    for (const old of document.querySelectorAll("[data-live-options]")) {
      const fresh = page.getElementById(old.id);
      if (fresh) takeOverOptions(old, fresh);
    }
    document.body.dataset.refresh = page.body.dataset.refresh || "";
    asOf.textContent = page.getElementById("as-of").textContent;
    say("");
  } catch {
    say("no answer since");
  }
}

// Says once that what is shown is old, and why.
function say(reason) {
  document.body.classList.toggle("is-stale", Boolean(reason));
  const text = reason && `, ${reason}`;
  if (stale.textContent !== text) stale.textContent = text;
}

if (interval) waiting = setTimeout(refresh, interval);
if (events && interval < 10000) {
  const source = new EventSource(events);
  let pause = null;
  const happened = () => { pause ??= setTimeout(() => { pause = null; refresh(); }, PAUSE); };
  for (const name of ["scored", "exploit", "checkpoint", "finished", "trained", "evaluated", "done", "state", "progress", "missing"]) {
    source.addEventListener(name, happened);
  }
  source.addEventListener("state", event => {
    if (["done", "failed", "cancelled"].includes(JSON.parse(event.data).state)) source.close();
  });
  // Where the server hosts no jobs, or has ended: asking again and again is enough.
  source.onerror = () => { if (source.readyState !== EventSource.CONNECTING || document.body.classList.contains("is-stale")) source.close(); };
}
