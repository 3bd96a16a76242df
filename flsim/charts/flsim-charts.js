// Draws charts from their JSON (flsim/charts/chart.py) with Chart.js: flsimCharts.show(list), again with newer ones.
"use strict";
var flsimCharts = (function () {
  const INK = "#333333", QUIET = "#767676", GRID = "#e8e8e8", AXIS = "#999999";
  const MANY = 60; // points of a line, from which on they have no dots
  const PAPER = 3; // dots of a canvas for each of a page on paper
  const drawn = new Map(); // by name of a chart, what Chart.js made of it; its `flsim` is the chart itself
  Chart.defaults.font.family = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
  Chart.defaults.color = "#555555";
  Chart.defaults.animation = false;

  // Numbers as people read them.

  function fixed(value, digits) {
    return value.toLocaleString("en-US", { maximumFractionDigits: digits, minimumFractionDigits: digits });
  }

  function percent(share) {
    return fixed(100 * share, 1) + " %";
  }

  // A value of the chart: a share in percent, another with three digits and its unit.
  function written(value, chart) {
    if (value === null || value === undefined) return "-";
    if (chart.percent) return percent(value);
    const whole = Math.abs(value) >= 100 || value === Math.round(value);
    const text = whole ? fixed(value, 0) : String(Number(value.toPrecision(3)));
    return chart.unit ? text + " " + chart.unit : text;
  }

  function ofUsers(chart) {
    return chart.lines.some((line) => line.users.length > 0);
  }

  // What Chart.js draws: a data set for every line, and two for a band, which have no name in the key and no dots.

  function setsOf(chart) {
    return chart.lines.flatMap((line, number) => {
      const common = { line: number, label: line.name, borderColor: line.colour };
      if (chart.bars) return [barsOf(chart, line, common)];
      return [lineOf(chart, line, common), ...bandOf(chart, line, common)];
    });
  }

  function barsOf(chart, line, common) {
    const data = along(chart, line, line.y);
    return { ...common, data, backgroundColor: line.colour, borderWidth: 0, maxBarThickness: 34 };
  }

  function lineOf(chart, line, common) {
    const dots = line.sizes.length
      ? line.sizes.map((share) => Math.max(3, 15 * Math.sqrt(share)))
      : line.dashed || line.x.length > MANY ? 0 : 2.5;
    return {
      ...common, data: along(chart, line, line.y), backgroundColor: line.colour, order: line.dashed ? 2 : 1,
      borderWidth: line.dashed ? 1.5 : 2.2, borderDash: line.dashed ? [6, 4] : [], clip: 8,
      stepped: line.steps ? "middle" : false,
      pointRadius: dots, pointHoverRadius: line.dashed ? 0 : line.sizes.length ? dots : 5,
    };
  }

  function bandOf(chart, line, common) {
    if (!line.high.length) return [];
    const edge = { ...common, band: true, borderWidth: 0, pointRadius: 0, pointHoverRadius: 0, order: 3 };
    const pale = line.colour + "29"; // a sixth of it
    return [
      { ...edge, data: along(chart, line, line.high), fill: "+1", backgroundColor: pale },
      { ...edge, data: along(chart, line, line.low), fill: false },
    ];
  }

  // Values with their places; of a chart with categories a value for each, null where the line has none.
  function along(chart, line, values) {
    if (!chart.categories.length) return values.map((value, at) => ({ x: line.x[at], y: value }));
    const placed = chart.categories.map(() => null);
    line.x.forEach((place, at) => { placed[place] = values[at]; });
    return placed;
  }

  // What one points at: of every line its nearest point across; on a chart of users the one that is nearest of all.

  Chart.Interaction.modes.flsim = function (plot, event, options, useFinal) {
    const place = Chart.helpers.getRelativePosition(event, plot), area = plot.chartArea;
    if (place.x < area.left - 8 || place.x > area.right + 8 || place.y < area.top || place.y > area.bottom) return [];
    const users = ofUsers(plot.flsim);
    const found = plot.getSortedVisibleDatasetMetas().filter((meta) => !plot.data.datasets[meta.index].band)
      .map((meta) => nearest(meta, place, users, useFinal)).filter(Boolean);
    const least = Math.min(...found.map((one) => one.away));
    if (users) return found.filter((one) => one.away === least).slice(0, 1);
    return found.filter((one) => one.away <= least + 1.5);
  };

  function nearest(meta, place, users, useFinal) {
    let best = null;
    meta.data.forEach((element, index) => {
      const { x, y } = element.getProps(["x", "y"], useFinal);
      const away = users ? Math.hypot(x - place.x, y - place.y) : Math.abs(x - place.x);
      if (!element.skip && (!best || away < best.away)) best = { element, index, datasetIndex: meta.index, away };
    });
    return best;
  }

  // What is told of it.

  function heading(items) {
    if (!items.length) return "";
    const chart = items[0].chart.flsim, line = chart.lines[items[0].dataset.line], at = items[0].dataIndex;
    if (chart.categories.length) return chart.categories[at];
    if (line.users.length) return line.users[at];
    if (chart.percent_x) return chart.x_title + ": " + percent(line.x[at]);
    return chart.x_title + " " + fixed(line.x[at], Number.isInteger(line.x[at]) ? 0 : 2);
  }

  function told(item) {
    const chart = item.chart.flsim, line = chart.lines[item.dataset.line];
    const at = chart.categories.length ? line.x.indexOf(item.dataIndex) : item.dataIndex;
    if (at < 0 || line.y[at] === null || (chart.stacked && !line.y[at])) return null;
    if (line.users.length && !chart.bars) return ofUser(chart, line.users[at]);
    const value = line.name + ": " + written(line.y[at], chart);
    if (line.sizes.length > 1) return value + ", " + percent(line.sizes[at]) + " of all";
    if (!line.low.length) return value;
    return value + " (users " + written(line.low[at], chart) + " to " + written(line.high[at], chart) + ")";
  }

  // What a user has of every line.
  function ofUser(chart, user) {
    return chart.lines.filter((line) => line.users.includes(user))
      .map((line) => line.name + ": " + written(line.y[line.users.indexOf(user)], chart));
  }

  // Phases: every second one is shaded, a dotted line is a switch, names stand above where there is room for all.

  const phases = {
    id: "flsimPhases",
    beforeDatasetsDraw(plot) {
      const marks = plot.flsim ? plot.flsim.marks : [], area = plot.chartArea, pen = plot.ctx, across = plot.scales.x;
      const within = (place) => Math.min(area.right, Math.max(area.left, across.getPixelForValue(place)));
      const spans = marks.map((mark) => [within(mark.begins), within(mark.ends)]);
      pen.save();
      pen.font = "11px " + Chart.defaults.font.family;
      pen.textAlign = "center";
      pen.setLineDash([2, 2]);
      const texts = names(pen, marks, spans);
      spans.forEach(([left, right], at) => {
        pen.fillStyle = "rgba(0, 0, 0, 0.035)";
        pen.strokeStyle = AXIS;
        if (at % 2) pen.fillRect(left, area.top, right - left, area.bottom - area.top);
        if (at) pen.stroke(new Path2D("M" + left + " " + area.top + "V" + area.bottom));
        pen.fillStyle = QUIET;
        pen.fillText(texts[at], (left + right) / 2, area.top - 5);
      });
      pen.restore();
    },
  };

  // With their tasks, without, or none.
  function names(pen, marks, spans) {
    const long = marks.map((mark) => (mark.tasks.length ? mark.name + ": " + mark.tasks.join(", ") : mark.name));
    const fit = (texts) => texts.every((text, at) => pen.measureText(text).width + 6 < spans[at][1] - spans[at][0]);
    return [long, marks.map((mark) => mark.name)].find(fit) || marks.map(() => "");
  }

  // The key: a name with the number to read off; a click hides the line with its band, or shows it again.

  function key(plot) {
    const entries = Chart.defaults.plugins.legend.labels.generateLabels(plot);
    return entries.filter((entry) => !plot.data.datasets[entry.datasetIndex].band).map((entry) => {
      const line = plot.flsim.lines[plot.data.datasets[entry.datasetIndex].line];
      const thick = line.sizes.length === 1 ? 6 : 2.5, lineDash = line.dashed ? [5, 3] : [];
      const look = plot.flsim.bars
        ? { pointStyle: "rect", lineWidth: 0 }
        : { pointStyle: "line", lineWidth: thick, lineDash };
      return { ...entry, text: line.label || line.name, fillStyle: line.colour, strokeStyle: line.colour, ...look };
    });
  }

  function toggle(event, entry, legend) {
    const plot = legend.chart, line = plot.data.datasets[entry.datasetIndex].line;
    const visible = !plot.isDatasetVisible(entry.datasetIndex);
    plot.data.datasets.forEach((set, at) => { if (set.line === line) plot.setDatasetVisibility(at, visible); });
    plot.update("none");
  }

  function hiddenNames(plot) {
    const sets = plot ? plot.data.datasets : [];
    return sets.filter((set, at) => !plot.isDatasetVisible(at)).map((set) => set.label);
  }

  // Axes: `value` is of y, `place` of x, wherever they lie.

  function axis(title, share, ticks) {
    const callback = (value) => Number((100 * value).toFixed(2)) + " %";
    return {
      title: { display: title !== "", text: title, color: INK }, grid: { color: GRID }, border: { color: AXIS },
      ticks: { maxRotation: 40, ...(share ? { callback } : {}), ...ticks },
    };
  }

  function valueAxis(chart) {
    const top = chart.top === null ? {} : { max: chart.top };
    const base = axis(chart.y_title, chart.percent, { maxTicksLimit: 7 });
    return { ...base, beginAtZero: chart.from_zero || chart.bars, stacked: chart.stacked, ...top };
  }

  function placeAxis(chart) {
    if (chart.categories.length) {
      const short = chart.categories.every((name) => name.length < 6);
      const base = axis(chart.x_title, false, { maxRotation: short ? 0 : 40 });
      return { ...base, type: "category", offset: true, stacked: chart.stacked, grid: { display: false } };
    }
    const [first, last] = ends(chart), xs = chart.lines.flatMap((line) => line.x);
    const whole = xs.every(Number.isInteger) ? { precision: 0 } : {};
    const base = axis(chart.x_title, chart.percent_x, { maxTicksLimit: 9, includeBounds: chart.percent_x, ...whole });
    return { ...base, type: "linear", min: first, max: last, grid: { display: chart.percent_x, color: GRID } };
  }

  // Where the x axis begins and ends: half a round beyond the rounds, or at whole numbers.
  function ends(chart) {
    if (chart.percent_x) return [0, 1];
    const xs = chart.lines.flatMap((line) => line.x), first = Math.min(...xs), last = Math.max(...xs);
    return chart.marks.length ? [first - 0.5, last + 0.5] : [Math.floor(first), Math.ceil(last)];
  }

  function dotsOfScreen() {
    return Math.max(2, window.devicePixelRatio || 1);
  }

  function optionsOf(chart) {
    const place = placeAxis(chart), value = valueAxis(chart), named = chart.lines.some((line) => line.label);
    const look = { pointStyleWidth: chart.bars ? 10 : 22 };
    return {
      responsive: true, maintainAspectRatio: false, devicePixelRatio: dotsOfScreen(),
      indexAxis: chart.sideways ? "y" : "x", scales: chart.sideways ? { x: value, y: place } : { x: place, y: value },
      layout: { padding: { top: chart.marks.length ? 16 : 8, right: 8 } },
      interaction: { mode: chart.bars ? "index" : "flsim", intersect: false, axis: chart.sideways ? "y" : "x" },
      plugins: {
        legend: {
          position: "bottom", align: "start", onClick: toggle, display: chart.lines.length > 1 || named,
          labels: { ...look, generateLabels: key, usePointStyle: true, boxHeight: 8, color: INK },
        },
        tooltip: {
          callbacks: { title: heading, label: told }, filter: (item) => told(item) !== null,
          displayColors: chart.bars || !ofUsers(chart), boxWidth: 10, boxHeight: 10,
        },
      },
    };
  }

  // Drawing, once and again.

  function draw(chart, canvas) {
    const hidden = hiddenNames(drawn.get(chart.name));
    const datasets = setsOf(chart).map((set) => ({ ...set, hidden: hidden.includes(set.label) }));
    const data = { labels: chart.categories, datasets };
    let plot = drawn.get(chart.name);
    if (plot && plot.canvas !== canvas) plot.destroy(); // a page may have made its places anew
    else if (plot) {
      plot.flsim = chart;
      Object.assign(plot, { data, options: optionsOf(chart) });
      plot.update("none");
      return;
    }
    const remember = { id: "flsimChart", beforeInit(made) { made.flsim = chart; } };
    const type = chart.bars ? "bar" : "line";
    plot = new Chart(canvas, { type, data, options: optionsOf(chart), plugins: [remember, phases] });
    drawn.set(chart.name, plot);
  }

  function say(place, where, text) {
    const found = place.querySelector(where);
    if (found && found.textContent !== text) found.textContent = text;
  }

  // Draws every chart that has a place, [data-chart=NAME], under its title; a place without a chart is hidden.
  function show(list) {
    const given = new Map(list.map((chart) => [chart.name, chart]));
    for (const place of document.querySelectorAll("[data-chart]")) {
      const chart = given.get(place.dataset.chart);
      place.hidden = !chart;
      if (!chart) continue;
      say(place, "h3", chart.title);
      say(place, ".note", chart.note);
      draw(chart, place.querySelector("canvas"));
    }
  }

  // On paper charts are as wide as it is: the page takes its width for a moment, so that they are measured there.
  function measure(printing) {
    document.body.classList.toggle("printing", printing);
    for (const plot of drawn.values()) {
      plot.options.devicePixelRatio = printing ? PAPER : dotsOfScreen();
      plot.resize();
    }
  }

  function begin() {
    for (const hint of document.querySelectorAll("[data-chart-hint]")) hint.hidden = false;
    for (const held of document.querySelectorAll("script[data-flsim-charts]")) show(JSON.parse(held.textContent));
  }

  window.addEventListener("beforeprint", () => measure(true));
  window.addEventListener("afterprint", () => measure(false));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
  return { show, drawn };
})();
