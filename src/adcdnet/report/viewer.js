"use strict";
// Image and map on one canvas: a border that wipes between them, or both side by side; zoom, pan, and a reading of what
// lies under the pointer. Coordinates of the ground are map pixels: x to the right, y down, (0, 0) the upper left corner.
(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const [box, canvas, wipe, readout, under, over] = ["viewer", "canvas", "wipe", "readout", "under", "over"].map(at);
  if (!("DecompressionStream" in window)) return; // an old browser: the still pictures say the same

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }
  const index = await unpack(data.index);
  const chances = data.probabilities && (await unpack(data.probabilities));
  const images = {};
  for (const option of [...under.options, ...over.options]) {
    images[option.value] = at("layer-" + option.value);
    await images[option.value].decode();
  }
  box.hidden = false;

  // the map, redrawn when a class is hidden
  const hidden = new Set();
  const map = document.createElement("canvas");
  [map.width, map.height] = [data.cols, data.rows];
  function paintMap() {
    const pixels = new ImageData(data.cols, data.rows);
    const shades = data.colors.map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));
    index.forEach((k, i) => {
      if (k && !hidden.has(k)) pixels.data.set([...shades[k - 1], 255], 4 * i);
    });
    map.getContext("2d").putImageData(pixels, 0, 0);
  }

  // the view: which ground lies in the middle, and how many canvas pixels a map pixel takes
  let scale = 1, x = data.width / 2, y = data.height / 2;
  let cross = null; // the ground that is read, [x, y]
  let beside = false;
  const halves = () => (beside ? 2 : 1);
  const fit = () => Math.min(canvas.width / halves() / data.width, canvas.height / data.height);
  const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
  const border = () => (canvas.width * wipe.value) / 1000;

  const shape = () => { canvas.style.aspectRatio = `${data.width * halves()} / ${data.height}`; };
  function settle() {
    scale = clamp(scale, fit(), Math.max(fit(), 64));
    const [w, h] = [canvas.width / halves() / scale / 2, canvas.height / scale / 2];
    x = 2 * w >= data.width ? data.width / 2 : clamp(x, w, data.width - w);
    y = 2 * h >= data.height ? data.height / 2 : clamp(y, h, data.height - h);
    canvas.style.touchAction = scale > fit() * 1.01 ? "none" : "pan-y";
    draw();
  }

  function draw() {
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const half = canvas.width / halves();
    const parts = beside ? [[0, half, half / 2], [half, half, half * 1.5]]
      : [[0, border(), half / 2], [border(), canvas.width - border(), half / 2]];
    parts.forEach(([left, width, middle], side) => {
      pen.save();
      pen.beginPath();
      pen.rect(left, 0, width, canvas.height);
      pen.clip();
      const place = (image, w, h) =>
        pen.drawImage(image, middle - x * scale, canvas.height / 2 - y * scale, w * scale, h * scale);
      place(images[under.value], data.width, data.height);
      if (side && over.value === "map") place(map, data.cols * data.step, data.rows * data.step);
      else if (side) place(images[over.value], data.cols * data.step, data.rows * data.step);
      if (cross) drawCross(pen, middle + (cross[0] - x) * scale, canvas.height / 2 + (cross[1] - y) * scale);
      pen.restore();
    });
    pen.fillStyle = "#fff";
    pen.fillRect(Math.round(parts[1][0]) - 1, 0, 2, canvas.height);
  }

  function drawCross(pen, cx, cy) {
    for (const [color, width] of [["#000", 4], ["#fff", 1.5]]) {
      pen.strokeStyle = color;
      pen.lineWidth = width;
      pen.beginPath();
      pen.moveTo(cx - 9, cy); pen.lineTo(cx + 9, cy);
      pen.moveTo(cx, cy - 9); pen.lineTo(cx, cy + 9);
      pen.stroke();
    }
  }

  const percent = (v) => (v < 0.5 ? "<1" : Math.round(v)) + " %";
  function read(gx, gy) {
    const [col, row] = [Math.floor(gx), Math.floor(gy)];
    if (col < 0 || row < 0 || col >= data.width || row >= data.height) return;
    cross = [gx, gy];
    const i = Math.floor(row / data.step) * data.cols + Math.floor(col / data.step);
    const k = index[i];
    let text = `row ${row}, column ${col}`;
    if (data.place) {
      const [west, north, dx, dy] = data.place;
      text += ` (${(west + gx * dx).toFixed(dx < 0.01 ? 5 : 0)}, ${(north + gy * dy).toFixed(dx < 0.01 ? 5 : 0)})`;
    }
    text += k ? ` · map: ${data.names[k - 1]}` : " · not mapped";
    if (k && chances) {
      const each = data.names.map((name, j) => [chances[j * index.length + i] / 2.55, name]);
      each.sort((a, b) => b[0] - a[0]);
      text += " · " + each.slice(0, 4).filter(([v], j) => v > 0 || j === 0).map(([v, name]) => `${name} ${percent(v)}`).join(", ");
    }
    readout.textContent = text;
    draw();
  }

  // from a pointer to canvas pixels, and to the ground there
  function spot(event) {
    const r = canvas.getBoundingClientRect();
    const ratio = canvas.width / r.width;
    return [(event.clientX - r.left) * ratio, (event.clientY - r.top) * ratio];
  }
  function ground([px, py]) {
    const half = canvas.width / halves();
    const middle = (Math.floor(clamp(px, 0, canvas.width - 1) / half) + 0.5) * half;
    return [x + (px - middle) / scale, y + (py - canvas.height / 2) / scale];
  }
  function zoom(by, place) {
    const before = ground(place);
    scale = clamp(scale * by, fit(), Math.max(fit(), 64));
    const after = ground(place);
    x += before[0] - after[0];
    y += before[1] - after[1];
    settle();
  }

  const fingers = new Map();
  let wiping = false;
  canvas.addEventListener("pointerdown", (event) => {
    const p = spot(event);
    fingers.set(event.pointerId, p);
    wiping = !beside && fingers.size === 1 && Math.abs(p[0] - border()) < 12 * devicePixelRatio;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const p = spot(event), old = fingers.get(event.pointerId);
    if (old && wiping) {
      wipe.value = (1000 * p[0]) / canvas.width;
      draw();
    } else if (old && fingers.size === 2) {
      const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, q]) => q);
      const apart = (q) => Math.hypot(q[0] - other[0], q[1] - other[1]);
      fingers.set(event.pointerId, p);
      zoom(apart(p) / Math.max(1, apart(old)), [(p[0] + other[0]) / 2, (p[1] + other[1]) / 2]);
    } else if (old) {
      x -= (p[0] - old[0]) / scale;
      y -= (p[1] - old[1]) / scale;
      fingers.set(event.pointerId, p);
      settle();
    }
    if (!wiping && fingers.size < 2) read(...ground(p));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      fingers.delete(event.pointerId);
      if (end === "pointerup" && !wiping) read(...ground(spot(event)));
      wiping = false;
    });
  }
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return; // the page scrolls
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), spot(event));
  }, { passive: false });
  const centre = () => [canvas.width / halves() / 2, canvas.height / 2];
  canvas.addEventListener("keydown", (event) => {
    const far = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
    if (event.key in moves) {
      const [gx, gy] = cross || [x, y];
      const to = [clamp(gx + moves[event.key][0], 0, data.width - 0.5), clamp(gy + moves[event.key][1], 0, data.height - 0.5)];
      [x, y] = scale > fit() * 1.01 ? to : [x, y];
      settle();
      read(...to);
    } else if (event.key === "+" || event.key === "=") zoom(1.5, centre());
    else if (event.key === "-") zoom(1 / 1.5, centre());
    else if (event.key === "0") { scale = 0; settle(); }
    else return;
    event.preventDefault();
  });

  at("closer").addEventListener("click", () => zoom(1.5, centre()));
  at("farther").addEventListener("click", () => zoom(1 / 1.5, centre()));
  at("whole").addEventListener("click", () => { scale = 0; settle(); });
  at("beside").addEventListener("click", (event) => {
    beside = !beside;
    shape();
    event.target.setAttribute("aria-pressed", beside);
    wipe.disabled = beside;
    settle();
  });
  for (const input of [wipe, under, over]) input.addEventListener("input", draw);
  for (const button of document.querySelectorAll(".toggle")) {
    button.addEventListener("click", () => {
      const k = Number(button.dataset.class);
      hidden.has(k) ? hidden.delete(k) : hidden.add(k);
      button.setAttribute("aria-pressed", !hidden.has(k));
      paintMap();
      draw();
    });
  }
  shape();
  new ResizeObserver(() => {
    const whole = scale <= fit() * 1.01;
    [canvas.width, canvas.height] = [canvas.clientWidth * devicePixelRatio, canvas.clientHeight * devicePixelRatio];
    if (whole) scale = 0;
    settle();
  }).observe(canvas);
  paintMap();
  box.dataset.ready = "yes";
})();
