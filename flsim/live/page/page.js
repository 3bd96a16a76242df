// Follows runs: asks the server for what has changed, and redraws that alone. It has nothing to send.
"use strict";
(function () {
  const every = Number(document.body.dataset.every);
  const asked = new URLSearchParams(location.search).get("name");
  const isOne = location.pathname.endsWith("/run") && asked !== null;
  const $ = (id) => document.getElementById(id);
  let latest = null, last = 0, failures = 0;

  // Texts: a dash stands for what is not known.
  function percent(value, digits = 1) {
    if (value === null || value === undefined) return "–";
    const steps = 100 * value * 10 ** digits, down = Math.floor(steps);
    const whole = steps - down === 0.5 ? down + (down % 2) : Math.round(steps); // halves to the even one, as the report
    return (whole / 10 ** digits).toFixed(digits) + " %";
  }
  function span(s) {
    if (s < 90) return Math.round(s) + " s";
    if (s < 5400) return Math.round(s / 60) + " min";
    if (s < 129600) return Math.floor(s / 3600) + " h " + String(Math.round((s % 3600) / 60)).padStart(2, "0") + " min";
    return (s / 86400).toFixed(1) + " days";
  }
  function left(run) {
    if (run.ends === null) return "–";
    const s = run.ends - Date.now() / 1000;
    return s > 0 ? span(s) : "any moment";
  }
  function when(s) {
    const date = new Date(1000 * s), isToday = date.toDateString() === new Date().toDateString();
    const time = date.toLocaleTimeString([], { timeStyle: "short" });
    return isToday ? time : date.toLocaleDateString([], { dateStyle: "medium" }) + ", " + time;
  }
  function rounds(run) {
    const of = run.rounds === null ? "?" : run.rounds;
    return (run.round === null ? "–" : run.round) + " of " + of;
  }
  function element(kind, text, name) {
    const made = document.createElement(kind);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  }
  function bar(run) {
    const made = element("progress");
    made.max = run.rounds || 1;
    made.value = Math.min(run.round || 0, made.max);
    made.setAttribute("aria-label", rounds(run));
    return made;
  }

  // The list.
  const STATES = ["running", "waiting", "failed", "stopped", "done"];
  const COLUMNS = [
    { key: "name", title: "run" },
    { key: "state", title: "state", by: (run) => STATES.indexOf(run.state) },
    { key: "round", title: "round", by: (run) => (run.round === null ? -1 : run.round) },
    { key: "ends", title: "left", by: (run) => (run.ends === null ? Infinity : run.ends) },
    { key: "accuracy", title: "accuracy" },
    { key: "alone", title: "alone" },
    { key: "usage", title: "usage" },
    { key: "findings", title: "findings", by: (run) => (run.findings ? run.findings[0] * 1e6 + run.findings[1] * 1e3 + run.findings[2] : -1) },
    { key: "devices", title: "devices" },
    { key: "seed", title: "seed" },
    { key: "changed", title: "last round" },
  ];
  let sorting = { key: "name", down: false }, only = null;

  function sorted(runs) {
    const column = COLUMNS.find((one) => one.key === sorting.key);
    const value = column.by || ((run) => run[column.key]);
    const known = (run) => value(run) !== null && value(run) !== undefined;
    const compare = (a, b) => {
      const x = value(a), y = value(b);
      if (typeof x === "string") return x.localeCompare(y, undefined, { numeric: true });
      return x < y ? -1 : x > y ? 1 : 0;
    };
    const found = runs.slice().sort((a, b) => {
      if (known(a) !== known(b)) return known(a) ? -1 : 1; // what is not known stands last
      return (known(a) ? (sorting.down ? -1 : 1) * compare(a, b) : 0) || a.name.localeCompare(b.name, undefined, { numeric: true });
    });
    return found;
  }

  function sortBy(key, down) {
    sorting = { key: key, down: down };
    $("sort").value = key;
    showList();
  }

  function headings() {
    const line = document.querySelector("#runs thead tr");
    for (const column of COLUMNS) {
      const cell = element("th"), button = element("button", column.title);
      button.type = "button";
      const numbers = !["name", "state", "ends"].includes(column.key); // of numbers the largest stands first
      button.onclick = () => sortBy(column.key, sorting.key === column.key ? !sorting.down : numbers);
      cell.dataset.key = column.key;
      cell.append(button);
      line.append(cell);
      const option = element("option", column.title);
      option.value = column.key;
      $("sort").append(option);
    }
    $("sort").onchange = () => {
      const numbers = !["name", "state", "ends"].includes($("sort").value);
      sortBy($("sort").value, numbers);
    };
    $("find").oninput = showList;
  }

  function states(runs) {
    const box = $("states");
    box.replaceChildren();
    for (const state of [null, ...STATES]) {
      const count = state === null ? runs.length : runs.filter((run) => run.state === state).length;
      if (state !== null && !count && only !== state) continue;
      const button = element("button", (state === null ? "all" : state) + " " + count);
      button.type = "button";
      button.setAttribute("aria-pressed", String(only === state));
      button.onclick = () => { only = state; showList(); };
      box.append(button);
    }
  }

  function line(run) {
    const row = element("tr");
    const cell = (content, label, name) => {
      const made = element("td", undefined, name);
      if (label) made.dataset.label = label;
      made.append(...[].concat(content));
      row.append(made);
    };
    const parts = run.name.split("/"), link = element("a");
    const folder = parts.slice(0, -1).join("/");
    if (folder) link.append(element("span", folder + "/", "folder"));
    link.append(parts[parts.length - 1]);
    link.href = "run?name=" + encodeURIComponent(run.path);
    const title = run.state === "waiting" && run.round === null ? element("span", run.name) : link;
    cell(title, "", "run");
    cell(element("span", run.state, "state " + run.state), "", "state-cell");
    cell([rounds(run), bar(run)], "round");
    cell(element("span", left(run), "left"), "left");
    cell(percent(run.accuracy), "accuracy");
    cell(percent(run.alone), "alone");
    cell(percent(run.usage) + (run.tau === null ? "" : " of τ " + percent(run.tau, 0)), "usage");
    const marks = ["fault", "warning", "note"].map((kind, at) => (run.findings && run.findings[at] ? mark(kind, run.findings[at]) : null));
    cell(run.findings === null ? "–" : marks.some(Boolean) ? marks.filter(Boolean) : "none", "findings");
    cell(run.devices === null ? "–" : String(run.devices), "devices", "spare");
    cell(run.seed === null ? "–" : String(run.seed), "seed", "spare");
    cell(run.changed === null ? "–" : when(run.changed), "last round", "spare");
    row.dataset.run = run.path;
    row.dataset.ends = run.ends === null ? "" : String(run.ends);
    if (!run.why) return [row];
    const reason = element("tr", undefined, "reason"), wide = element("td", run.why, run.state === "failed" ? "why" : "why quiet");
    wide.colSpan = COLUMNS.length;
    row.classList.add("with-reason");
    reason.append(wide);
    return [row, reason];
  }

  function mark(kind, count) {
    const made = element("span", String(count), "mark " + kind);
    made.title = count + " " + kind + (count > 1 ? "s" : "");
    return made;
  }

  function showList() {
    if (!latest) return;
    const text = $("find").value.trim().toLowerCase();
    const found = latest.runs.filter((run) => (only === null || run.state === only) && run.name.toLowerCase().includes(text));
    $("root").textContent = latest.root;
    document.title = latest.runs.filter((run) => run.state === "running").length + " running, flsim watch";
    states(latest.runs);
    for (const cell of document.querySelectorAll("#runs th")) {
      if (cell.dataset.key === sorting.key) cell.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    document.querySelector("#runs tbody").replaceChildren(...sorted(found).flatMap(line));
    $("none").hidden = found.length > 0;
    $("none").textContent = latest.runs.length ? "No run is like that." : "There are no runs here yet; they appear when they begin.";
    $("list").hidden = false;
  }

  // One run.
  const shown = new Map(); // name of a section -> what it shows
  const places = new Map(); // name of a chart -> where it stands, for good: what drew it keeps its canvas

  function section(data) {
    let kept = shown.get(data.name);
    if (!kept) {
      const made = element("section");
      const caption = element("p", "", "note"), title = element("h2"), charts = element("div", undefined, "charts");
      const told = element("div");
      made.dataset.section = data.name;
      made.append(title, charts, caption, told);
      kept = { made: made, title: title, charts: charts, caption: caption, told: told, html: null, names: "" };
      shown.set(data.name, kept);
    }
    kept.title.textContent = data.title;
    kept.title.hidden = !data.title;
    kept.caption.textContent = data.caption;
    kept.caption.hidden = !data.caption;
    const names = JSON.stringify(data.charts);
    if (kept.names !== names) {
      kept.charts.replaceChildren(...data.charts.map((chart) => place(chart, data.charts.length)));
      kept.names = names;
    }
    kept.charts.hidden = !data.charts.length;
    if (kept.html !== data.html) {
      kept.told.innerHTML = data.html; // escaped by the server, as in a report
      kept.html = data.html;
    }
    return kept.made;
  }

  function place(chart, count) {
    if (places.has(chart.name)) return places.get(chart.name);
    const made = element("figure", undefined, "chart" + (count === 1 ? " wide" : ""));
    const paper = element("div", undefined, "paper"), canvas = element("canvas");
    made.dataset.chart = chart.name;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", chart.title);
    paper.append(canvas);
    made.append(element("h3", chart.title), paper);
    if (chart.note) made.append(element("p", chart.note, "note"));
    places.set(chart.name, made);
    return made;
  }

  function showOne(run) {
    document.title = run.name + ", " + run.state;
    $("name").textContent = run.name;
    $("state").textContent = run.state;
    $("state").className = "state " + run.state;
    $("rounds").textContent = "round " + rounds(run);
    $("done").max = run.rounds || 1;
    $("done").value = Math.min(run.round || 0, run.rounds || 1);
    const why = [run.why, ...run.notes].filter(Boolean);
    $("why").textContent = why.join("\n");
    $("why").hidden = !why.length;
    $("report").hidden = !run.report;
    $("report").href = "report?name=" + encodeURIComponent(run.path);
    const sections = run.sections.map(section);
    const now = Array.from($("sections").children);
    if (sections.length !== now.length || sections.some((one, at) => one !== now[at])) $("sections").replaceChildren(...sections);
    $("log").hidden = !run.troubles.length;
    document.querySelector("#log pre").textContent = run.troubles.join("\n");
    $("one").hidden = false;
    flsimCharts.show(run.charts);
    clock();
  }

  // What moves by itself: the time left, and how long ago the server was asked.
  function clock() {
    if (isOne && latest) $("left").textContent = latest.ends === null ? "" : left(latest) + (latest.ends * 1000 > Date.now() ? " left" : "");
    for (const row of document.querySelectorAll("#runs tbody tr")) {
      if (row.dataset.ends) row.querySelector(".left").textContent = left({ ends: Number(row.dataset.ends) });
    }
    $("asked").textContent = last ? "Looked at " + new Date(last).toLocaleTimeString() + "." : "";
  }

  function away(text) {
    $("away").textContent = text;
    $("away").hidden = !text;
  }

  let known = null; // the text of the newest answer, so that nothing is drawn again that has not changed
  async function ask() {
    try {
      const answer = await fetch(isOne ? "run.json?name=" + encodeURIComponent(asked) : "runs.json", { cache: "no-cache" });
      if (answer.status === 404) {
        away("There is no run " + asked + " any more, or not yet.");
      } else if (!answer.ok) {
        away("The server of flsim watch could not look (status " + answer.status + "); its terminal says why.");
      } else {
        const text = await answer.text();
        failures = 0;
        last = Date.now();
        away("");
        if (text !== known) {
          known = text;
          $("reading").hidden = true;
          latest = JSON.parse(text);
          if (isOne) showOne(latest); else showList();
        }
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // a fetch that nobody answers is one
      failures += 1;
      if (failures > 1) away("flsim watch is not there any more: what is shown stands still since " + new Date(last).toLocaleTimeString() + ".");
    }
    clock();
  }

  // One question after the other, and none while nobody looks.
  async function follow() {
    if (!document.hidden) await ask();
    setTimeout(follow, every);
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  setInterval(clock, 1000);
  headings();
  follow();
})();
