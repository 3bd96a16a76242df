// Draws charts from their JSON (flsim/charts/chart.py) with Chart.js: flsimCharts.show(list), again with newer numbers.
"use strict";
var flsimCharts = (function () {
  const drawn = new Map(); // name of a chart -> what Chart.js made of it
  const INK = "#333333", QUIET = "#767676", GRID = "#e8e8e8";
  Chart.defaults.font.family = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
  Chart.defaults.color = "#555555";
  Chart.defaults.animation = false;

  function shown(value, digits) {
    return value.toLocaleString("en-US", { maximumFractionDigits: digits, minimumFractionDigits: digits });
  }

  // A number as people read it: shares in percent, others with three digits and their unit.
  function written(value, chart, digits) {
    if (value === null || value === undefined) return "-";
    if (chart.percent) return shown(100 * value, digits) + " %";
    const size = Math.abs(value);
    const text = size >= 100 || value === Math.round(value) ? shown(value, 0) : String(Number(value.toPrecision(3)));
    return chart.unit ? text + " " + chart.unit : text;
  }

  function tick(share) {
    return function (value) { return share ? String(Number((100 * value).toFixed(2))) + " %" : this.getLabelForValue(value); };
  }

  function see(colour, share) {
    return colour + Math.round(255 * share).toString(16).padStart(2, "0");
  }

  // A line is one data set; its band is two more, which have no name in the key and no point to hover.
  function sets(chart) {
    const all = [];
    chart.lines.forEach(function (line, number) {
      const along = function (values) { // of a chart with categories the values in their order, which Chart.js knows
        if (!chart.categories.length) return values.map((value, at) => ({ x: line.x[at], y: value }));
        const placed = chart.categories.map(() => null);
        line.x.forEach((place, at) => { placed[place] = values[at]; });
        return placed;
      };
      const common = { line: number, borderColor: line.colour, order: line.dashed ? 2 : 1 };
      if (chart.bars) {
        all.push({ ...common, label: line.name, data: along(line.y), backgroundColor: line.colour, borderWidth: 0, maxBarThickness: 34 });
        return;
      }
      const many = line.x.length > 60;
      const sizes = line.sizes.map((share) => Math.max(3, 15 * Math.sqrt(share)));
      all.push({
        ...common, label: line.name, data: along(line.y), backgroundColor: line.colour,
        borderWidth: line.dashed ? 1.5 : 2.2, borderDash: line.dashed ? [6, 4] : [],
        pointRadius: sizes.length ? sizes : line.dashed || many ? 0 : 2.5, pointHoverRadius: line.dashed ? 0 : 5,
        pointHitRadius: 6, stepped: line.steps ? "middle" : false, spanGaps: false,
      });
      const edge = { ...common, band: true, borderWidth: 0, pointRadius: 0, pointHoverRadius: 0, order: 3 };
      if (line.high.length) {
        all.push({ ...edge, label: line.name, data: along(line.high), fill: "+1", backgroundColor: see(line.colour, 0.16) });
        all.push({ ...edge, label: line.name, data: along(line.low), fill: false });
      }
    });
    return all;
  }

  // Of every line the point that is nearest to where one points, across; on a chart of users the nearest user.
  Chart.Interaction.modes.flsim = function (plot, event, options, useFinal) {
    const place = Chart.helpers.getRelativePosition(event, plot);
    const area = plot.chartArea;
    if (place.x < area.left - 8 || place.x > area.right + 8 || place.y < area.top || place.y > area.bottom) return [];
    const users = plot.flsim.lines.some((line) => line.users.length), found = [];
    for (const meta of plot.getSortedVisibleDatasetMetas()) {
      const set = plot.data.datasets[meta.index];
      if (set.band) continue;
      let best = null;
      meta.data.forEach(function (element, index) {
        if (element.skip) return;
        const at = element.getProps(["x", "y"], useFinal);
        const across = Math.abs(at.x - place.x);
        const away = users ? Math.hypot(across, at.y - place.y) : across;
        if (!best || away < best.away) best = { element, index, datasetIndex: meta.index, away, x: at.x };
      });
      if (best) found.push(best);
    }
    const least = Math.min(...found.map((one) => one.away));
    return found.filter((one) => one.away <= least + (users ? 0 : 1.5)).slice(0, users ? 1 : undefined);
  };

  function heading(items) {
    if (!items.length) return "";
    const chart = items[0].chart.flsim, item = items[0];
    const line = chart.lines[item.dataset.line];
    if (chart.categories.length) return chart.categories[item.dataIndex];
    if (line.users.length) return line.users[item.dataIndex];
    const x = line.x[item.dataIndex];
    if (chart.percent_x) return chart.x_title + ": " + shown(100 * x, 1) + " %";
    return chart.x_title + " " + shown(x, Number.isInteger(x) ? 0 : 2);
  }

  function told(item) {
    const chart = item.chart.flsim, line = chart.lines[item.dataset.line];
    const at = chart.categories.length ? line.x.indexOf(item.dataIndex) : item.dataIndex;
    if (at < 0 || line.y[at] === null || (chart.stacked && !line.y[at])) return null;
    if (line.users.length && !chart.bars) return ofUser(chart, line.users[at]);
    let text = line.name + ": " + written(line.y[at], chart, 1);
    if (line.low.length) text += " (users " + written(line.low[at], chart, 1) + " to " + written(line.high[at], chart, 1) + ")";
    if (line.sizes.length) text += ", " + shown(100 * line.sizes[at], 1) + " % of all";
    return text;
  }

  // What a user has of every line of the chart.
  function ofUser(chart, user) {
    return chart.lines.filter((line) => line.users.includes(user))
      .map((line) => line.name + ": " + written(line.y[line.users.indexOf(user)], chart, 1));
  }

  // Phases: every second one is shaded, a dashed line is a switch, and names stand above where there is room.
  const phases = {
    id: "flsimPhases",
    beforeDatasetsDraw: function (plot) {
      const marks = plot.flsim ? plot.flsim.marks : [], area = plot.chartArea, pen = plot.ctx, scale = plot.scales.x;
      pen.save();
      pen.font = "11px " + Chart.defaults.font.family;
      pen.textAlign = "center";
      const spans = marks.map((mark) => [
        Math.max(area.left, scale.getPixelForValue(mark.begins)), Math.min(area.right, scale.getPixelForValue(mark.ends))]);
      const long = marks.map((mark) => mark.name + (mark.tasks.length ? ": " + mark.tasks.join(", ") : ""));
      const fits = (texts) => texts.every((text, at) => pen.measureText(text).width + 6 < spans[at][1] - spans[at][0]);
      const texts = fits(long) ? long : marks.map((mark) => mark.name);
      const said = fits(texts);
      spans.forEach(function ([left, right], at) {
        pen.fillStyle = "rgba(0,0,0,0.035)";
        if (at % 2) pen.fillRect(left, area.top, right - left, area.bottom - area.top);
        pen.strokeStyle = "#999999";
        pen.setLineDash([2, 2]);
        pen.beginPath();
        if (at) { pen.moveTo(left, area.top); pen.lineTo(left, area.bottom); }
        pen.stroke();
        pen.fillStyle = QUIET;
        if (said) pen.fillText(texts[at], (left + right) / 2, area.top - 5);
      });
      pen.restore();
    },
  };

  function key(plot) {
    const labels = Chart.defaults.plugins.legend.labels.generateLabels(plot);
    return labels.filter((label) => !plot.data.datasets[label.datasetIndex].band).map(function (label) {
      const line = plot.flsim.lines[plot.data.datasets[label.datasetIndex].line];
      const look = plot.flsim.bars ? { pointStyle: "rect", lineWidth: 0 } : { pointStyle: "line", lineWidth: 2.5, lineDash: line.dashed ? [5, 3] : [] };
      return { ...label, text: line.label || line.name, fillStyle: line.colour, strokeStyle: line.colour, ...look };
    });
  }

  // A click on a line's name hides it with its band, or shows it again.
  function toggle(event, item, legend) {
    const plot = legend.chart, line = plot.data.datasets[item.datasetIndex].line;
    const see = !plot.isDatasetVisible(item.datasetIndex);
    plot.data.datasets.forEach((set, at) => { if (set.line === line) plot.setDatasetVisibility(at, see); });
    plot.update("none");
  }

  function axis(chart, title, share, more) {
    return {
      title: { display: Boolean(title), text: title, color: INK }, grid: { color: GRID }, border: { color: "#999999" },
      ticks: { callback: tick(share), maxRotation: 40, ...more.ticks }, stacked: chart.stacked, ...more.scale,
    };
  }

  function scales(chart) {
    const value = axis(chart, chart.y_title, chart.percent, {
      ticks: { maxTicksLimit: 7 },
      scale: { beginAtZero: chart.from_zero || chart.bars, max: chart.top === null ? undefined : chart.top },
    });
    const xs = chart.lines.flatMap((line) => line.x), whole = xs.every(Number.isInteger);
    const kind = chart.categories.length
      ? { scale: { type: "category", labels: chart.categories, grid: { display: false }, offset: true },
          ticks: { callback: undefined, maxRotation: chart.categories.every((name) => name.length < 6) ? 0 : 40 } }
      : { scale: { type: "linear", min: chart.percent_x ? 0 : Math.min(...xs) - (chart.marks.length ? 0.5 : 0),
            max: chart.percent_x ? 1 : Math.max(...xs) + (chart.marks.length ? 0.5 : 0), grid: { display: chart.percent_x, color: GRID } },
          ticks: { precision: whole ? 0 : undefined, includeBounds: !chart.marks.length, maxTicksLimit: 9 } };
    const along = axis(chart, chart.x_title, chart.percent_x, kind);
    if (!along.ticks.callback) delete along.ticks.callback;
    return chart.sideways ? { x: value, y: along } : { x: along, y: value };
  }

  function options(chart) {
    const users = chart.lines.some((line) => line.users.length);
    return {
      responsive: true, maintainAspectRatio: false, devicePixelRatio: Math.max(2, window.devicePixelRatio || 1),
      indexAxis: chart.sideways ? "y" : "x", scales: scales(chart),
      layout: { padding: { top: chart.marks.length ? 16 : 6, right: 8 } },
      interaction: chart.bars ? { mode: "index", intersect: false, axis: chart.sideways ? "y" : "x" } : { mode: "flsim", intersect: false },
      plugins: {
        legend: { position: "bottom", align: "start", onClick: toggle,
          display: chart.lines.length > 1 || Boolean(chart.lines.length && chart.lines[0].label),
          labels: { generateLabels: key, usePointStyle: true, pointStyleWidth: chart.bars ? 10 : 22, boxHeight: 8, padding: 10, color: INK } },
        tooltip: { callbacks: { title: heading, label: told }, displayColors: !users, boxWidth: 10, boxHeight: 10,
          filter: (item) => told(item) !== null },
      },
    };
  }

  function draw(chart, canvas) {
    const plot = drawn.get(chart.name);
    const hidden = plot ? plot.flsim.lines.filter((line, at) => !plot.isDatasetVisible(
      plot.data.datasets.findIndex((set) => set.line === at))).map((line) => line.name) : [];
    const made = plot || new Chart(canvas, { type: chart.bars ? "bar" : "line", data: { datasets: [] }, plugins: [phases],
      options: { animation: false, scales: { x: { display: false }, y: { display: false } }, responsive: false } });
    made.flsim = chart;
    made.data.labels = chart.categories.length ? chart.categories : undefined;
    made.data.datasets = sets(chart).map((set) => ({ ...set, hidden: hidden.includes(chart.lines[set.line].name) }));
    made.options = options(chart);
    made.update("none");
    if (!plot) made.resize();
    drawn.set(chart.name, made);
  }

  function say(place, where, text) {
    const found = place.querySelector(where);
    if (found && found.textContent !== text) found.textContent = text;
  }

  // Draws every chart that has a place, [data-chart=NAME]; a place without a chart is hidden.
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

  // On paper charts are as wide as it is; the page takes its width for a moment, so that they are measured there.
  window.addEventListener("beforeprint", function () {
    document.body.classList.add("printing");
    for (const plot of drawn.values()) { plot.options.devicePixelRatio = 3; plot.resize(); }
  });
  window.addEventListener("afterprint", function () {
    document.body.classList.remove("printing");
    for (const plot of drawn.values()) { plot.options.devicePixelRatio = Math.max(2, window.devicePixelRatio || 1); plot.resize(); }
  });

  function begin() {
    for (const hint of document.querySelectorAll("[data-chart-hint]")) hint.hidden = false;
    for (const held of document.querySelectorAll("script[data-flsim-charts]")) show(JSON.parse(held.textContent));
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin); else begin();

  return { show, drawn };
})();
