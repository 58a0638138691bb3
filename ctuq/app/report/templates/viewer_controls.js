/* Mouse, touch and keys; files to take away. */
const tool = () => byId("tool").value;
let held = null;
let timer = null;
const touches = new Map();

function step(by) {
  state.sample = (state.sample + by + page.samples.count) % page.samples.count;
  show("sample");
}

function stop() {
  clearInterval(timer);
  timer = null;
  if (samples) byId("play").textContent = "Play";
}

function finish() {
  const shape = drawing;
  drawing = null;
  if (shape && shape.points.length > 1 && !(shape.kind === "polygon" && shape.points.length < 3)) keep(shape);
  draw();
}

function place_(point) {
  if (!drawing || drawing.kind !== tool()) drawing = { kind: tool(), points: [point] };
  if (tool() === "polygon") drawing.points.push(point);
  else drawing.points[1] = point;
  draw();
}

canvas.addEventListener("pointerdown", (event) => {
  touches.set(event.pointerId, [event.clientX, event.clientY]);
  canvas.setPointerCapture(event.pointerId);
  const at = toPixels(event);
  held = { at, start: [event.clientX, event.clientY], window: windowOf(state.layer), gap: null };
  if (tool() === "look" || tool() === "window") return;
  event.preventDefault();
  canvas.focus({ preventScroll: true });
  if (tool() === "polygon") place_(at);
  else drawing = { kind: tool(), points: [at, at] };
});
canvas.addEventListener("pointermove", (event) => {
  const at = toPixels(event);
  const [x, y] = at.map(Math.floor);
  if (x >= 0 && x < width && y >= 0 && y < height) readOut(x, y);
  if (!held || !touches.has(event.pointerId)) return;
  touches.set(event.pointerId, [event.clientX, event.clientY]);
  if (touches.size === 2) {
    const [a, b] = [...touches.values()];
    const gap = Math.hypot(a[0] - b[0], a[1] - b[1]);
    if (held.gap) zoom(gap / held.gap, toPixels({ clientX: (a[0] + b[0]) / 2, clientY: (a[1] + b[1]) / 2 }));
    held.gap = gap;
    drawing = null;
  } else if (tool() === "look") pan(view.x + held.at[0] - at[0], view.y + held.at[1] - at[1]);
  else if (tool() === "window") {
    const [low, high] = held.window;
    const box = canvas.getBoundingClientRect();
    const wider = Math.exp(2 * (event.clientX - held.start[0]) / box.width);
    const middle = (low + high) / 2 + (event.clientY - held.start[1]) / box.height * (high - low);
    setWindow(middle - wider * (high - low) / 2, middle + wider * (high - low) / 2);
  } else if (tool() !== "polygon" && drawing) { drawing.points[1] = at; draw(); }
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => {
    touches.delete(event.pointerId);
    if (held && drawing && tool() !== "polygon") finish();
    held = null;
  });
}
canvas.addEventListener("dblclick", (event) => { if (tool() === "polygon") { event.preventDefault(); finish(); } });
canvas.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey && view.scale === 1 && event.deltaY > 0) return;
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), toPixels(event));
}, { passive: false });

canvas.addEventListener("keydown", (event) => {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const at = state.cross || { x: width >> 1, y: height >> 1 };
  if (move) {
    const far = event.shiftKey ? 10 : 1;
    state.cross = {
      x: Math.min(width - 1, Math.max(0, at.x + far * move[0])),
      y: Math.min(height - 1, Math.max(0, at.y + far * move[1])),
    };
    readOut(state.cross.x, state.cross.y);
    if (drawing && tool() !== "polygon") drawing.points[1] = [state.cross.x + 0.5, state.cross.y + 0.5];
  } else if (event.key === "+" || event.key === "=") zoom(1.5, [at.x, at.y]);
  else if (event.key === "-") zoom(1 / 1.5, [at.x, at.y]);
  else if (event.key === "0") { view.scale = 1; pan(0, 0); }
  else if (event.key === "Escape") drawing = null;
  else if ((event.key === " " || event.key === "Enter") && tool() !== "look" && tool() !== "window") {
    const point = [at.x + 0.5, at.y + 0.5];
    const done = drawing && drawing.kind === tool() && (tool() === "polygon" ? event.key === "Enter" : true);
    if (done && tool() !== "polygon") drawing.points[1] = point;
    if (done) finish(); else place_(point);
  } else return;
  event.preventDefault();
  draw();
});
canvas.addEventListener("blur", () => { state.cross = null; draw(); });

