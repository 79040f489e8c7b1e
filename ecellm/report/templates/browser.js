"use strict";
for (const root of document.querySelectorAll(".browser")) {
  const entries = JSON.parse(root.querySelector("script").textContent);
  const filters = root.querySelector(".filters"), list = root.querySelector(".entries"), count = root.querySelector(".count");
  const make = (tag, text, style) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (style) made.className = style;
    return made;
  };
  const chosen = {};
  const choose = (name, values) => {
    const label = make("label", name + " "), box = make("select");
    for (const value of ["all", ...values]) box.append(make("option", value));
    box.addEventListener("change", show);
    label.append(box);
    filters.append(label);
    chosen[name] = () => box.value;
  };
  const distinct = (key) => [...new Set(entries.map((entry) => entry[key]))];
  choose("setting", distinct("setting"));
  choose("task", distinct("task"));
  choose("kind", distinct("kind"));
  const search = make("input");
  search.type = "search";
  search.placeholder = "text in prompt, reply or gold";
  search.addEventListener("input", show);
  filters.append(search);
  const field = (name, text) => {
    const box = make("div");
    box.append(make("small", name), make("pre", text));
    return box;
  };
  function card(entry) {
    const made = make("details", undefined, "row"), head = make("summary");
    head.append(make("b", entry.task), make("span", " " + entry.setting + " · " + entry.kind + " · " + entry.id, "soft"));
    made.append(head);
    made.addEventListener("toggle", () => {
      if (made.childElementCount > 1) return;
      made.append(field("prompt", entry.prompt), field("gold", entry.gold));
      for (const one of entry.replies) {
        const read = one.parsed === null ? "nothing: unreadable" : one.parsed;
        made.append(field(one.system + " · " + one.kind + " · ended by " + one.reason, one.reply));
        if (read !== one.reply) made.append(field("read as", read));
      }
    });
    return made;
  }
  function show() {
    const wanted = search.value.toLowerCase();
    const found = entries.filter((entry) =>
      ["setting", "task", "kind"].every((name) => chosen[name]() === "all" || chosen[name]() === entry[name]) &&
      (!wanted || [entry.prompt, entry.gold, ...entry.replies.map((one) => one.reply)].join("\n").toLowerCase().includes(wanted)));
    count.textContent = found.length + " of " + entries.length + " rows";
    list.replaceChildren(...found.slice(0, 200).map(card));
  }
  show();
}
