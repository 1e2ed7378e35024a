// Forms that start a job: what is filled in becomes the fields of its spec.

// The value of a field as the API takes it; nothing where it is left empty.
function valueOf(field) {
  if (field.multiple) return [...field.selectedOptions].map(option => option.value);
  if (field.dataset.type === "boolean") return field.checked || undefined;
  const text = field.value.trim();
  if (!text) return undefined;
  if (field.dataset.type === "list") return text.split(",").map(part => part.trim()).filter(Boolean);
  return field.type === "number" ? Number(text) : text;
}

function specOf(form) {
  const spec = {};
  const preset = form.querySelector("[data-preset]").value;
  if (preset) spec.preset = preset;
  for (const field of form.elements) {
    const value = field.name ? valueOf(field) : undefined;
    if (value === undefined) continue;
    spec[field.name] = Array.isArray(spec[field.name]) ? [...spec[field.name], ...value] : value;
  }
  return spec;
}

// Buttons are shown only where they work.
document.body.classList.add("has-script");

for (const form of document.querySelectorAll("form.job")) {
  // A field is named `dataset`, so the form's property of that name is the field.
  const [url, page] = [form.getAttribute("data-url"), form.getAttribute("data-page")];
  const problem = form.querySelector("[role=alert]");
  const button = form.querySelector("button[type=submit]");
  form.querySelector("[data-preset]").addEventListener("change", event => {
    const fields = JSON.parse(event.target.selectedOptions[0].dataset.fields);
    for (const name of ["model", "population", "epochs", "seeds"]) {
      const field = form.elements[name];
      if (field) field.value = fields[name] || "";
    }
  });
  form.addEventListener("submit", async event => {
    event.preventDefault();
    problem.hidden = true;
    button.disabled = true;
    try {
      const answer = await fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(specOf(form)),
      });
      const job = await answer.json();
      if (!answer.ok) throw new Error(job.detail);
      location.assign(page + encodeURIComponent(job.id));
    } catch (error) {
      problem.textContent = error.message === "Failed to fetch" ? "The server does not answer." : error.message;
      problem.hidden = false;
      button.disabled = false;
    }
  });
}
