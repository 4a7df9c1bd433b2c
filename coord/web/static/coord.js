"use strict";
// Shows what the stream sends. Text from the store is only ever inserted with textContent.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const RETRY = 5000;
  const main = document.getElementById("main");
  const live = document.getElementById("live");

  const setText = (element, text) => {
    if (element && element.textContent !== text) element.textContent = text;
  };

  const say = (text, state) => {
    setText(live, text);
    live.dataset.state = state;
  };

  const local = (at) => new Date(at * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });

  const fill = (element, cell) => {
    const tag = "href" in cell ? "A" : "at" in cell ? "TIME" : null;
    let inner = element.firstElementChild;
    if (!tag) {
      if (inner) element.replaceChildren();
      setText(element, cell.text);
      return;
    }
    if (!inner || inner.tagName !== tag) {
      inner = document.createElement(tag);
      element.replaceChildren(inner);
    }
    if (tag === "A") {
      if (inner.getAttribute("href") !== cell.href) inner.setAttribute("href", cell.href);
      setText(inner, cell.text);
    } else {
      inner.dataset.at = cell.at;
      inner.title = cell.text;
      setText(inner, local(cell.at));
    }
  };

  const showTable = (body, rows) => {
    const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
    rows.forEach((wanted, number) => {
      let row = known.get(wanted.key);
      if (!row) {
        row = document.createElement("tr");
        row.dataset.key = wanted.key;
        wanted.cells.forEach((_, column) => {
          const cell = document.createElement(column ? "td" : "th");
          if (!column) cell.scope = "row";
          row.append(cell);
        });
      }
      known.delete(wanted.key);
      wanted.cells.forEach((cell, column) => fill(row.cells[column], cell));
      // A row that is in its place is not moved: it may have the focus.
      if (body.rows[number] !== row) body.insertBefore(row, body.rows[number] || null);
    });
    known.forEach((row) => row.remove());
    const empty = document.querySelector(`[data-empty="${body.dataset.table}"]`);
    if (empty) empty.hidden = rows.length > 0;
  };

  const showBars = (figure, view) => {
    figure.hidden = view.bars.length === 0;
    const bars = view.bars.map((bar) => {
      const rect = document.createElementNS(SVG, "rect");
      const title = document.createElementNS(SVG, "title");
      title.textContent = bar.title;
      rect.append(title);
      rect.setAttribute("class", `bar${bar.kind}`);
      for (const [name, value] of [["x", bar.x], ["y", 4], ["width", bar.width], ["height", 32]]) {
        rect.setAttribute(name, value);
      }
      return rect;
    });
    figure.querySelector("svg").replaceChildren(...bars);
    fill(figure.querySelector("[data-start]"), view.start);
  };

  const show = (view) => {
    for (const body of document.querySelectorAll("[data-table]")) {
      const rows = (view.tables || {})[body.dataset.table];
      if (rows) showTable(body, rows);
    }
    for (const element of document.querySelectorAll("[data-text]")) {
      const text = (view.texts || {})[element.dataset.text];
      if (text !== undefined) setText(element, text);
    }
    const facts = document.querySelectorAll("[data-facts] dd");
    (view.facts || []).forEach((fact, number) => fill(facts[number], fact.cell));
    const figure = document.querySelector("[data-timeline]");
    if (figure && view.bars) showBars(figure, view.bars);
    if (view.error) say(`Not up to date: ${view.error}`, "trouble");
    else say("Live", "live");
  };

  const follow = () => {
    const source = new EventSource(main.dataset.events);
    source.onmessage = (event) => show(JSON.parse(event.data));
    source.onerror = () => {
      say("Not up to date: the server cannot be reached", "trouble");
      if (source.readyState === EventSource.CLOSED) setTimeout(follow, RETRY);
    };
    addEventListener("pagehide", () => source.close(), { once: true });
  };

  for (const element of document.querySelectorAll("time[data-at]")) {
    element.title = element.textContent;
    element.textContent = local(element.dataset.at);
  }
  if (main.dataset.events && live) follow();
})();
