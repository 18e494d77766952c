// What saves clicks. Every page does all it can do without it.
"use strict";

// Times are in UTC; pointing at one shows the browser's own.
function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.title = at.toLocaleString() + " (" + time.title + ")";
    }
  }
}

// [data-copy="id"] copies the text of what has the id.
async function copy(button) {
  const from = document.getElementById(button.dataset.copy);
  const text = "value" in from ? from.value : from.textContent;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Without https browsers let nobody write to the clipboard.
    from.focus();
    if ("select" in from) from.select();
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => { button.textContent = label; }, 2000);
}

// [data-check="name"] ticks the boxes of a form, or with data-to="none" unticks
// them.
function check(button) {
  for (const box of button.form.querySelectorAll('input[type="checkbox"][name="' + button.dataset.check + '"]')) {
    box.checked = button.dataset.to !== "none";
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy) {
    event.preventDefault();
    copy(button);
  } else if (button.dataset.check) {
    event.preventDefault();
    check(button);
  }
});

// A form that is sent twice by a double click is sent once.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
localTimes(document);
