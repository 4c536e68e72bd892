// The page: choose a photo or an image of the index, draw a box on it, show the results.

const page = document.body;
const hasAttention = page.dataset.attention === "yes";
const mostBytes = Number(page.dataset.mostBytes);
const listed = Number(page.dataset.listed);
const MAPS_AT_ONCE = 3; // a browser opens six connections; the other three are for searches and photos
const KEY_STEP = 0.02; // of the longer side of the image
const SMALLEST_DRAG = 6; // in pixels of the screen; less is a click
const PAUSE = 300; // milliseconds after the last key until the search

const element = (id) => document.getElementById(id);
const stage = element("stage");
const boxView = element("box");
const sides = ["left", "top", "right", "bottom"].map(element);

/** The image to search for: its address on the server, its size, its box; `file` if it was sent. */
let query = null;
/** Number of the last search, so that answers to earlier ones are ignored. */
let turn = 0;
let abort = new AbortController();

class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError(0, "The server does not answer. Is it running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new RequestError(response.status, answer.error || `Error ${response.status}`);
  return answer;
}

function showError(error) {
  if (error.name === "AbortError") return;
  const text = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  element("error").textContent = /[.?!]$/.test(text) ? text : `${text}.`;
  element("error").hidden = false;
  element("error").scrollIntoView({ block: "nearest" });
}

// --- Choice of the image

async function send(file) {
  if (file.size > mostBytes) {
    throw new RequestError(413, `this photo has more than ${Math.floor(mostBytes / 2 ** 20)} MB`);
  }
  const headers = { "Content-Type": "application/octet-stream" };
  return ask("/uploads", { method: "POST", body: file, headers });
}

async function chooseFile(file) {
  const mine = start();
  try {
    const sent = await send(file);
    if (mine === turn) show({ ...sent, name: file.name || "pasted photo", file });
  } catch (error) {
    fail(mine, error);
  }
}

async function chooseRow(row) {
  const mine = start();
  try {
    const answer = await ask(`/images/${row}`);
    if (mine === turn) show({ ...answer, file: null });
  } catch (error) {
    fail(mine, error);
  }
}

/** Begin something new: what was asked before is not waited for any more. */
function start() {
  abort.abort();
  abort = new AbortController();
  element("error").hidden = true;
  page.setAttribute("data-busy", "");
  turn += 1;
  return turn;
}

function fail(mine, error) {
  if (mine !== turn) return;
  page.removeAttribute("data-busy");
  element("matches").removeAttribute("aria-busy");
  showError(error);
}

function show(chosen) {
  query = { ...chosen, box: null };
  page.classList.add("has-query");
  element("chosen").hidden = false;
  element("preview").src = `/${query.image}/preview`;
  element("preview").alt = query.name;
  stage.style.setProperty("--ratio", query.width / query.height);
  element("name").textContent = `${query.name}, ${query.width}\u00a0×\u00a0${query.height}`;
  sides.forEach((input, index) => {
    input.min = 0;
    input.max = index % 2 ? query.height : query.width;
  });
  drawBox();
  search();
}

// --- Search

async function search() {
  if (query === null) return;
  const mine = start();
  element("matches").setAttribute("aria-busy", "true");
  try {
    const answer = await searchOnce().catch(async (error) => {
      if (error.status !== 404 || query.file === null) throw error;
      query.image = (await send(query.file)).image; // the server has dropped the photo, or was restarted
      return searchOnce();
    });
    if (mine === turn) showResults(answer);
  } catch (error) {
    fail(mine, error);
  }
}

function searchOnce() {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ image: query.image, box: query.box });
  return ask("/search", { method: "POST", body, headers, signal: abort.signal });
}

function showResults({ matches, changed, outdated, seconds }) {
  page.removeAttribute("data-busy");
  let note = changed ? ` ${changed} of them were deleted or changed after indexing: index again.` : "";
  if (outdated) note = " The index has changed: restart the server to search it.";
  const part = query.box ? "the part in the box" : "the photo";
  element("status").textContent =
    `${matches.length} images most similar to ${part}, found in ${seconds.toFixed(2)} s.${note}`;
  const cards = matches.map(makeCard);
  const old = element("matches").querySelectorAll("img");
  old.forEach((image) => image.removeAttribute("src")); // ends requests that wait
  const focused = [element("matches"), element("index")].some((part) => part.contains(document.activeElement));
  element("matches").replaceChildren(...cards);
  element("matches").removeAttribute("aria-busy");
  element("to-results").hidden = false;
  view("results");
  if (focused) element("results-title").focus({ preventScroll: true });
  element("jump").hidden = false;
  if (hasAttention) showHeat(matches, cards);
}

