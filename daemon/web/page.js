"use strict";
// The page works without this script. It adds buttons that copy commands, and updates the live part.
{
  const { every, copy, copied, failed } = document.body.dataset;
  const live = document.getElementById("live");
  const said = document.getElementById("said");
  const stale = document.getElementById("stale");

  // write copies text. The clipboard of navigator exists on localhost and by HTTPS only.
  const write = async (text, from) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    getSelection().selectAllChildren(from);
    if (!document.execCommand("copy")) throw new Error(failed);
  };
  const addButtons = (root) => {
    for (const block of root.querySelectorAll("pre")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = copy;
      button.setAttribute("aria-label", copy + ": " + block.textContent.split("\n")[0]);
      button.addEventListener("click", async () => {
        const done = await write(block.textContent, block).then(() => copied, () => failed);
        said.textContent = done;
        button.textContent = done === copied ? copied + " ✓" : copy;
        setTimeout(() => { button.textContent = copy; said.textContent = ""; }, 2000);
      });
      const frame = document.createElement("div");
      frame.className = "block";
      block.replaceWith(frame);
      frame.append(block, button);
    }
  };

  // update replaces the sections that have changed, except one that has the focus.
  const shown = {};
  for (const part of live.querySelectorAll("section")) shown[part.id] = part.outerHTML;
  const update = (html) => {
    const next = new DOMParser().parseFromString(html, "text/html");
    for (const part of next.querySelectorAll("section")) {
      const old = document.getElementById(part.id);
      const text = part.outerHTML;
      if (!old || shown[part.id] === text || old.contains(document.activeElement)) continue;
      shown[part.id] = text;
      const told = part.id === "verdict" && old.querySelector("h1").textContent !== part.querySelector("h1").textContent;
      addButtons(part);
      old.replaceWith(part);
      if (told) said.textContent = part.querySelector("h1").textContent;
    }
  };
  const look = async () => {
    if (document.hidden) return;
    const at = new URL(location.href);
    at.search = "?part=live&lang=" + document.documentElement.lang.slice(0, 2);
    at.hash = "";
    try {
      const response = await fetch(at, { cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(20000) });
      if (!response.ok) throw new Error(response.status);
      update(await response.text());
      if (stale.textContent) stale.textContent = "";
    } catch {
      if (!stale.textContent) stale.textContent = stale.dataset.text;
    }
  };

  addButtons(document);
  const repeat = () => setTimeout(async () => { await look(); repeat(); }, every * 1000);
  repeat();
  document.addEventListener("visibilitychange", look);
}
