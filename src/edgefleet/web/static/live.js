// Keeps an open page current: reads the hub's stream, morphs the fragments that changed, and shows
// when the hub does not answer. Falls back to polling if the stream does not work.
// A morph keeps each element that stays: focus, selection, a click under way, an open question.
"use strict";
(() => {
  const POLL_MS = 2000; // between polls
  const RETRY_FIRST_MS = 500;
  const RETRY_MOST_MS = 5000;
  const STALLED_MS = 12000; // an open stream sends a message every 5 s; a silent one is buffered by a proxy
  const STREAMS_TRIED = 3; // stalled streams before polling, while the hub answers
  const STREAM_AGAIN_MS = 300000; // while polling, before a stream is tried again
  const ANSWER_MS = 10000; // timeout of one poll
  const NEWS = "application/vnd.edgefleet.news+json";

  const address = document.body.dataset.live;
  const link = document.getElementById("link");
  const silence = document.getElementById("silence");
  let skewMs = Number(document.documentElement.dataset.now) * 1000 - Date.now();
  let receivedMs = Date.now();
  let stream = null;
  let timer = null;
  let failures = 0; // since the hub last answered
  let stalledStreams = 0; // consecutive streams without a message while the hub answered
  let triedMs = 0; // when a stream was last tried
  let turn = 0; // answers to requests of an earlier turn are ignored
  let ended = "";
  let paused = false;

  // Times in the browser's time zone; ages by the hub's clock.
  const spanText = (seconds) => {
    const s = Math.max(0, Math.round(seconds));
    if (s < 60) return `${s} s`;
    if (s < 600) return `${Math.floor(s / 60)} min ${s % 60} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  };
  const two = (n) => String(n).padStart(2, "0");
  const clockText = (at) => `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const zoneText = (at) => {
    const minutes = -at.getTimezoneOffset();
    if (!minutes) return "UTC";
    const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
    return `UTC${minutes < 0 ? "-" : "+"}${hours}${rest ? `:${two(rest)}` : ""}`;
  };
  const fullText = (at) =>
    `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clockText(at)} ${zoneText(at)}`;
  const put = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };
  const showTimes = (root) => {
    const now = Date.now() + skewMs;
    for (const node of root.querySelectorAll("time")) {
      const at = new Date(node.dateTime);
      const left = (at - now) / 1000;
      const full = fullText(at);
      if (node.title !== full) node.title = full;
      if (node.dataset.show === "moment") put(node, full);
      else if (node.dataset.show === "short") put(node, `${spanText(-left)} ago`);
      else if (node.dataset.show === "lasting") put(node, `For ${spanText(-left)}, since ${full}`);
      else if (node.dataset.show === "countdown")
        put(node, left > 0 ? `${full}, in ${spanText(left)}` : full);
      else put(node, `${full}, ${spanText(-left)} ago`);
    }
    for (const node of root.querySelectorAll("text[data-clock]"))
      put(node, clockText(new Date(node.dataset.clock)).slice(0, node.dataset.shown === "minutes" ? 5 : 8));
  };

  // Fragments: only changed ones are morphed. What the reader opened or typed is the reader's.
  const keep = (old, next) => {
    if (old.nodeName === "TIME" && next.nodeName === "TIME") {
      // Its text is written here, not by the hub.
      for (const name of ["datetime", "data-show", "data-seen"]) {
        const value = next.getAttribute(name);
        if (value !== null && old.getAttribute(name) !== value) old.setAttribute(name, value);
      }
      return false;
    }
    return !(old.nodeName === "INPUT" && old.type !== "hidden");
  };
  const swap = (piece) => {
    const place = document.querySelector(`[data-part="${CSS.escape(piece.name)}"]`);
    if (!place || place.dataset.version === piece.version) return;
    Idiomorph.morph(place, piece.html, {
      morphStyle: "innerHTML",
      callbacks: {
        beforeNodeMorphed: keep,
        beforeAttributeUpdated: (name, node) => !(name === "open" && node.nodeName === "DETAILS"),
      },
    });
    place.dataset.version = piece.version;
    showTimes(place);
  };
  // When devices were last seen: as data, so that a row without news is not touched.
  const showSeen = (seen) => {
    for (const [name, at] of Object.entries(seen ?? {}))
      for (const node of document.querySelectorAll(`time[data-seen="${CSS.escape(name)}"]`))
        node.dateTime = new Date(at * 1000).toISOString();
  };
  const received = (at) => {
    receivedMs = Date.now();
    skewMs = at * 1000 - receivedMs;
    failures = 0;
    silence.hidden = true;
  };
  const apply = (news) => {
    received(news.at);
    document.title = `${news.title} · edgefleet`;
    news.fragments.forEach(swap);
    showSeen(news.last_seen);
  };
  const showLink = (state, text) => {
    link.dataset.state = state;
    put(link, text);
  };

  // The link: a stream first; polling if the hub answers but its streams bring no message.
  // A hub that does not answer is polled with exponential backoff.
  const later = (work, afterMs) => {
    clearTimeout(timer);
    timer = setTimeout(work, afterMs);
  };
  const retryMs = () => {
    const pause = Math.min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** Math.min(failures, 10));
    return pause * (0.75 + Math.random() / 2);
  };
  const hangUp = () => {
    turn += 1;
    clearTimeout(timer);
    stream?.close();
    stream = null;
  };
  const finish = (text) => {
    hangUp();
    ended = text;
    showLink("lost", "not live");
    silence.textContent = text;
    silence.hidden = false;
  };
  const lost = () => {
    failures += 1;
    showLink("lost", "not live");
  };

  const listen = () => {
    hangUp();
    triedMs = Date.now();
    const mine = (stream = new EventSource(address));
    const on = (name, act) =>
      mine.addEventListener(name, (event) => {
        if (stream !== mine) return;
        stalledStreams = 0;
        act(JSON.parse(event.data));
        showLink("live", "live");
        later(stalled, STALLED_MS);
      });
    const stalled = () => {
      lost();
      poll(true);
    };
    on("fragments", apply);
    on("alive", (news) => {
      received(news.at);
      showSeen(news.last_seen);
    });
    mine.addEventListener("gone", (event) => finish(JSON.parse(event.data).message));
    mine.addEventListener("error", () => {
      // EventSource cannot tell an HTTP error from a broken connection: a poll can.
      if (stream === mine) poll(true);
    });
    later(stalled, STALLED_MS);
  };

  const poll = async (streamFailed = false) => {
    hangUp();
    const mine = turn;
    try {
      const answer = await fetch(address, {
        headers: { Accept: NEWS },
        cache: "no-store",
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      if (turn !== mine) return;
      if (answer.status === 401) return finish("Your session has ended: reload to sign in.");
      if (answer.status === 404) return finish("This page no longer exists on the hub.");
      if (!answer.ok) throw new Error(String(answer.status));
      const news = await answer.json();
      if (turn !== mine) return;
      apply(news);
      if (streamFailed) stalledStreams += 1;
      if (stalledStreams < STREAMS_TRIED) return later(listen, RETRY_FIRST_MS);
      showLink("polling", "live, by polling");
      later(Date.now() - triedMs < STREAM_AGAIN_MS ? poll : listen, POLL_MS);
    } catch {
      if (turn !== mine) return;
      lost();
      later(poll, retryMs());
    }
  };

  setInterval(() => {
    showTimes(document);
    if (ended || !failures) return;
    put(silence, `The hub has not answered for ${spanText((Date.now() - receivedMs) / 1000)}. The page shows its last answer.`);
    silence.hidden = false;
  }, 1000);
  showTimes(document);

  // A paused page stays as it is.
  const pause = document.getElementById("pause");
  const setPaused = (value) => {
    if (ended || !address) return;
    paused = value;
    pause.setAttribute("aria-pressed", String(value));
    put(pause, value ? "Go on" : "Pause");
    if (!value) return listen();
    hangUp();
    failures = 0;
    silence.hidden = true;
    showLink("static", "paused");
  };
  pause?.addEventListener("click", () => setPaused(!paused));

  // Questions of buttons: one at a time, and Esc or Cancel closes it.
  const closeQuestion = () => {
    const open = document.querySelector("details.confirm[open]");
    if (!open) return false;
    open.removeAttribute("open");
    open.querySelector("summary").focus();
    return true;
  };
  document.addEventListener("click", (event) => {
    if (event.target.closest(".cancel")) closeQuestion();
  });

  // Keys. Those without Ctrl or Alt can be turned off: a speech input may type them by accident.
  const PAGES = { f: "/", r: "/rollouts", d: "/devices", m: "/models", a: "/audit" };
  const KEYS_OFF = "edgefleet-keys-off";
  const keysOn = document.getElementById("keys-on");
  if (keysOn) {
    keysOn.checked = localStorage.getItem(KEYS_OFF) === null;
    keysOn.addEventListener("change", () => {
      if (keysOn.checked) localStorage.removeItem(KEYS_OFF);
      else localStorage.setItem(KEYS_OFF, "yes");
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return void closeQuestion();
    const typing = event.target.closest("input, textarea, select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !keysOn?.checked) return;
    const filter = document.getElementById("filter");
    if (event.key === "/") {
      event.preventDefault();
      if (filter) filter.focus();
      else location.assign("/devices#filter");
    } else if (event.key === "?") {
      document.getElementById("keys").toggleAttribute("open");
    } else if (event.key === "p") setPaused(!paused);
    else if (PAGES[event.key]) location.assign(PAGES[event.key]);
  });
  if (location.hash === "#filter") document.getElementById("filter")?.focus();

  if (!address) return;
  if (pause) pause.hidden = false;
  // A hidden tab closes its stream: browsers allow few connections to one host.
  document.addEventListener("visibilitychange", () => {
    if (ended || paused) return;
    if (document.hidden) hangUp();
    else listen();
  });
  window.addEventListener("pagehide", hangUp);
  if (!document.hidden) listen();
})();