function makeCard(match) {
  const card = element("card").content.cloneNode(true).firstElementChild;
  const similarity = match.similarity.toFixed(4);
  card.querySelector(".photo").src = `/images/${match.row}/thumbnail`;
  card.querySelector(".photo").addEventListener("error", replaceByText);
  card.querySelector(".rank").textContent = match.rank;
  card.querySelector(".similarity").textContent = similarity;
  card.querySelector(".name").textContent = match.name;
  const button = card.querySelector("button");
  button.title = "Search for images like this one";
  button.addEventListener("click", () => {
    remember(match.row);
    chooseRow(match.row);
    scrollTo({ top: 0 });
  });
  return card;
}

function replaceByText(event) {
  if (!event.target.hasAttribute("src")) return;
  const none = document.createElement("span");
  none.className = event.target.className + " none";
  none.textContent = event.target.classList.contains("heat") ? "no map" : "no image";
  event.target.replaceWith(none);
}

/** Load the heat maps in the order of the ranks, a few at a time, until the next results. */
function showHeat(matches, cards) {
  resultsShown += 1;
  const mine = resultsShown;
  const heat = element("query-heat");
  const box = query.box ? `?box=${query.box.join(",")}` : "";
  const jobs = [{ image: heat.querySelector("img"), src: `/${query.image}/attention${box}` }];
  heat.hidden = false;
  matches.forEach((match, index) => {
    const image = document.createElement("img");
    image.className = "heat waiting";
    image.alt = "";
    cards[index].querySelector(".images").append(image);
    jobs.push({ image, src: `/images/${match.row}/attention` });
  });
  const next = () => {
    const job = mine === resultsShown && element("show-heat").checked ? jobs.shift() : undefined;
    if (job === undefined) return;
    const done = (event) => {
      job.image.classList.remove("waiting");
      if (event.type === "error" && job.image.classList.contains("heat")) replaceByText(event);
      next();
    };
    job.image.onload = done;
    job.image.onerror = done;
    job.image.src = job.src;
  };
  loadHeat = () => {
    for (let count = 0; count < MAPS_AT_ONCE; count += 1) next();
  };
  loadHeat();
}

let resultsShown = 0;
let loadHeat = () => {};

// --- Box, in pixels of the image

function setBox(corners) {
  const [x1, y1, x2, y2] = corners;
  const within = (value, most) => Math.min(Math.max(Math.round(value), 0), most);
  const box = [
    within(Math.min(x1, x2), query.width - 1),
    within(Math.min(y1, y2), query.height - 1),
    within(Math.max(x1, x2), query.width),
    within(Math.max(y1, y2), query.height),
  ];
  box[2] = Math.max(box[2], box[0] + 1);
  box[3] = Math.max(box[3], box[1] + 1);
  query.box = box;
  drawBox();
}

function removeBox() {
  const had = query !== null && query.box !== null;
  if (query !== null) query.box = null;
  drawBox();
  return had;
}

function drawBox() {
  const box = query === null ? null : query.box;
  boxView.hidden = box === null;
  element("clear").hidden = box === null;
  sides.forEach((input, index) => {
    input.value = box === null ? "" : box[index];
  });
  if (box === null) return;
  const share = (value, side) => `${(100 * value) / side}%`;
  boxView.style.left = share(box[0], query.width);
  boxView.style.top = share(box[1], query.height);
  boxView.style.width = share(box[2] - box[0], query.width);
  boxView.style.height = share(box[3] - box[1], query.height);
}

/** Return the pixel of the image below the pointer. */
function pixelAt(event) {
  const area = element("preview").getBoundingClientRect();
  return [
    ((event.clientX - area.left) / area.width) * query.width,
    ((event.clientY - area.top) / area.height) * query.height,
  ];
}

function shifted(box, dx, dy) {
  const x = Math.min(Math.max(dx, -box[0]), query.width - box[2]);
  const y = Math.min(Math.max(dy, -box[1]), query.height - box[3]);
  return [box[0] + x, box[1] + y, box[2] + x, box[3] + y];
}

stage.addEventListener("pointerdown", (event) => {
  if (query === null || event.button !== 0 || !event.isPrimary) return;
  event.preventDefault();
  stage.focus({ preventScroll: true });
  stage.setPointerCapture(event.pointerId);
  const first = pixelAt(event);
  const before = query.box;
  const corner = event.target.dataset.corner;
  // A corner is dragged away from the opposite one; inside, the box moves; outside, a new one begins.
  const opposite = { 0: [2, 3], 1: [0, 3], 2: [0, 1], 3: [2, 1] }[corner];
  const anchor = opposite ? opposite.map((index) => before[index]) : first;
  const moves = !opposite && event.target === boxView;
  let dragged = false;
  const move = (later) => {
    if (Math.hypot(later.clientX - event.clientX, later.clientY - event.clientY) >= SMALLEST_DRAG) dragged = true;
    if (!dragged) return;
    const [x, y] = pixelAt(later);
    setBox(moves ? shifted(before, x - first[0], y - first[1]) : [...anchor, x, y]);
  };
  const end = (last) => {
    stage.removeEventListener("pointermove", move);
    stage.removeEventListener("pointerup", end);
    stage.removeEventListener("pointercancel", end);
    if (last.type === "pointercancel") {
      query.box = before;
      drawBox();
    } else if (dragged) {
      search();
    } else if (!opposite && !moves && removeBox()) {
      search();
    }
  };
  stage.addEventListener("pointermove", move);
  stage.addEventListener("pointerup", end);
  stage.addEventListener("pointercancel", end);
});