byId("controls").addEventListener("input", (event) => {
  const { name, id, value } = event.target;
  if (name === "layer") { stop(); show(value); }
  else if (id === "low" || id === "high") setWindow(byId("low").valueAsNumber, byId("high").valueAsNumber);
  else if (id === "palette") { state.palettes[kindOf(state.layer)] = value; draw(); }
  else if (id === "threshold" || id === "threshold-slider") {
    const other = byId(id === "threshold" ? "threshold-slider" : "threshold");
    if (Number.isFinite(event.target.valueAsNumber)) { other.value = event.target.value; show("probability"); }
  } else if (id === "tool") {
    drawing = null;
    canvas.style.touchAction = value === "look" && view.scale === 1 ? "pan-y" : "none";
    draw();
  }
});
byId("controls").addEventListener("reset", () => setTimeout(() => {
  stop();
  state.windows = {};
  state.palettes = {};
  drawing = null;
  view.scale = 1;
  pan(0, 0);
  show("mean");
}));
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("closer").addEventListener("click", () => zoom(1.5));
byId("farther").addEventListener("click", () => zoom(1 / 1.5));
if (samples) {
  byId("previous").addEventListener("click", () => { stop(); step(-1); });
  byId("next").addEventListener("click", () => { stop(); step(1); });
  byId("play").addEventListener("click", () => {
    if (timer) { stop(); return; }
    byId("play").textContent = "Stop";
    timer = setInterval(() => step(1), 250);
  });
}

function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/* Baseline TIFF of one strip of float32, as ImageJ and napari read it; the pixel's width in mm as pixels per centimetre. */
function tiff(image) {
  const entries = [
    [256, 3, 1, width], [257, 3, 1, height], [258, 3, 1, 32], [259, 3, 1, 1], [262, 3, 1, 1], [273, 4, 1, 0], [277, 3, 1, 1],
    [278, 4, 1, height], [279, 4, 1, 4 * size], [282, 5, 1, 0], [283, 5, 1, 0], [296, 3, 1, 3], [339, 3, 1, 3],
  ];
  const head = 8 + 2 + 12 * entries.length + 4;
  const buffer = new ArrayBuffer(head + 16 + 4 * size);
  const out = new DataView(buffer);
  out.setUint16(0, 0x4949, true);
  out.setUint16(2, 42, true);
  out.setUint32(4, 8, true);
  out.setUint16(8, entries.length, true);
  entries.forEach(([tag, type, count, value], i) => {
    const at = 10 + 12 * i;
    out.setUint16(at, tag, true);
    out.setUint16(at + 2, type, true);
    out.setUint32(at + 4, count, true);
    const stored = tag === 273 ? head + 16 : tag === 282 ? head : tag === 283 ? head + 8 : value;
    if (type === 3) out.setUint16(at + 8, stored, true); else out.setUint32(at + 8, stored, true);
  });
  for (const at of [head, head + 8]) {
    out.setUint32(at, Math.round(1e6), true);
    out.setUint32(at + 4, Math.max(1, Math.round(1e5 * pitch)), true);
  }
  image.forEach((value, i) => out.setFloat32(head + 16 + 4 * i, value, true));
  return buffer;
}

const csv = (rows) => new Blob([rows.map((row) => row.join(",")).join("\r\n")], { type: "text/csv" });
byId("save-png").addEventListener("click", () => canvas.toBlob((blob) => save(`${state.layer}.png`, blob)));
byId("save-tiff").addEventListener("click", () => save(`${state.layer}.tif`, new Blob([tiff(values())], { type: "image/tiff" })));
byId("save-csv").addEventListener("click", () => {
  const shown = values();
  save(`${state.layer}.csv`, csv(Array.from({ length: height }, (_, y) => [...shown.subarray(y * width, (y + 1) * width)])));
});
byId("save-measurements").addEventListener("click", () => {
  const plain = (text) => `"${text.replaceAll("−", "-").replaceAll('"', '""')}"`;
  const rows = shapes.map((shape) => measured(shape)).map((m) => [m.what, plain(m.place), plain(m.size), ...m.numbers.map((n) => n ?? "")]);
  save("measurements.csv", csv([["shape", "place", "size", "mean (1/mm)", "standard deviation (1/mm)"], ...rows]));
});

canvas.style.touchAction = "pan-y";
draw();
