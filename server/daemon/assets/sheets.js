// The sheets of a dataset's page follow the slider and the lists.

const form = document.getElementById("sheets");
// A slider that is dragged passes many epochs.
const PAUSE = 120;
// Where images side by side would be too small, there are fewer on a sheet.
const NARROW = matchMedia("(max-width: 760px)");

if (form) {
  const { split, schedule, epoch } = form.elements;
  const shown = form.querySelector("output");
  const of = form.querySelector(".of");
  const problem = document.getElementById("sheet-problem");
  form.querySelector(".without-script").hidden = true;

  // The reason why there is no picture is in the answer, which a picture does not show.
  async function load(image, turn) {
    const url = new URL(image.dataset.url, location.href);
    const answer = await fetch(url);
    if (!answer.ok) throw new Error((await answer.json()).detail);
    const picture = URL.createObjectURL(await answer.blob());
    if (turn !== turns) return URL.revokeObjectURL(picture);
    if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
    // It would go before the picture.
    image.parentElement.querySelectorAll("source").forEach(source => source.remove());
    image.src = picture;
    await image.decode().catch(() => {});
  }

  let turns = 0;
  async function show() {
    const turn = ++turns;
    const images = ["original", "augmented"].map(id => document.getElementById(id));
    for (const image of images) {
      const url = new URL(image.dataset.url || image.getAttribute("src"), location.href);
      url.pathname = url.pathname.replace(/\/epochs\/\d+\//, `/epochs/${epoch.value}/`);
      url.searchParams.set("split", split.value);
      url.searchParams.set("n", NARROW.matches ? 9 : 25);
      if (image.id === "augmented") url.searchParams.set("schedule", schedule.value);
      image.dataset.url = url.pathname + url.search;
    }
    try {
      await Promise.all(images.map(image => load(image, turn)));
      if (turn === turns) problem.hidden = true;
    } catch (error) {
      if (turn !== turns) return;
      problem.textContent = error.message === "Failed to fetch" ? "The server does not answer." : error.message;
      problem.hidden = false;
    }
  }

  let pending = null;
  form.addEventListener("input", () => {
    const chosen = schedule.selectedOptions[0];
    const epochs = Number(chosen && chosen.dataset.epochs || 200);
    epoch.max = epochs - 1;
    shown.textContent = epoch.value;
    of.textContent = `of ${epochs}`;
    // So that the address is that of what is shown.
    history.replaceState(null, "", `?${new URLSearchParams(new FormData(form))}`);
    clearTimeout(pending);
    pending = setTimeout(show, PAUSE);
  });
  form.addEventListener("submit", event => { event.preventDefault(); show(); });
}