let pause;

function searchSoon() {
  clearTimeout(pause);
  pause = setTimeout(search, PAUSE);
}

stage.addEventListener("keydown", (event) => {
  if (query === null || event.ctrlKey || event.altKey || event.metaKey) return;
  const step = Math.max(1, Math.round(KEY_STEP * Math.max(query.width, query.height)));
  const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "Escape" || event.key === "Delete" || event.key === "Backspace") {
    if (!removeBox()) return;
  } else if (event.key === "Enter" || (direction && query.box === null)) {
    if (query.box !== null) return;
    setBox([query.width / 4, query.height / 4, (3 * query.width) / 4, (3 * query.height) / 4]);
  } else if (direction) {
    const [dx, dy] = direction.map((sign) => sign * step);
    const [x1, y1, x2, y2] = query.box;
    setBox(event.shiftKey ? [x1, y1, Math.max(x2 + dx, x1 + 1), Math.max(y2 + dy, y1 + 1)] : shifted(query.box, dx, dy));
  } else {
    return;
  }
  event.preventDefault();
  searchSoon();
});

sides.forEach((input) => {
  input.addEventListener("change", () => {
    if (query === null) return;
    const whole = [0, 0, query.width, query.height];
    setBox(sides.map((one, index) => (one.value === "" ? whole[index] : Number(one.value))));
    searchSoon();
  });
});

element("clear").addEventListener("click", () => {
  if (removeBox()) search();
  stage.focus({ preventScroll: true });
});

// --- Files: button, drop and paste

element("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // the same file can be chosen again
  if (file) chooseOwn(file);
});

function chooseOwn(file) {
  if (location.hash) history.pushState(null, "", location.pathname);
  chooseFile(file);
}

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  page.classList.add("dragged");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) page.classList.remove("dragged");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  page.classList.remove("dragged");
  const [file] = event.dataTransfer.files;
  if (file) chooseOwn(file);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) chooseOwn(file);
});

// --- Images of the index

let listing = 0;

async function list(more) {
  listing += 1;
  const mine = listing;
  const start = more ? element("images").children.length : 0;
  const name = element("filter").value;
  try {
    const { total, images } = await ask(`/images?${new URLSearchParams({ start, name })}`);
    if (mine !== listing) return;
    const tiles = images.map(makeTile);
    if (more) element("images").append(...tiles);
    else element("images").replaceChildren(...tiles);
    if (more && tiles.length) tiles[0].querySelector("button").focus();
    const shown = element("images").children.length;
    element("count").textContent = shown < total ? `${shown} of ${total} images` : `${total} images`;
    element("more").hidden = shown >= total;
    element("more").textContent = `${Math.min(listed, total - shown)} more images`;
  } catch (error) {
    showError(error);
  }
}

function makeTile({ row, name }) {
  const tile = element("tile").content.cloneNode(true).firstElementChild;
  tile.querySelector("img").src = `/images/${row}/thumbnail`;
  tile.querySelector("img").addEventListener("error", replaceByText);
  tile.querySelector(".name").textContent = name;
  tile.querySelector("button").addEventListener("click", () => {
    remember(row);
    chooseRow(row);
    scrollTo({ top: 0 });
  });
  return tile;
}

element("more").addEventListener("click", () => list(true));
element("filter").addEventListener("input", () => list(false));

// --- Views and history

function view(name) {
  element("results").hidden = name !== "results";
  element("index").hidden = name !== "index";
}

element("jump").addEventListener("click", () => {
  element("results").scrollIntoView();
  element("results-title").focus({ preventScroll: true });
});
element("to-index").addEventListener("click", () => {
  view("index");
  element("filter").focus();
});
element("to-results").addEventListener("click", () => {
  view("results");
  element("results-title").focus();
});

/** Write the row into the address, so that the browser's Back button returns to earlier searches. */
function remember(row) {
  history.pushState(null, "", `#images/${row}`);
}

function restore() {
  const row = /^#images\/(\d+)$/.exec(location.hash);
  if (row) chooseRow(Number(row[1]));
}

addEventListener("popstate", restore);

if (hasAttention) {
  element("scale").style.background = `linear-gradient(to right, ${page.dataset.colors})`;
  element("show-heat").addEventListener("change", (event) => {
    page.classList.toggle("no-heat", !event.target.checked);
    loadHeat();
  });
} else {
  page.classList.add("no-attention");
}
list(false);
restore();
