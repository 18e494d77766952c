// [data-live="path"] is kept up to date: the server sends its parts, each with an
// id of its own, as they change.
"use strict";

for (const box of document.querySelectorAll("[data-live]")) {
  const said = document.querySelector('[data-live-state="' + box.id + '"]');
  const button = document.querySelector('[data-live-switch="' + box.id + '"]');
  let source = null;
  let first = true;

  const say = (text) => { if (said) said.textContent = text; };

  const update = (event) => {
    const end = event.data.indexOf("\n");
    const ids = (end < 0 ? event.data : event.data.slice(0, end)).split(" ").filter(Boolean);
    const come = document.createElement("template");
    come.innerHTML = end < 0 ? "" : event.data.slice(end + 1);
    const fresh = new Map();
    for (const part of come.content.children) fresh.set(part.id, part);
    for (const part of [...box.children]) {
      const other = fresh.get(part.id);
      if (other && part.dataset.state !== other.dataset.state) {
        if ("reload" in box.dataset) {
          location.reload();
          return;
        }
        for (const link of document.querySelectorAll('[data-refresh="' + box.dataset.hint + '"]')) {
          link.classList.add("primary");
          link.textContent = "Something happened: refresh";
        }
      }
      if (!ids.includes(part.id)) part.remove();
    }
    ids.forEach((id, place) => {
      const old = document.getElementById(id);
      const part = fresh.get(id) || old;
      if (!part) return;
      if (fresh.has(id)) {
        localTimes(part);
        if (old && old.isEqualNode(part)) { // as the page was made
          fresh.delete(id);
        } else {
          if (!first) part.classList.add("fresh");
          if (old) old.replaceWith(part);
        }
      }
      const placed = document.getElementById(id) || part;
      if (box.children[place] !== placed) box.insertBefore(placed, box.children[place] || null);
    });
    document.dispatchEvent(new CustomEvent("live", { detail: box.id }));
    const empty = document.querySelector('[data-live-empty="' + box.id + '"]');
    if (empty) empty.hidden = box.children.length > 0;
    first = false;
    say("Live · " + new Date().toLocaleTimeString());
  };

  const stop = (text) => {
    if (source) source.close();
    source = null;
    if (button) {
      button.setAttribute("aria-pressed", "false");
      button.textContent = "Go live";
    }
    say(text);
  };

  const start = () => {
    source = new EventSource(box.dataset.live);
    source.addEventListener("parts", update);
    source.addEventListener("open", () => say("Live"));
    source.addEventListener("error", () => {
      if (source && source.readyState === EventSource.CLOSED) stop("Not live: load the page anew");
      else say("Waits for the connection…");
    });
    if (button) {
      button.setAttribute("aria-pressed", "true");
      button.textContent = "Stop";
    }
  };

  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => { if (source) stop("Stopped"); else start(); });
  }
  window.addEventListener("pagehide", () => { if (source) source.close(); });
  window.addEventListener("pageshow", (event) => { if (event.persisted && source) start(); });
  start();
}
