// The table of running streams, from GET /v1/streams.

const section = document.getElementById("streams");
const rows = document.getElementById("stream-rows");
const INTERVAL = 2000;

function cell(tag, text, className = "", small = "") {
  const element = Object.assign(document.createElement(tag), { textContent: text, className });
  if (small) element.append(" ", Object.assign(document.createElement("small"), { textContent: small }));
  return element;
}

function progress(stream) {
  const bar = Object.assign(document.createElement("progress"), { max: stream.batches || 1, value: stream.sent });
  bar.setAttribute("aria-label", `Batches sent to ${stream.client}`);
  const element = document.createElement("td");
  const box = Object.assign(document.createElement("div"), { className: "progress" });
  box.append(bar, cell("span", `${stream.sent} of ${stream.batches}`));
  element.append(box);
  return element;
}

function row(stream) {
  const percent = share => `${Math.round(100 * share)} %`;
  const waits = { client: "the client, for the server", server: "the server, for the client", neither: "neither" };
  const client = cell("th", stream.token || stream.client, "", [stream.token && stream.client, stream.user_agent].filter(Boolean).join(" · "));
  client.scope = "row";
  const row = document.createElement("tr");
  row.append(
    client,
    cell("td", `${stream.dataset} ${stream.split}`, "", `${stream.schedule}, shard ${stream.shard}`),
    cell("td", stream.epoch, "number"),
    progress(stream),
    cell("td", Math.round(stream.images_per_second).toLocaleString("en"), "number"),
    cell("td", waits[stream.waits] || stream.waits, "", `client ${percent(stream.client_wait_ratio)}, server ${percent(stream.backpressure_ratio)}`),
  );
  return row;
}

async function show() {
  try {
    const answer = await fetch("/v1/streams", { cache: "no-store" });
    if (!answer.ok) return;
    const { streams } = await answer.json();
    section.hidden = false;
    if (streams.length) rows.replaceChildren(...streams.map(row));
    else {
      const none = cell("td", "No stream is running.");
      none.colSpan = 6;
      const empty = document.createElement("tr");
      empty.append(none);
      rows.replaceChildren(empty);
    }
  } catch {
    // The page says that it is stale.
  }
  setTimeout(show, INTERVAL);
}

// A browser reports each failed request on its console, so it is asked only whether there is the route.
const { paths } = await (await fetch("/openapi.json")).json();
if (paths["/v1/streams"]) show();
