// Keeps an open page true: listens to the hub's stream, swaps the pieces that changed, and says so
// when the hub does not answer. Falls back to asking when no stream comes through.
"use strict";
(() => {
  const POLL_MS = 2000; // between questions, when asking
  const RETRY_FIRST_MS = 500;
  const RETRY_MOST_MS = 5000;
  const DEAF_MS = 12000; // an open stream sends something every 5 s; one that does not is buffered
  const STREAMS_TRIED = 3; // without a message from a hub that answers, before asking instead
  const STREAM_AGAIN_MS = 300000; // when asking, before a stream is tried again
  const ANSWER_MS = 10000; // for an answer to a question; then the hub counts as silent
  const NEWS = "application/vnd.edgefleet.news+json";

  const address = document.body.dataset.live;
  const link = document.getElementById("link");
  const silence = document.getElementById("silence");
  let skewMs = Number(document.documentElement.dataset.now) * 1000 - Date.now();
  let heardMs = Date.now();
  let stream = null;
  let timer = null;
  let failures = 0; // since the hub last answered
  let deafStreams = 0; // streams that brought nothing while the hub answered, since one did
  let triedMs = 0; // when a stream was last tried
  let turn = 0; // what was begun in an earlier one has nothing to say any more
  let ended = "";

  // Times: in the reader's own zone, and ages by the hub's clock.
  const spanText = (seconds) => {
    const s = Math.max(0, Math.round(seconds));
    if (s < 60) return `${s} s`;
    if (s < 600) return `${Math.floor(s / 60)} min ${s % 60} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  };
  const clockText = (at) => at.toLocaleTimeString([], { hour12: false });
  const put = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };
  const showTimes = (root) => {
    const now = Date.now() + skewMs;
    for (const node of root.querySelectorAll("time")) {
      const at = new Date(node.dateTime);
      const left = (at - now) / 1000;
      node.title = at.toLocaleString();
      if (node.dataset.show === "moment") put(node, clockText(at));
      else if (node.dataset.show === "lasting") put(node, `For ${spanText(-left)}`);
      else if (node.dataset.show === "countdown")
        put(node, left > 0 ? `${clockText(at)}, in ${spanText(left)}` : clockText(at));
      else put(node, `${spanText(-left)} ago`);
    }
    for (const node of root.querySelectorAll("text[data-clock]"))
      put(node, clockText(new Date(node.dataset.clock)).slice(0, node.dataset.shown === "minutes" ? 5 : 8));
  };

  // Pieces: only those that changed are touched; what the reader opened or focused stays so.
  const swap = (piece) => {
    const place = document.querySelector(`[data-part="${CSS.escape(piece.name)}"]`);
    if (!place || place.dataset.version === piece.version) return;
    const open = [...place.querySelectorAll("details[open][id]")].map((node) => node.id);
    const scrolled = [...place.querySelectorAll(".scroll")].map((node) => node.scrollLeft);
    const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
    place.innerHTML = piece.html;
    place.dataset.version = piece.version;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    place.querySelectorAll(".scroll").forEach((node, i) => (node.scrollLeft = scrolled[i] ?? 0));
    if (focused) document.getElementById(focused)?.focus();
    showTimes(place);
  };
  const heard = (at) => {
    heardMs = Date.now();
    skewMs = at * 1000 - heardMs;
    failures = 0;
    silence.hidden = true;
  };
  const take = (news) => {
    heard(news.at);
    document.title = `${news.title} · edgefleet`;
    news.fragments.forEach(swap);
  };
  const say = (state, text) => {
    link.dataset.state = state;
    put(link, text);
  };

  // The link: a stream first, and questions when the hub answers but its streams bring nothing.
  // A hub that does not answer at all is asked in pauses that grow, and says nothing about streams.
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
    say("lost", "not live");
    silence.textContent = text;
    silence.hidden = false;
  };
  const lost = () => {
    failures += 1;
    say("lost", "not live");
  };

  const listen = () => {
    hangUp();
    triedMs = Date.now();
    const mine = (stream = new EventSource(address));
    const on = (name, act) =>
      mine.addEventListener(name, (event) => {
        if (stream !== mine) return;
        deafStreams = 0;
        act(JSON.parse(event.data));
        say("live", "live");
        later(deaf, DEAF_MS);
      });
    const deaf = () => {
      lost();
      ask(true);
    };
    on("fragments", take);
    on("alive", (news) => heard(news.at));
    mine.addEventListener("gone", (event) => finish(JSON.parse(event.data).message));
    mine.addEventListener("error", () => {
      // A refusal looks like a broken line to EventSource: a question tells them apart.
      if (stream === mine) ask(true);
    });
    later(deaf, DEAF_MS);
  };

  const ask = async (streamFailed = false) => {
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
      take(news);
      if (streamFailed) deafStreams += 1;
      if (deafStreams < STREAMS_TRIED) return later(listen, RETRY_FIRST_MS);
      say("asking", "live, by asking");
      later(Date.now() - triedMs < STREAM_AGAIN_MS ? ask : listen, POLL_MS);
    } catch {
      if (turn !== mine) return;
      lost();
      later(ask, retryMs());
    }
  };

  setInterval(() => {
    showTimes(document);
    if (ended || !failures) return;
    put(silence, `The hub has not answered for ${spanText((Date.now() - heardMs) / 1000)}. What you see is from then.`);
    silence.hidden = false;
  }, 1000);
  showTimes(document);

  // Keys.
  const PAGES = { f: "/", r: "/rollouts", d: "/devices", m: "/models", a: "/audit" };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !document.getElementById("keys")) return;
    const filter = document.getElementById("filter");
    if (event.key === "/") {
      event.preventDefault();
      if (filter) filter.focus();
      else location.assign("/devices#filter");
    } else if (event.key === "?") {
      document.getElementById("keys").toggleAttribute("open");
    } else if (PAGES[event.key]) location.assign(PAGES[event.key]);
  });
  if (location.hash === "#filter") document.getElementById("filter")?.focus();

  if (!address) return;
  // A hidden tab holds no stream: browsers allow few to one host.
  document.addEventListener("visibilitychange", () => {
    if (ended) return;
    if (document.hidden) hangUp();
    else listen();
  });
  window.addEventListener("pagehide", hangUp);
  if (!document.hidden) listen();
})();
