
// Asks for the figures every two seconds and shows what happened between two answers.
// The server keeps no history: it is here, for as long as the page is open.
"use strict";
(() => {
  const POLL_MS = 2000;
  const ANSWER_MS = 5000; // timeout of one request
  const KEPT_S = 300; // of history
  const SHOWN_S = 60; // the span of the figures in the tiles
  const [WIDTH, HEIGHT] = [300, 72]; // of a chart, in its own units

  const of = (id) => document.getElementById(id);
  const [link, pause, silence] = [of("link"), of("pause"), of("silence")];
  const history = new Map(); // by model: its figures in order
  let paused = false;
  let timer = null;
  let turn = 0; // an answer to a request of an earlier turn is ignored
  let answeredMs = 0;

  // Text.
  const digits = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));
  const duration = (us) =>
    us === null ? "–" : us < 1e3 ? `${digits(us)} µs` : us < 1e6 ? `${digits(us / 1e3)} ms` : `${digits(us / 1e6)} s`;
  const size = (bytes) => `${(bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 1 : 0)} MiB`;
  const share = (value) => (value === null ? "–" : `${(100 * value).toFixed(value > 0 && value < 0.1 ? 2 : 1)} %`);
  const whole = (value) => value.toLocaleString("en");
  const rate = (value) => (value === null ? "–" : value === 0 ? "0 /s" : `${digits(value)} /s`);
  const score = (value) => (value === null ? "–" : value.toFixed(3));

  // Differences of two figures of one release, the later first.
  const total = (counts) => Object.values(counts).reduce((sum, one) => sum + one, 0);
  const before = (newer, older) => (older && older.release === newer.release && older.requests <= newer.requests ? older : null);
  const between = (newer, older) => {
    const seconds = newer.at - older.at;
    const answered = new Map(newer.latency_us);
    for (const [edge, count] of older.latency_us) answered.set(edge, (answered.get(edge) ?? 0) - count);
    const requests = newer.requests - older.requests;
    const refused = total(newer.refused) - total(older.refused);
    const scored = newer.confidence_count - older.confidence_count;
    return {
      rate: seconds > 0 ? (requests + refused) / seconds : null,
      items: seconds > 0 ? (newer.items - older.items) / seconds : null,
      errors: requests ? (newer.errors - older.errors) / requests : null,
      refused: requests + refused ? refused / (requests + refused) : null,
      confidence: scored ? (newer.confidence_sum - older.confidence_sum) / scored : null,
      cpu: requests ? (1e6 * (newer.cpu_s - older.cpu_s)) / requests : null,
      classes: newer.classes.map(([name, count], place) => [name, count - (older.classes[place]?.[1] ?? 0)]),
      latency: (part) => quantile(answered, part),
    };
  };
  // The upper edge of the bucket with the quantile, as in the metrics: at most an eighth too large.
  const quantile = (counts, part) => {
    const found = [...counts].filter(([, count]) => count > 0).sort(([a], [b]) => a - b);
    const wanted = part * found.reduce((sum, [, count]) => sum + count, 0);
    let counted = 0;
    for (const [edge, count] of found) if ((counted += count) >= wanted) return edge;
    return null;
  };
  const NOTHING = { release: null, requests: 0, items: 0, errors: 0, refused: {}, latency_us: [], confidence_sum: 0, confidence_count: 0, cpu_s: 0, classes: [] };

  // The last minute in which requests came; since the load if none came while the page is open.
  const recent = (points) => {
    const last = points.at(-1);
    const came = (one, place) => place > 0 && before(one, points[place - 1]) && one.requests + total(one.refused) > points[place - 1].requests + total(points[place - 1].refused);
    const place = points.findLastIndex(came);
    if (place < 1) return { span: "since it was loaded", of: between(last, { ...NOTHING, at: last.at }), rate: points.length > 1 ? 0 : null };
    const busy = points[place];
    const within = (end) => points.find((one) => one.at >= end.at - SHOWN_S - 0.5 && before(end, one));
    const first = within(busy) === busy ? points[place - 1] : within(busy); // a hidden page asks nothing
    const now = within(last);
    return { span: `in ${Math.max(1, Math.round(busy.at - first.at))} s`, of: between(busy, first), rate: last.at > now.at ? between(last, now).rate : null };
  };

  // The most frequent class, and the next two.
  const classes = (counts, span) => {
    const sum = counts.reduce((all, [, count]) => all + count, 0);
    const found = counts.filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a).slice(0, 3);
    const [first, ...next] = found.map(([name, count]) => `${name} ${share(count / sum)}`);
    return ["Most frequent class", first ?? "–", [...next, span].join(", ")];
  };

  // Elements. They are kept and changed in place, so focus and selection stay.
  const put = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };
  const make = (tag, text = "", css = "") => {
    const node = document.createElement(tag);
    node.textContent = text;
    if (css) node.className = css;
    return node;
  };
  const rows = (list, values) => {
    const known = new Map([...list.children].map((row) => [row.firstChild.textContent, row]));
    for (const [name, text, note = "", bad = false] of values) {
      let row = known.get(name);
      if (!row) {
        row = document.createElement("div");
        row.append(make("dt", name), make("dd"));
        row.lastChild.append(make("span"), make("small"));
        list.append(row);
      }
      known.delete(name);
      const [value, small] = row.lastChild.children;
      put(value, text);
      put(small, note ? ` ${note}` : "");
      value.className = bad ? "bad" : "";
    }
    for (const row of known.values()) row.remove();
  };

  const path = (points, value, top, start, spanS) => {
    let text = "";
    let down = false;
    for (const one of points) {
      const at = value(one);
      if (at === null) down = false;
      else {
        const x = (((one.at - start) / spanS) * WIDTH).toFixed(1);
        const y = (HEIGHT - 2 - (at / top) * (HEIGHT - 6)).toFixed(1);
        text += down ? `L${x} ${y}` : `M${x} ${y}h.1`;
        down = true;
      }
    }
    return text;
  };
  const SVG = "http://www.w3.org/2000/svg";
  const draw = (svg, label, points, lines, least, switches) => {
    const spanS = points.length ? Math.max(SHOWN_S, points.at(-1).at - points[0].at) : SHOWN_S;
    const start = points.length ? points.at(-1).at - spanS : 0;
    const values = points.flatMap((one) => lines.map(([, value]) => value(one))).filter((one) => one !== null);
    const top = Math.max(least, ...values);
    const marks = switches.map((at) => `M${(((at - start) / spanS) * WIDTH).toFixed(1)} 0V${HEIGHT}`).join("");
    const wanted = [...lines.map(([css, value]) => [css, path(points, value, top, start, spanS)]), ["switch", marks]];
    wanted.forEach(([css, text], place) => {
      const line = svg.children[place] ?? svg.appendChild(document.createElementNS(SVG, "path"));
      line.setAttribute("class", css);
      line.setAttribute("d", text);
    });
    svg.setAttribute("aria-label", label);
  };

  const card = (name) => {
    const found = [...of("models").children].find((one) => one.dataset.model === name);
    if (found) return found;
    const made = make("section", "", "card");
    made.dataset.model = name;
    made.setAttribute("aria-label", `Model ${name}`);
    const head = make("h2", `${name} `);
    head.append(make("span", "", "release"), " ", make("span", "in trial", "pill"));
    const charts = make("div", "", "charts");
    for (const [key, title] of [["rate", "Requests a second"], ["latency", "Latency"], ["confidence", "Confidence"]]) {
      const box = make("div");
      const head3 = make("h3", title);
      if (key === "latency") head3.append(", ", make("b", "p50", "p50"), " and ", make("b", "p95", "p95"));
      head3.append(make("span", "", "top"));
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("role", "img");
      svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
      svg.setAttribute("preserveAspectRatio", "none");
      svg.dataset.chart = key;
      box.append(head3, svg);
      charts.append(box);
    }
    made.append(head, make("dl", "", "facts"), make("dl", "", "tiles"), charts);
    of("models").append(made);
    return made;
  };

  const showModel = (one) => {
    const points = history.get(one.model);
    const node = card(one.model);
    put(node.querySelector(".release"), `release ${one.release}`);
    node.querySelector(".pill").hidden = !one.on_trial;
    const isolated = one.worker === null ? "shared" : `its own, ${one.worker}`;
    rows(node.querySelector(".facts"), [
      ["Runtime", one.runtime], ["Precision", one.precision], ["Profile", one.profile], ["Process", isolated],
      ["Memory", size(one.memory_bytes)],
      ["Last answer", one.last_answer_s === null ? "none yet" : `${one.last_answer_s.toFixed(0)} s ago`],
      ...(one.labelled ? [["Accuracy", share(one.correct / one.labelled), `of ${whole(one.labelled)} answers with a label`]] : []),
    ]);
    const { span, of: now, rate: current } = recent(points);
    rows(node.querySelector(".tiles"), [
      ["Latency p50", duration(now.latency(0.5)), span],
      ["Latency p95", duration(now.latency(0.95)), span],
      ["Latency p99", duration(now.latency(0.99)), span],
      ["Throughput", rate(current), `${whole(one.requests)} since it was loaded`],
      ["Errors", share(now.errors), `${whole(one.errors)} since it was loaded`, now.errors > 0],
      ["Refused", share(now.refused), `${whole(total(one.refused))} since it was loaded`, now.refused > 0],
      ["Confidence", score(now.confidence), one.confidence_count ? span : "no class scores"],
      ...(one.classes.length ? [classes(now.classes, span)] : []),
      ["In flight", whole(one.in_flight), one.in_flight ? `the oldest for ${one.oldest_in_flight_s.toFixed(1)} s` : ""],
      ["CPU a request", duration(now.cpu), span],
    ]);
    const steps = points.slice(1).map((newer, place) => {
      const older = before(newer, points[place]);
      const step = older ? between(newer, older) : null;
      return { at: newer.at, rate: step?.rate ?? null, confidence: step?.confidence ?? null, p50: step?.latency(0.5) ?? null, p95: step?.latency(0.95) ?? null };
    });
    const switches = points.slice(1).filter((newer, place) => newer.release !== points[place].release).map((newer) => newer.at);
    const charts = [
      ["rate", [["one", (step) => step.rate]], 0.001, rate],
      ["latency", [["p50", (step) => step.p50], ["p95", (step) => step.p95]], 1, duration],
      ["confidence", [["one", (step) => step.confidence]], 1, score],
    ];
    for (const [key, lines, least, text] of charts) {
      const svg = node.querySelector(`[data-chart=${key}]`);
      const values = steps.flatMap((step) => lines.map(([, value]) => value(step))).filter((value) => value !== null);
      const most = values.length ? Math.max(...values) : null;
      const ends = values.length ? `from ${text(Math.min(...values))} to ${text(most)}` : "no request yet";
      put(svg.parentNode.querySelector(".top"), ` · ${ends}`);
      draw(svg, `${svg.parentNode.querySelector("h3").textContent}, since the page was opened, at most five minutes`, steps, lines, least, switches);
    }
  };

  const show = (news) => {
    for (const one of news.models) {
      const points = history.get(one.model) ?? [];
      points.push({ ...one, at: news.at });
      while (points[0].at < news.at - KEPT_S) points.shift();
      // A process that starts again begins its clock and its counters again.
      if (points.length > 1 && points.at(-2).at >= news.at) points.splice(0, points.length - 1);
      history.set(one.model, points);
      showModel(one);
    }
    const named = new Set(news.models.map((one) => one.model));
    for (const node of [...of("models").children])
      if (!named.has(node.dataset.model)) {
        history.delete(node.dataset.model);
        node.remove();
      }
    of("none").hidden = named.size > 0 || news.unserved.length > 0;
    const memory = news.memory;
    const used = memory ? memory.used_bytes / memory.limit_bytes : 0;
    rows(of("device"), [
      ["Models", whole(named.size)],
      ...(news.unserved.length ? [["Not served", news.unserved.join(", "), "its release has ended; see the agent's log", true]] : []),
      ["Serving uses", size(news.process_bytes)],
      ...(memory ? [[`Memory of the ${memory.place}`, `${size(memory.used_bytes)} of ${size(memory.limit_bytes)}`, share(used), used > 0.8]] : []),
      ["Set of models", whole(news.generation)],
      ["edgefleet", news.version],
    ]);
    document.title = `${location.host} · edgefleet`;
  };

  const showLink = (state, text) => {
    link.dataset.state = state;
    put(link, text);
  };
  const stop = () => {
    turn += 1;
    clearTimeout(timer);
  };
  const poll = async () => {
    stop();
    const mine = turn;
    try {
      const answer = await fetch("ui/figures", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
      if (!answer.ok) throw new Error(String(answer.status));
      const news = await answer.json();
      if (turn !== mine) return;
      answeredMs = Date.now();
      silence.hidden = true;
      show(news);
      showLink("live", "live");
    } catch {
      if (turn !== mine) return;
      showLink("lost", "not live");
      put(silence, `The device does not answer${answeredMs ? ` since ${new Date(answeredMs).toLocaleTimeString()}. The page shows its last answer.` : "."}`);
      silence.hidden = false;
    }
    if (turn === mine) timer = setTimeout(poll, POLL_MS);
  };
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    if (!paused) return void poll();
    stop();
    silence.hidden = true;
    showLink("static", "paused");
  });
  document.addEventListener("visibilitychange", () => {
    if (paused) return;
    if (document.hidden) stop();
    else poll();
  });
  put(of("host"), location.host);
  if (!document.hidden) poll();
})();
