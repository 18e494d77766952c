// [data-live="path"] is kept up to date: the server sends its parts, each with an
// id of its own, as they change. A part is replaced where it stands; in a
// [data-list="prefix"] the parts whose ids begin so also come, go and move.
"use strict";

for (const box of document.querySelectorAll("[data-live]")) {
  const said = document.querySelector('[data-live-state="' + box.id + '"]');
  const button = document.querySelector('[data-live-switch="' + box.id + '"]');
  const lists = [...box.querySelectorAll("[data-list]")];
  if ("list" in box.dataset) lists.push(box);
  let source = null;
  let first = true;

  const say = (text) => { if (said) said.textContent = text; };

  // What the keyboard may stand on.
  const stands = (part) => [...part.querySelectorAll("a[href], button, summary, [tabindex]")];

  const update = (event) => {
    const end = event.data.indexOf("\n");
    const ids = (end < 0 ? event.data : event.data.slice(0, end)).split(" ").filter(Boolean);
    const come = document.createElement("template");
    come.innerHTML = end < 0 ? "" : event.data.slice(end + 1);
    let focused = document.activeElement;
    const fresh = new Map();
    for (const { content } of come.content.children) fresh.set(content.firstElementChild.id, content.firstElementChild);
    for (const [id, part] of fresh) {
      localTimes(part);
      const old = document.getElementById(id);
      if (!old || old.isEqualNode(part)) continue; // equal: as the page was made
      if (old.dataset.state !== part.dataset.state) {
        if ("reload" in box.dataset) {
          location.reload();
          return;
        }
        if ("hint" in box.dataset) {
          for (const link of document.querySelectorAll('[data-refresh="' + box.dataset.hint + '"]')) {
            link.classList.add("primary");
            link.textContent = "Something happened: refresh";
          }
        }
        if (!first) part.classList.add("fresh");
      }
      if (old.contains(focused)) focused = stands(part)[stands(old).indexOf(focused)];
      old.replaceWith(part);
    }
    for (const list of lists) {
      const wanted = ids.filter((id) => id.startsWith(list.dataset.list));
      for (const part of [...list.children]) if (!wanted.includes(part.id)) part.remove();
      wanted.forEach((id, place) => {
        let part = document.getElementById(id);
        if (!part) {
          part = fresh.get(id);
          if (!part) return;
          if (!first) part.classList.add("fresh");
        }
        if (list.children[place] !== part) list.insertBefore(part, list.children[place] || null);
      });
      const empty = document.querySelector('[data-live-empty="' + list.id + '"]');
      if (empty) empty.hidden = list.children.length > 0;
    }
    if (focused && focused !== document.activeElement && box.contains(focused)) focused.focus({ preventScroll: true });
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
